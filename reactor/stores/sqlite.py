"""The store on SQLite: a file for one process. Fulfils ``reactor.engine.store``.

Parts: ``sqlite_file`` opens and locks, ``sqlite_tables`` has the stored schema and its SQL, ``sqlite_log`` and ``sqlite_requests`` what is
kept of commits, ``sqlite_snapshots`` reads, ``sqlite_group`` and ``sqlite_writer`` write, ``sqlite_checkpoints`` keeps the write-ahead log
bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Literal, TypeVar

import apsw

from reactor.engine.store import DURATION_S, UNSEEN, Commit, LogEntry, StoredTable, Ts
from reactor.errors import StoreError, StoreUnavailable
from reactor.histogram import Histogram
from reactor.schema.catalog import IndexDef, Table
from reactor.stores import sqlite_tables
from reactor.stores.alone import Alone
from reactor.stores.sqlite_checkpoints import Checkpoints
from reactor.stores.sqlite_file import DatabaseFile, damaged, store_error
from reactor.stores.sqlite_group import write_group, write_rows
from reactor.stores.sqlite_log import trim_log
from reactor.stores.sqlite_requests import INDEX_AFTER, Recent, index_requests, trim_requests
from reactor.stores.sqlite_snapshots import Snapshots, SqliteSnapshot
from reactor.stores.sqlite_tables import SqlTable
from reactor.stores.sqlite_writer import Writer
from reactor.stores.stored_indexes import SqlIndex, is_finished
from reactor.stores.turns import Turn, Turns

__all__ = ["SqliteStore"]

T = TypeVar("T")

#: What is measured: a group's transaction, COMMIT included; that alone, with the wait for the disk; moving on to the newest commit;
#: copying the write-ahead log into the file.
STEPS = ("write", "commit", "snapshot", "checkpoint")

#: Rows of a table in which the key of a dropped index is removed in one transaction.
SWEEP_ROWS = 1000


class SqliteHead(AbstractAsyncContextManager["SqliteHead"]):
    """A ``Head``. ``async with`` holds it; one task at a time does."""

    def __init__(self, store: SqliteStore, ts: Ts) -> None:
        self.ts = ts  # advanced by the store alone, when it publishes
        self._store = store
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> SqliteHead:
        await self._lock.acquire()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()

    async def entries_after(self, ts: Ts) -> list[LogEntry]:
        return []

    async def write(self, commits: Sequence[Commit]) -> None:
        """See ``Head.write``. A cancellation that came meanwhile is delivered at the task's next await.

        The event loop does not run between the moment when snapshots show the commits and the return to the caller.
        """
        await self._store.write(commits)


class SqliteStore(Alone):
    """A database in one SQLite file. Made by ``open`` or ``temporary``.

    Attributes:
        path: of the file.
        instance_name: drawn when the database was made.
        secret: 32 bytes drawn with it, to authenticate what is handed to clients to be given back.
        durations: of each of ``STEPS``, in seconds.
    """

    def __init__(self, file: DatabaseFile, folder: TemporaryDirectory[str] | None = None) -> None:
        self.path = file.path
        self.instance_name: str
        self.secret: bytes
        self._file = file
        self._folder = folder
        try:
            self._tables: Mapping[str, SqlTable] = self._load_tables()
            self._snapshots = Snapshots(file.connect_reader, self._translate, self._tables, self._recent, file.writer, self._is_newest)
        except BaseException:
            file.close()
            raise
        self._head = SqliteHead(self, self._snapshots.current.ts)
        self._turns = Turns()
        self._writer = Writer(file)
        self._checkpoints = Checkpoints(file.path, self._writer, self._snapshots, self._publish)
        self._refreshes = Histogram(DURATION_S)
        counted = (self._writer.groups, self._writer.commits, self._refreshes, self._checkpoints.durations)
        self.durations: Mapping[str, Histogram] = dict(zip(STEPS, counted, strict=True))
        self._unusable: StoreError | None = None  # set for ever by ``close``, and when a commit could not be published

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, synchronous: Literal["full", "normal"] = "full") -> SqliteStore:
        """Open the database at ``path``, or make it, with its folder.

        Args:
            synchronous: "full" makes a commit durable before it is acknowledged; with "normal" a power failure, not a
                crash of the process, may lose the last ones.

        Raises:
            StoreLocked, StoreReadOnly, StoreCorrupt, StoreTooNew, StoreFull, StoreError: it cannot be used; says why.
        """
        return cls(DatabaseFile(path, synchronous))

    @classmethod
    def temporary(cls) -> SqliteStore:
        """A new database that waits for no disk and is deleted when it is closed."""
        folder = TemporaryDirectory(prefix="reactor-")
        return cls(DatabaseFile(Path(folder.name) / "reactor.db", "off"), folder)

    def _load_tables(self) -> dict[str, SqlTable]:
        writer = self._file.writer
        try:
            self.instance_name, self.secret = writer.execute("SELECT instance_name, secret FROM _reactor_meta").get
            tables = sqlite_tables.load_tables(writer)
            self._recent = Recent.load(writer)
            for table in tables.values():
                sqlite_tables.check_table(writer, table)
        except apsw.SQLError as error:
            raise damaged(self.path, error) from error
        except apsw.Error as error:
            raise self._translate(error) from error
        return tables

    # --- commits

    def snapshot(self) -> SqliteSnapshot:
        return self._snapshots.snapshot()

    def head(self) -> AbstractAsyncContextManager[SqliteHead]:
        return self._head

    async def write(self, commits: Sequence[Commit]) -> None:
        """``Head.write``; the caller holds the head."""
        traces = [commit for commit in commits if commit.writes or commit.request is not None]
        if not traces:
            return
        async with self._turns.next() as turn:
            await self._prepare(turn)
            group = partial(write_group, tables=self._tables, recent=self._recent, commits=traces, head=self._head.ts)
            await self._writer.run(turn, group, mutations=len(traces))
            self._recent.add((commit.request, commit.ts) for commit in traces if commit.request is not None)
            self._publish()

    async def count(self, index: IndexDef, lo: bytes, hi: bytes) -> tuple[int, Ts]:
        return self._snapshots.count(index, lo, hi)

    async def log_after(self, ts: Ts, *, until: Ts | None = None, limit: int = 1000) -> list[LogEntry]:
        return self._snapshots.log_after(ts, until, limit)

    async def trim(self, *, log_before: Ts, requests_before: Ts) -> None:
        """See ``Store.trim``. Also empties what dropped indexes left, which ``finish_schema`` has no time for.

        Commits take their turns between the steps. Cancelling it stops between two steps.
        """
        while await self._change(lambda connection: trim_log(connection, log_before)):
            pass
        async with self._turns.next() as turn:
            await self._prepare(turn)
            await self._index_requests(turn)
        while await self._change(lambda connection: trim_requests(connection, requests_before)):
            pass
        for table in self._tables.values():
            for index in table.indexes:
                if index.state == "dropped":
                    await self._sweep(table.name, index)

    # --- the stored schema

    def tables(self) -> Mapping[str, StoredTable]:
        return {name: table.stored for name, table in self._tables.items()}

    async def create_table(self, name: str) -> StoredTable:
        await self._change_tables(lambda connection: {name: sqlite_tables.add_table(connection, name)})
        return self._tables[name].stored

    async def create_index(self, table: str, name: str, fields: tuple[str, ...]) -> None:
        await self._change_tables(lambda connection: {table: sqlite_tables.add_index(connection, self._table(table), name, fields)})

    async def fill_index(self, table: str, name: str, rows: Sequence[tuple[str, Ts, bytes]]) -> None:
        async with self._turns.next() as turn:
            await self._prepare(turn)
            sql = sqlite_tables.filling_sql(self._table(table), name)
            # What a power failure takes away of a half-filled index is filled again: it is not ready, and starts anew.
            await self._writer.run(turn, lambda connection: write_rows(connection, sql, rows, every=False), synced=False)
            self._publish()

    async def build_index(self, table: str, name: str) -> None:
        await self._change(lambda connection: sqlite_tables.build_index(connection, self._table(table), name))

    async def finish_schema(self, tables: Sequence[Table]) -> None:
        """See ``Store.finish_schema``. The event loop does not run between the moment when it has happened and the return.

        Raises:
            StoreError: a document has no key in an index that would become ready; nothing has changed.
        """
        changed = [table for table in tables if not is_finished(self._table(table.name), table)]
        if changed:
            await self._change_tables(lambda connection: sqlite_tables.finish(connection, [(self._table(t.name), t) for t in changed]))

    async def close(self) -> None:
        """See ``Store.close``. Snapshots that are still held can no longer be read. Cancelling it does not cut it short."""
        async with self._turns.next() as turn:
            if self._file.closed:
                return
            self._unusable = StoreError(f"{self.path}: the store is closed")
            with contextlib.suppress(apsw.Error):  # the WAL is brought into the file just below, or at the next opening
                await self._checkpoints.wait(turn)
            self._snapshots.close()
            await self._writer.in_thread(turn, self._file.close)
            self._writer.close()
            if self._folder is not None:
                self._folder.cleanup()

    # --- one turn of writing

    async def _prepare(self, turn: Turn) -> None:
        """Before a transaction: all that could keep it from being published, once it is durable, fails here."""
        if self._unusable is not None:
            raise self._unusable
        self._snapshots.reserve()
        await self._checkpoints.finish(turn)
        if self._recent.count >= INDEX_AFTER:
            await self._index_requests(turn)
        self._snapshots.reserve()

    async def _index_requests(self, turn: Turn) -> None:
        self._snapshots.reserve()
        await self._writer.run_in_thread(turn, index_requests)
        self._recent = Recent()
        self._publish()

    def _publish(self, changed: Mapping[str, SqlTable] | None = None) -> None:
        """After a transaction: from here on snapshots are at the newest commit, with the tables that it left."""
        if changed:
            self._tables = {**self._tables, **changed}
        started = time.perf_counter()
        try:
            self._head.ts = self._snapshots.refresh(self._tables, self._recent)
            self._refreshes.add(time.perf_counter() - started)
        except apsw.Error as error:
            # To go on at the old head would give its ts away a second time.
            self._unusable = StoreUnavailable(
                f"{self._translate(error)}. What was written last is durable, and cannot be read. The node has to be started again",
                code=UNSEEN,
            )
            raise self._unusable from error
        self._checkpoints.begin()

    def _is_newest(self) -> bool:
        """Whether the last transaction is over and published, and no other one has begun."""
        return self._turns.free and self._unusable is None

    async def _change(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run a transaction of few, long statements in the writer's thread."""
        async with self._turns.next() as turn:
            await self._prepare(turn)
            result = await self._writer.run_in_thread(turn, work)
            self._publish()
            return result

    async def _change_tables(self, work: Callable[[apsw.Connection], Mapping[str, SqlTable]]) -> None:
        """The same for a change of the stored schema; ``work`` returns the tables that it changed."""
        async with self._turns.next() as turn:
            await self._prepare(turn)
            self._publish(await self._writer.run_in_thread(turn, work))

    async def _sweep(self, name: str, index: SqlIndex) -> None:
        after: int | None = 0
        while after is not None:
            after = await self._change(partial(sqlite_tables.sweep, table=self._table(name), index=index, after=after, rows=SWEEP_ROWS))
        await self._change_tables(lambda connection: {name: sqlite_tables.load_table(connection, name)})

    def _table(self, name: str) -> SqlTable:
        table = self._tables.get(name)
        if table is None:
            raise StoreError(f"{self.path}: there is no table {name}")
        return table

    def _translate(self, error: apsw.Error) -> StoreError:
        return store_error(error, self.path)
