-- 0002: requests lie in the order of their commits, and their index by session is written behind.
--
-- Sessions are named at random. In a b-tree by session, each of 64 requests that commit together changed a page of its own: 64 of
-- the 115 to 220 pages that such a commit wrote. Now all of them are appended to one page or two. The index has the requests up to
-- requests_indexed_ts; those after it, some thousand at most, are known in memory, and put into the index in order of session.

ALTER TABLE _reactor_meta ADD COLUMN requests_indexed_ts INTEGER NOT NULL DEFAULT 0;

ALTER TABLE _reactor_requests RENAME TO _reactor_requests_before;

-- What each mutation answered, so that one sent again, after its connection broke, has its effect once.
CREATE TABLE _reactor_requests (
    ts        INTEGER NOT NULL PRIMARY KEY,
    session   TEXT    NOT NULL,
    request   INTEGER NOT NULL,
    result    TEXT    NOT NULL, -- JSON
    log_lines TEXT    NOT NULL  -- JSON array of strings
) STRICT;

CREATE TABLE _reactor_requests_by_session (
    session TEXT    NOT NULL,
    request INTEGER NOT NULL,
    ts      INTEGER NOT NULL,
    PRIMARY KEY (session, request)
) STRICT, WITHOUT ROWID;

INSERT INTO _reactor_requests SELECT ts, session, request, result, log_lines FROM _reactor_requests_before ORDER BY ts;
INSERT INTO _reactor_requests_by_session SELECT session, request, ts FROM _reactor_requests_before;
UPDATE _reactor_meta SET requests_indexed_ts = coalesce((SELECT max(ts) FROM _reactor_requests), 0);

DROP TABLE _reactor_requests_before;
