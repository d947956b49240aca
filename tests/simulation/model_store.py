"""A database of many equal nodes in a few dictionaries, that suspends wherever a real one would.

It keeps the promises of ``reactor.engine.store`` and nothing more: one head that nodes take turns in, snapshots of what a node
wrote or was told to have learned, a log of before and after, and wake-ups that may be lost. Every
operation first yields a number of times that the seed decides, so that runs interleave in every way; a write can be told to fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from reactor.engine.store import (
    LOG_TRIMMED,
    Commit,
    LogEntry,
    LoggedWrite,
    News,
    RequestKey,
    RequestRecord,
    RequestRepeated,
    Row,
    StoredTable,
    StoreSnapshot,
    Ts,
    Write,
)
from reactor.errors import StoreError, StoreFull, StoreUnavailable
from reactor.histogram import Histogram
from reactor.schema.catalog import IndexDef, Table

Rows = Mapping[str, tuple[Ts, str, tuple[bytes, ...]]]


@dataclass
class Database:
    """What the nodes share."""

    seed: int = 0
    tables: dict[str, Rows] = field(default_factory=dict)
    log: list[LogEntry] = field(default_factory=list)
    requests: dict[RequestKey, RequestRecord] = field(default_factory=dict)
    head: Ts = field(default=Ts(0))
    trimmed: Ts = field(default=Ts(0))

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.lock = asyncio.Lock()
        self.states: list[tuple[Ts, Mapping[str, Rows], Mapping[RequestKey, RequestRecord]]] = []
        self.wakes: list[Callable[[], None]] = []
        self.remember()

    def remember(self) -> None:
        """Keep the database as of now, for snapshots."""
        self.states.append((self.head, dict(self.tables), dict(self.requests)))

    def notify(self) -> None:
        """Wake some of the nodes; the others hear nothing."""
        for wake in self.wakes:
            if self.random.random() < 0.7:
                wake()

    async def suspend(self, most: int = 3) -> None:
        for _ in range(self.random.randint(0, most)):
            await asyncio.sleep(0)


class ModelSnapshot:
    def __init__(self, store: ModelStore, ts: Ts) -> None:
        self._store = store
        self.ts = ts
        _, self._tables, self._requests = next(state for state in reversed(store.database.states) if state[0] <= self.ts)
        self.released = False

    async def get(self, table: Table, id: str) -> Row | None:
        assert not self.released
        await self._store.suspend()
        found = self._tables.get(table.name, {}).get(id)
        return None if found is None else Row(id, found[0], found[1])

    async def scan(self, index: IndexDef, lo: bytes, hi: bytes, *, reverse: bool, limit: int) -> list[Row]:
        assert not self.released
        await self._store.suspend()
        rows = []
        for id, (ts, json, keys) in self._tables.get(index.table, {}).items():
            key = id.encode() if index.position < 0 else keys[index.position]
            if lo <= key < hi:
                rows.append(Row(id, ts, json, key))
        return sorted(rows, key=lambda row: row.key, reverse=reverse)[:limit]

    async def find_request(self, key: RequestKey) -> RequestRecord | None:
        await self._store.suspend()
        return self._requests.get(key)

    async def newest_request(self, session: str) -> int:
        await self._store.suspend()
        return max((key.request for key in self._requests if key.session == session), default=-1)

    def release(self) -> None:
        self.released = True


class ModelHead:
    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self.ts = store.database.head
        self._log = list(store.database.log)  # before anybody trims it

    async def entries_after(self, ts: Ts) -> list[LogEntry]:
        await self._store.suspend()
        return [entry for entry in self._log if entry.ts > ts]

    async def write(self, commits: Sequence[Commit]) -> None:
        await self._store.suspend(8)
        database = self._store.database
        if self._store.failures > 0:
            self._store.failures -= 1
            if database.random.random() < 0.5:
                raise StoreUnavailable("the model's connection was lost before the commit")
            raise StoreFull("the model's disk is full")
        if any(commit.request in database.requests for commit in commits):
            raise RequestRepeated("the model has that request")
        for commit in commits:
            if not commit.writes and commit.request is None:
                continue
            assert commit.ts > database.head, "ts must grow"
            database.head = commit.ts
            for write in commit.writes:
                rows = dict(database.tables.get(write.table.name, {}))
                current = rows.get(write.id)
                assert (None if current is None else current[1]) == write.before, "the committer's before image is not what is stored"
                if write.after is None:
                    rows.pop(write.id)
                else:
                    rows[write.id] = (commit.ts, write.after, write.after_keys)
                database.tables[write.table.name] = rows
            if commit.writes:
                database.log.append(LogEntry(commit.ts, tuple(LoggedWrite(w.table.name, w.id, w.before, w.after) for w in commit.writes)))
            if commit.request is not None:
                assert commit.request not in database.requests, "a request was written twice"
                database.requests[commit.request] = RequestRecord(commit.ts, commit.result, commit.log_lines)
        database.remember()
        self.ts = self._store.learned = database.head
        database.notify()


class ModelStore:
    """One node's connection to the database."""

    def __init__(self, database: Database, *, exclusive: bool = False) -> None:
        self.database = database
        self.exclusive = exclusive
        self.failures = 0  # how many of the next writes fail
        self.learned = database.head
        self.wake: Callable[[], None] = lambda: None
        self.behind_s = 0.0
        self.trouble: str | None = None
        self.durations: dict[str, Histogram] = {}

    async def suspend(self, most: int = 3) -> None:
        await self.database.suspend(most)

    def snapshot(self) -> StoreSnapshot:
        return ModelSnapshot(self, self.learned)

    @contextlib.asynccontextmanager
    async def head(self) -> AsyncIterator[ModelHead]:
        async with self.database.lock:
            self._check_trimmed(self.learned)
            yield ModelHead(self)

    def _check_trimmed(self, after: Ts) -> None:
        if after < self.database.trimmed:
            raise StoreError(f"the model's log no longer has the commits after {after}", code=LOG_TRIMMED)

    @contextlib.asynccontextmanager
    async def skip(self) -> AsyncIterator[StoreSnapshot]:
        await self.suspend()
        if self.database.random.random() < 0.2:
            raise StoreUnavailable("the model's connection was lost")
        snapshot = ModelSnapshot(self, self.database.head)
        yield snapshot
        snapshot.release()
        self.learned = snapshot.ts

    def head_for_push(self) -> AbstractAsyncContextManager[ModelHead]:
        return self.head()

    def pushing(self, tables: Sequence[Table]) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    async def news(self, after: Ts) -> News:
        await self.suspend()
        if self.database.random.random() < 0.05:
            asyncio.get_running_loop().call_soon(self.wake)  # as soon as it is there again
            raise StoreUnavailable("the model's connection was lost")
        self._check_trimmed(after)
        news = News(self.database.head, [entry for entry in self.database.log if entry.ts > after])
        await self.suspend()
        return news

    def learn(self, ts: Ts, writes: Sequence[Write] = ()) -> None:
        assert ts >= self.learned, "what is learned comes in order"
        self.learned = ts

    def on_news(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.database.wakes.append(wake)

    async def newest(self) -> Ts:
        await self.suspend()
        ts = self.database.head
        await self.suspend()
        return ts

    async def count(self, index: IndexDef, lo: bytes, hi: bytes) -> tuple[int, Ts]:
        await self.suspend()
        ts, tables, _ = self.database.states[-1]
        return sum(lo <= keys[index.position] < hi for _, _, keys in tables.get(index.table, {}).values()), ts

    async def log_after(self, ts: Ts, *, until: Ts | None = None, limit: int = 1000) -> list[LogEntry]:
        await self.suspend()
        return [e for e in self.database.log if e.ts > ts and (until is None or e.ts <= until)][:limit]

    async def trim(self, *, log_before: Ts, requests_before: Ts) -> None:
        log = self.database.log
        self.database.trimmed = max((entry.ts for entry in log if entry.ts < log_before), default=self.database.trimmed)
        self.database.log = [entry for entry in log if entry.ts >= log_before]

    def tables(self) -> Mapping[str, StoredTable]:
        return {name: StoredTable(name, 10001 + at, (), "") for at, name in enumerate(sorted(self.database.tables))}

    async def create_table(self, name: str) -> StoredTable:
        self.database.tables.setdefault(name, {})
        return self.tables()[name]

    async def create_index(self, table: str, name: str, fields: tuple[str, ...]) -> None:
        await self.suspend()

    async def fill_index(self, table: str, name: str, rows: Sequence[tuple[str, Ts, bytes]]) -> None:
        await self.suspend()

    async def build_index(self, table: str, name: str) -> None:
        await self.suspend()

    async def finish_schema(self, tables: Sequence[Table]) -> None:
        await self.suspend()

    async def close(self) -> None:
        await self.suspend()
