"""The commit log on Postgres: reading it, and forgetting its old end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from reactor.engine.store import LOG_TRIMMED, LogEntry, LoggedWrite, Ts
from reactor.errors import StoreError
from reactor.stores.postgres_connections import Connection

__all__ = ["HeadState", "News", "read_log", "read_news", "trim_log", "trim_requests"]

#: What one transaction forgets at most.
TRIM_ROWS = 1000

#: A node that has missed more is better off beginning anew than with all of it in memory.
NEWS_ROWS = 100_000

#: One statement, hence one snapshot: what is said to be there is there.
NEWS = """
SELECT h.head_ts, h.tables_version, h.schema, m.trimmed_ts, l.ts, l."table", l.id, l.before, l.after
FROM _reactor_head h CROSS JOIN _reactor_meta m LEFT JOIN LATERAL (
    SELECT * FROM _reactor_log WHERE ts > $1 ORDER BY ts, position LIMIT $2) l ON true
ORDER BY l.ts, l.position
"""

#: pg_column_size looks at a row only, not at a document that is kept apart from it; that it counts as it is compressed.
LOG = """
SELECT ts, "table", id, before, after FROM _reactor_log
WHERE ts > $1 AND ts <= (
    SELECT max(ts) FILTER (WHERE number = 1 OR total <= $4::bigint) FROM (
        SELECT ts, row_number() OVER by_ts AS number, sum(bytes) OVER by_ts AS total FROM (
            SELECT ts, sum(coalesce(pg_column_size(before), 0) + coalesce(pg_column_size(after), 0)) AS bytes
            FROM _reactor_log WHERE ts > $1 AND ts <= $2 GROUP BY ts ORDER BY ts LIMIT $3) AS sizes
        WINDOW by_ts AS (ORDER BY ts)) AS entries)
ORDER BY ts, position
"""

TRIM_LOG = """
WITH old AS (SELECT max(ts) AS upto FROM (SELECT ts FROM _reactor_log WHERE ts < $1 ORDER BY ts LIMIT $2) AS rows),
     gone AS (DELETE FROM _reactor_log USING old WHERE ts <= old.upto)
UPDATE _reactor_meta SET trimmed_ts = greatest(trimmed_ts, old.upto) FROM old WHERE old.upto IS NOT NULL
"""

TRIM_REQUESTS = """
DELETE FROM _reactor_requests WHERE (session, request) IN (
    SELECT session, request FROM _reactor_requests WHERE ts < $1 ORDER BY ts LIMIT $2)
"""

#: Beyond every ts.
NO_END = (1 << 63) - 1


class HeadState(NamedTuple):
    """The row of ``_reactor_head``."""

    ts: Ts
    tables_version: int
    schema: str


class News(NamedTuple):
    """Where the log stands, and all of it after some ts."""

    head: HeadState
    entries: list[LogEntry]


async def read_news(connection: Connection, after: Ts) -> News:
    """The head, and every entry after ``after`` up to it.

    Raises:
        StoreError: code ``LogTrimmed``, also when there are more than ``NEWS_ROWS``.
    """
    rows: list[Any] = await connection.fetch(NEWS, after, NEWS_ROWS + 1)
    head = HeadState(*rows[0][:3])
    if head.ts > after:
        check_trimmed(rows[0][3], after)
        if len(rows) > NEWS_ROWS:
            raise StoreError(f"more than {NEWS_ROWS} documents were written after {after}", code=LOG_TRIMMED)
    return News(head, entries(row[4:] for row in rows if row[4] is not None))


async def read_log(connection: Connection, after: Ts, until: Ts | None, limit: int, most_bytes: int) -> list[LogEntry]:
    """``Store.log_after``."""
    rows: list[Any] = await connection.fetch(LOG, after, NO_END if until is None else until, limit, most_bytes)
    # Asked after the rows: a trim that comes between is seen, and the answer errs on the safe side.
    check_trimmed(await connection.fetchval("SELECT trimmed_ts FROM _reactor_meta"), after)
    return entries(rows)


def check_trimmed(trimmed: Ts, after: Ts) -> None:
    if after < trimmed:
        raise StoreError(f"the log no longer has the commits after {after}, only those after {trimmed}", code=LOG_TRIMMED)


def entries(rows: Iterable[Any]) -> list[LogEntry]:
    """Entries from their rows ``(ts, table, id, before, after)``, in order."""
    found: list[LogEntry] = []
    writes: list[LoggedWrite] = []
    last: Ts | None = None
    for ts, table, id, before, after in rows:
        if ts != last:
            if last is not None:
                found.append(LogEntry(last, tuple(writes)))
            last, writes = ts, []
        writes.append(LoggedWrite(table, id, before, after))
    if last is not None:
        found.append(LogEntry(last, tuple(writes)))
    return found


async def trim_log(connection: Connection, before: Ts) -> bool:
    """Forget some of the entries below ``before``, the oldest ones. Whether there were any."""
    return bool(await connection.execute(TRIM_LOG, before, TRIM_ROWS) != "UPDATE 0")


async def trim_requests(connection: Connection, before: Ts) -> bool:
    """Forget some of the requests answered below ``before``, the oldest ones. Whether there were any."""
    return bool(await connection.execute(TRIM_REQUESTS, before, TRIM_ROWS) != "DELETE 0")
