-- 0001: the tables that reactor keeps for itself, beside one table for each table of documents.
--
-- A table of documents is an ordinary table that other programs may read at any time, also while reactor runs:
--
--     id     text     the document's id, as clients see it
--     ts     bigint   the commit that wrote this version of it, a position in _reactor_log
--     doc    json     the document, _id and _creationTime included:  SELECT doc ->> 'name' FROM users
--                     json and not jsonb: the text stays as it was written, and may hold the escape \u0000
--     key_1, key_2 …  bytea, one for each index: bytes that sort as the indexed values do. _reactor_indexes says which
--                     column belongs to which index; the b-tree over it is named "<table number>.<column>.<index>".
--                     A b-tree takes no entry over 2704 bytes, so it holds the first 2000 bytes of a key.
--
-- Never write to any of these tables from outside: the log would not know, and clients would not be told.


-- One row: what this database is.
CREATE TABLE _reactor_meta (
    one           integer NOT NULL PRIMARY KEY CHECK (one = 1),
    format        integer NOT NULL,           -- number of the newest of these scripts that has run
    trimmed_ts    bigint  NOT NULL DEFAULT 0, -- entries of the log up to this ts have been trimmed away
    instance_name text    NOT NULL,           -- drawn at random when the database was made
    secret        bytea   NOT NULL            -- authenticates what is handed to clients to be given back, as page cursors
);


-- One row: where the log stands. Whoever commits holds it locked (FOR UPDATE), so commits of all nodes take turns. It is
-- written by each group of commits: room is left on its page for new versions.
CREATE TABLE _reactor_head (
    one            integer NOT NULL PRIMARY KEY CHECK (one = 1),
    head_ts        bigint  NOT NULL, -- ts of the newest commit; never goes back, also when the log is trimmed
    tables_version bigint  NOT NULL, -- grows with every change of _reactor_tables and _reactor_indexes
    schema         text    NOT NULL  -- digest of the schema in force, in _reactor_schemas; '' before the first push
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);


-- Every schema that was ever in force. A node whose schema is one of the past is not let in: it is an old version of the
-- app that was started again.
CREATE TABLE _reactor_schemas (
    digest text        NOT NULL PRIMARY KEY,
    pushed timestamptz NOT NULL DEFAULT now()
);


-- The last group of commits of each node: what tells, when the connection was lost under a COMMIT, what became of it.
CREATE TABLE _reactor_nodes (
    node       text   NOT NULL PRIMARY KEY, -- drawn at random when the node started
    last_group bigint NOT NULL,
    ts         bigint NOT NULL              -- of its last commit
) WITH (fillfactor = 10);


-- The tables of documents. A table that left the schema keeps its row, so that its number is never given again.
CREATE TABLE _reactor_tables (
    name     text    NOT NULL PRIMARY KEY, -- as the schema has it
    number   integer NOT NULL UNIQUE,      -- in the ids of its documents
    sql_name text    NOT NULL UNIQUE,      -- of the SQL table: the same, unless Postgres cannot have that name beside another
    shape    text    NOT NULL DEFAULT ''   -- describes documents that every row is known to fit; '' when never checked
);


-- The indexes. An index that is redefined has two rows for a while: the old one serves until the new one is ready.
CREATE TABLE _reactor_indexes (
    table_name text    NOT NULL,
    key_column integer NOT NULL, -- 7 for the column key_7
    name       text    NOT NULL,
    fields     text    NOT NULL, -- JSON array of dotted paths; every key ends in the creation time and the id besides
    state      text    NOT NULL  -- building: commits leave the column NULL, the backfill fills it
        CHECK (state IN ('building', 'ready', 'dropped')), -- dropped: the column is being emptied, to be used again
    PRIMARY KEY (table_name, key_column)
);


-- The commit log: one row for each document that a commit wrote. before is NULL for an insert, after for a delete.
CREATE TABLE _reactor_log (
    ts       bigint  NOT NULL,
    position integer NOT NULL, -- among the writes of the commit
    "table"  text    NOT NULL,
    id       text    NOT NULL,
    before   json,
    after    json,
    PRIMARY KEY (ts, position)
);


-- What each mutation answered, so that one sent again, after its connection broke, has its effect once, on whichever node.
CREATE TABLE _reactor_requests (
    session   bytea  NOT NULL, -- what the client calls itself: any text
    request   bigint NOT NULL,
    ts        bigint NOT NULL,
    result    text   NOT NULL, -- JSON
    log_lines text   NOT NULL, -- JSON array of strings
    PRIMARY KEY (session, request)
);

CREATE INDEX _reactor_requests_by_ts ON _reactor_requests (ts);
