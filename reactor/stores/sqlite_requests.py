"""Answered requests on SQLite: rows in order of ts, found by session through an index that is written behind.

``_reactor_requests_by_session`` has the requests up to ``requests_indexed_ts``. Those after it are known in memory, as ``Recent``, until
there are ``INDEX_AFTER`` of them and ``index_requests`` puts them into the index in order of session, in one transaction. Why: see
the migration 0002.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import apsw

from reactor.engine.store import RequestKey, RequestRecord, Ts
from reactor.errors import StoreError

__all__ = ["INDEX_AFTER", "Recent", "find_request", "index_requests", "newest_request", "trim_requests"]

#: Requests outside the index. Putting them into it takes some 10 ms, in which commits wait; each takes some 200 bytes of memory until then.
INDEX_AFTER = 4096

#: Requests that one transaction forgets at most.
TRIM_ROWS = 1000

UNINDEXED = "SELECT session, request, ts FROM _reactor_requests WHERE ts > (SELECT requests_indexed_ts FROM _reactor_meta)"
INDEX = f"INSERT INTO _reactor_requests_by_session {UNINDEXED} ORDER BY session, request"
INDEXED = "UPDATE _reactor_meta SET requests_indexed_ts = coalesce((SELECT max(ts) FROM _reactor_requests), requests_indexed_ts)"
FIND = "SELECT ts FROM _reactor_requests_by_session WHERE session = ? AND request = ?"
NEWEST = "SELECT max(request) FROM _reactor_requests_by_session WHERE session = ?"
ANSWER = "SELECT result, log_lines FROM _reactor_requests WHERE ts = ?"
OLD_END = "SELECT max(ts) FROM (SELECT ts FROM _reactor_requests WHERE ts < ? ORDER BY ts LIMIT ?)"
FORGET_INDEXED = """
DELETE FROM _reactor_requests_by_session WHERE (session, request) IN (SELECT session, request FROM _reactor_requests WHERE ts <= ?)
"""
FORGET = "DELETE FROM _reactor_requests WHERE ts <= ?"

Execute = Callable[..., Any]


class Recent:
    """The requests outside the index: by session, the ts of each by its number. ``count`` of them.

    Grows with each commit; one that begins empty replaces it when they are put into the index. A snapshot from before goes on with
    the one that it began with, and does not look at what came after its ts.
    """

    __slots__ = ("_indexed", "count", "sessions")

    def __init__(self) -> None:
        self.sessions: dict[str, dict[int, Ts]] = {}
        self._indexed: dict[str, int] = {}  # the largest number of each of these sessions that is in the index, −1 for none
        self.count = 0

    @classmethod
    def load(cls, connection: apsw.Connection) -> Recent:
        """What the database has outside the index."""
        recent = cls()
        found: Iterable[Any] = connection.execute(UNINDEXED)
        recent.add((RequestKey(session, request), Ts(ts)) for session, request, ts in found)
        return recent

    def check(self, execute: Execute, requests: Iterable[RequestKey]) -> None:
        """See to it that none of ``requests``, of one group, was answered before.

        Raises:
            StoreError: one was.
        """
        group: set[RequestKey] = set()
        for key in requests:
            session, number = key
            answered = self.sessions.get(session)
            indexed = self._indexed.get(session)
            if indexed is None:
                newest = execute(NEWEST, (session,)).get
                indexed = self._indexed[session] = -1 if newest is None else newest
            if key in group or (answered and number in answered) or (number <= indexed and execute(FIND, key).get is not None):
                raise StoreError(f"request {number} of session {session} was answered before")
            group.add(key)

    def add(self, requests: Iterable[tuple[RequestKey, Ts]]) -> None:
        """They are durable now."""
        for (session, number), ts in requests:
            answered = self.sessions.get(session)
            if answered is None:
                answered = self.sessions[session] = {}
            answered[number] = ts
            self.count += 1


def find_request(execute: Execute, recent: Recent, key: RequestKey, until: Ts) -> RequestRecord | None:
    """``StoreSnapshot.find_request`` of a snapshot at ``until`` that began with ``recent``."""
    answered = recent.sessions.get(key.session)
    ts = answered.get(key.request) if answered else None
    if ts is None:
        ts = execute(FIND, key).get
    elif ts > until:
        return None
    found = None if ts is None else execute(ANSWER, (ts,)).get
    if ts is None or found is None:
        return None
    result, lines = found
    return RequestRecord(ts, result.encode(), tuple(json.loads(lines)) if lines != "[]" else ())


def newest_request(execute: Execute, recent: Recent, session: str, until: Ts) -> int:
    """``StoreSnapshot.newest_request`` of a snapshot at ``until`` that began with ``recent``."""
    answered = [number for number, ts in recent.sessions.get(session, {}).items() if ts <= until]
    indexed: int | None = execute(NEWEST, (session,)).get
    return max([-1 if indexed is None else indexed, *answered])


def index_requests(connection: apsw.Connection) -> None:
    """Put all requests into the index."""
    connection.execute(INDEX)
    connection.execute(INDEXED)


def trim_requests(connection: apsw.Connection, before: Ts) -> bool:
    """Forget some of the requests answered below ``before``, the oldest ones, which are in the index. Whether there were any."""
    upto = connection.execute(OLD_END, (before, TRIM_ROWS)).get
    if upto is None:
        return False
    connection.execute(FORGET_INDEXED, (upto,))
    connection.execute(FORGET, (upto,))
    return True
