"""The commit log on SQLite: reading it, and forgetting its old end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from reactor.engine.store import LOG_BYTES, LogEntry, LoggedWrite, Ts
from reactor.errors import StoreError

__all__ = ["read_log", "trim_log"]

#: What one transaction forgets at most, but for the rest of the entry that it is in. Large documents are slow to remove.
TRIM_ROWS = 1000
TRIM_BYTES = 8 * 1024 * 1024

READ = 'SELECT ts, "table", id, before, after FROM _reactor_log WHERE ts > ? AND ts <= ? ORDER BY ts, position'

#: octet_length looks at a row's header only, not at the document.
OLD_END = """
SELECT coalesce(max(ts) FILTER (WHERE total <= ?3), min(ts)) FROM (
    SELECT ts, sum(bytes) OVER (ORDER BY ts, position) AS total FROM (
        SELECT ts, position, coalesce(octet_length(before), 0) + coalesce(octet_length(after), 0) AS bytes
        FROM _reactor_log WHERE ts < ?1 ORDER BY ts, position LIMIT ?2))
"""


def read_log(connection: apsw.Connection, ts: Ts, until: Ts, limit: int) -> list[LogEntry]:
    """``Store.log_after``; ``limit`` is 1 or more.

    Raises:
        StoreError: code ``LogTrimmed``, when entries after ``ts`` have been trimmed away.
    """
    cursor = connection.cursor()
    try:
        trimmed = cursor.execute("SELECT trimmed_ts FROM _reactor_meta").get
        if ts < trimmed:
            raise StoreError(f"the log no longer has the commits after {ts}, only those after {trimmed}", code="LogTrimmed")
        return _entries(cursor.execute(READ, (ts, until)), limit)
    finally:
        # Rows beyond the limit are left unread, which would keep the read transaction open.
        cursor.close(True)


def _entries(rows: Iterable[Any], limit: int) -> list[LogEntry]:
    entries: list[LogEntry] = []
    writes: list[LoggedWrite] = []
    last: Ts | None = None
    size_bytes = 0
    for ts, table, id, before, after in rows:
        if ts != last:
            if last is not None:
                entries.append(LogEntry(last, tuple(writes)))
                if len(entries) == limit or size_bytes >= LOG_BYTES:
                    return entries
            last, writes = ts, []
        size_bytes += len(before or "") + len(after or "")
        writes.append(LoggedWrite(table, id, before, after))
    if last is not None:
        entries.append(LogEntry(last, tuple(writes)))
    return entries


def trim_log(connection: apsw.Connection, before: Ts) -> bool:
    """Forget some of the entries below ``before``, the oldest ones. Whether there were any."""
    upto = connection.execute(OLD_END, (before, TRIM_ROWS, TRIM_BYTES)).get
    if upto is None:
        return False
    connection.execute("DELETE FROM _reactor_log WHERE ts <= ?", (upto,))
    connection.execute("UPDATE _reactor_meta SET trimmed_ts = ?", (upto,))
    return True
