-- 0001: the tables that reactor keeps for itself, beside one table for each table of documents.
--
-- A table of documents is an ordinary table that other programs may read at any time, also while reactor runs:
--
--     id     TEXT     the document's id, as clients see it
--     ts     INTEGER  the commit that wrote this version of it, a position in _reactor_log
--     doc    TEXT     the document as JSON, _id and _creationTime included:  SELECT doc ->> '$.name' FROM users
--     key_1, key_2 …  BLOB, one for each index: bytes that sort as the indexed values do. _reactor_indexes says which
--                     column belongs to which index; the b-tree over it is named "<table>.<index>.<column>".
--
-- Never write to any of these tables from outside: the log would not know, and clients would not be told.


-- One row: where the log stands, and what this database is.
CREATE TABLE _reactor_meta (
    one           INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    head_ts       INTEGER NOT NULL,           -- ts of the newest commit; never goes back, also when the log is trimmed
    trimmed_ts    INTEGER NOT NULL DEFAULT 0, -- entries of the log up to this ts have been trimmed away
    io_failures   INTEGER NOT NULL DEFAULT 0, -- commits that the disk failed in the middle of
    instance_name TEXT    NOT NULL,           -- drawn at random when the database was made
    secret        BLOB    NOT NULL            -- authenticates what is handed to clients to be given back, as page cursors
) STRICT;


-- The tables of documents. A table that left the schema keeps its row, so that its number is never given again.
CREATE TABLE _reactor_tables (
    name     TEXT    NOT NULL PRIMARY KEY, -- as the schema has it
    number   INTEGER NOT NULL UNIQUE,      -- in the ids of its documents
    sql_name TEXT    NOT NULL UNIQUE,      -- of the SQL table: the same, unless SQLite cannot have that name beside another
    shape    TEXT    NOT NULL DEFAULT ''   -- describes documents that every row is known to fit; '' when never checked
) STRICT, WITHOUT ROWID;


-- The indexes. An index that is redefined has two rows for a while: the old one serves until the new one is ready.
CREATE TABLE _reactor_indexes (
    table_name TEXT    NOT NULL,
    key_column INTEGER NOT NULL, -- 7 for the column key_7
    name       TEXT    NOT NULL,
    fields     TEXT    NOT NULL, -- JSON array of dotted paths; every key ends in the creation time and the id besides
    state      TEXT    NOT NULL  -- building: commits leave the column NULL, the backfill fills it
        CHECK (state IN ('building', 'ready', 'dropped')), -- dropped: the column is being emptied, to be used again
    PRIMARY KEY (table_name, key_column)
) STRICT, WITHOUT ROWID;


-- The commit log: one row for each document that a commit wrote. before is NULL for an insert, after for a delete.
-- A rowid table on purpose: rows are large, and appended in order, which a WITHOUT ROWID b-tree does at half the speed.
CREATE TABLE _reactor_log (
    ts       INTEGER NOT NULL,
    position INTEGER NOT NULL, -- among the writes of the commit
    "table"  TEXT    NOT NULL,
    id       TEXT    NOT NULL,
    before   TEXT,
    after    TEXT,
    PRIMARY KEY (ts, position)
) STRICT;


-- What each mutation answered, so that one sent again, after its connection broke, has its effect once.
CREATE TABLE _reactor_requests (
    session   TEXT    NOT NULL,
    request   INTEGER NOT NULL,
    ts        INTEGER NOT NULL,
    result    TEXT    NOT NULL, -- JSON
    log_lines TEXT    NOT NULL, -- JSON array of strings
    PRIMARY KEY (session, request)
) STRICT, WITHOUT ROWID;

CREATE INDEX _reactor_requests_by_ts ON _reactor_requests (ts);
