"""Holding the log's head on Postgres, and writing while it is held.

The head is one row. Who commits locks it in a statement of its own, at READ COMMITTED, and only then reads where the log stands:
in one statement with the lock, the rest of it would be read as of before the wait for the lock.

A lost connection. Before COMMIT was sent, nothing was written: the caller may try the same again. After, nobody but the
database knows: the node connects anew, ends the old session, takes the head's lock, which waits for whatever the old session
still did, and reads its own row of ``_reactor_nodes``, which the group had written with its number. While this cannot be found
out the group is neither committed nor failed, and nothing else is written by this node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from secrets import token_hex
from types import TracebackType
from typing import TypeAlias, TypeVar

from reactor.engine.store import DURATION_S, WENT_BACK, Commit, LogEntry, Ts
from reactor.errors import SchemaOutdated, StoreError, StoreUnavailable
from reactor.histogram import Histogram
from reactor.stores.postgres_connections import ERRORS, PATIENCE_S, RECONNECT_S, Connection, Server, is_lost
from reactor.stores.postgres_group import CHANNEL, write_group
from reactor.stores.postgres_log import HeadState, News, read_news
from reactor.stores.postgres_snapshots import Snapshots
from reactor.stores.postgres_tables import load_tables
from reactor.stores.turns import Shield

__all__ = ["PostgresHead", "Work"]

T = TypeVar("T")

#: Changes something in the transaction that holds the head; the snapshots' ``tables`` are as the database has them.
Work: TypeAlias = Callable[[Connection], Awaitable[None]]

logger = logging.getLogger(__name__)

#: A node that holds the head and says nothing for so long (stopped, or cut off) has its session ended by the server.
HOLDER_SILENT_MS = 3000

#: How long the server lets a node wait for the head while others hold it, before it has to ask again. So a connection over which
#: nothing has come a second later is one over which nothing will.
HEAD_WAIT_MS = 3000
HEAD_TIMEOUT_S = 4.0

OUTDATED = (
    "Another node has pushed another schema to the database, so this one takes no more writes. Start it again with the app's new version"
)

#: What is measured: waiting for the head, other nodes' turns included, and reading what they committed; the statements of a group;
#: making it durable.
STEPS = ("lock", "write", "commit")

LOCK = "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT 1 FROM _reactor_head FOR UPDATE"

#: Sent with the lock, but a statement of its own: whether the head is where this node left it, so that there is nothing to read.
#: The values are numbers and a digest.
UNMOVED = "SELECT 1 FROM _reactor_head WHERE head_ts = {} AND tables_version = {} AND schema = '{}'"

VERSION = "SELECT tables_version FROM _reactor_head"

END_SESSION = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND application_name = $2"


class PostgresHead(AbstractAsyncContextManager["PostgresHead"]):
    """A ``Head``, with the node's one writing connection. ``async with`` holds it; one task at a time does.

    A cancellation that comes while something is waited for here is delivered when that is done.

    Args:
        synchronous: False lets a crash of the database lose the last commits.

    Attributes:
        ts: of the newest commit, as of when the head was last taken.
        node: this node's name.
        pid: of the server's process behind the connection.
        schema: digest of the schema that this node serves; None before its first push.
        durations: of each of ``STEPS``, in seconds.
    """

    def __init__(self, server: Server, snapshots: Snapshots, *, synchronous: bool) -> None:
        self.ts = snapshots.ts
        self.node = token_hex(8)
        self.pid = 0
        self.schema: str | None = None
        self.outdated = False  # another node has pushed another schema
        self.schema_since = 0  # a version of the tables at which it was in force
        self.unusable: StoreError | None = None
        self._server = server
        self._snapshots = snapshots
        self._synchronous = synchronous
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None
        self._news: News | None = None
        self._shield = Shield()
        self._seen_schema = ""  # that was in force when the head was last taken
        self._group = 0
        self._session = ""
        self.held_exclusively = False
        self.durations = {step: Histogram(DURATION_S) for step in STEPS}
        self._changed = False  # whether the transaction has what a commit is needed for

    async def __aenter__(self) -> PostgresHead:
        await self._lock.acquire()
        self._shield = Shield()
        try:
            news = await self._shielded(self._hold())
            self.outdated = self.schema not in (None, news.head.schema)
            if self.outdated:
                await self._shielded(self._let_go())
                raise SchemaOutdated(OUTDATED)
        except BaseException:
            self._lock.release()
            self._shield.deliver()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await self._shielded(self._let_go())
        finally:
            self._lock.release()
            self._shield.deliver()

    async def entries_after(self, ts: Ts) -> list[LogEntry]:
        """See ``Head.entries_after``. Known since the head was taken: does not suspend."""
        assert self._news is not None
        return [entry for entry in self._news.entries if entry.ts > ts]

    async def write(self, commits: Sequence[Commit]) -> None:
        """See ``Head.write``. The event loop does not run between the moment when snapshots show the commits and the return."""
        traces = [commit for commit in commits if commit.writes or commit.request is not None]
        if not traces:
            return
        try:
            await self._shielded(self._write(traces))
        finally:
            self._shield.deliver()
        for commit in traces:
            self._snapshots.apply(commit.ts, commit.writes)
        self.ts = traces[-1].ts

    async def change(self, work: Work, *, schema: str | None = None) -> None:
        """Change rows, or the stored schema, under the head: the one that is held ``exclusively``, or one held for this alone.

        Args:
            schema: digest of the schema that comes into force with it; then the transaction is committed, also of one held.
        """
        if self.held_exclusively:
            await self._shielded(self._change(work, schema, commit=schema is not None))
            return
        async with self._lock:
            self._shield = Shield()
            try:
                await self._shielded(self._hold())
                await self._shielded(self._change(work, schema, commit=True))
            finally:
                try:
                    await self._shielded(self._let_go())
                finally:
                    self._shield.deliver()

    @contextlib.asynccontextmanager
    async def exclusively(self) -> AsyncIterator[PostgresHead]:
        """Hold the head for the end of a push, whatever schema is in force: ``change`` is called inside."""
        async with self._lock:
            self._shield = Shield()
            try:
                await self._shielded(self._hold())
                self.held_exclusively = True
                yield self
            finally:
                self.held_exclusively = False
                try:
                    await self._shielded(self._let_go())
                finally:
                    self._shield.deliver()

    async def connect(self) -> None:
        """See that there is a connection.

        Raises:
            StoreUnavailable, StoreError: there cannot be.
        """
        await self._connected()

    async def close(self) -> None:
        """Wait until nobody holds the head, and let nobody hold it from now on."""
        async with self._lock:
            self.unusable = StoreError(f"{self._server.name}: the store is closed")
            self._drop()

    async def _shielded(self, work: Awaitable[T]) -> T:
        return await self._shield.wait(asyncio.ensure_future(work))

    # --- taking and letting go

    async def _connected(self) -> Connection:
        if self.unusable is not None:
            raise self.unusable
        if self._connection is None or self._connection.is_closed():
            self._session = f"reactor {self.node} {token_hex(4)}"
            self._connection = await self._server.connect(
                {
                    "application_name": self._session,
                    "idle_in_transaction_session_timeout": str(HOLDER_SILENT_MS),
                    "lock_timeout": str(HEAD_WAIT_MS),
                    **({} if self._synchronous else {"synchronous_commit": "off"}),
                }
            )
            self.pid = self._connection.get_server_pid()
        return self._connection

    async def _hold(self) -> News:
        """Lock the head and read what it says; over and over while the database is away, but not for ever."""
        started = time.perf_counter()
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            try:
                connection = await self._connected()
                known = HeadState(self._snapshots.ts, self._snapshots.tables[0], self._seen_schema)
                found = await connection.execute(f"{LOCK}; {UNMOVED.format(*known)}", timeout=HEAD_TIMEOUT_S)
                news = self._news = News(known, []) if found == "SELECT 1" else await read_news(connection, known.ts)
                self._seen_schema = news.head.schema
                if news.head.tables_version != self._snapshots.tables[0]:
                    self._snapshots.tables = (news.head.tables_version, await load_tables(connection))
                self.check_went_back(news.head.ts, self._snapshots.ts)
            except (*ERRORS, StoreError) as error:
                self._drop()
                translated = self._server.error(error)
                if not isinstance(translated, StoreUnavailable) or asyncio.get_running_loop().time() > deadline:
                    raise translated from error
                await asyncio.sleep(RECONNECT_S)
            else:
                self.ts = news.head.ts
                self._changed = False
                self.durations["lock"].add(time.perf_counter() - started)
                return news

    def check_went_back(self, ts: Ts, before: Ts) -> None:
        """Raise StoreError if the database is at ``ts`` although it was at ``before`` before; then nothing here can be used any more."""
        if ts >= before:
            return
        self.unusable = StoreError(
            f"{self._server.name}: the database is at ts {ts}, behind {before}, which this node has served. It was restored "
            "or failed over to a standby that lacked the last commits. The node has to be started again",
            code=WENT_BACK,
        )
        raise self.unusable

    async def _let_go(self) -> None:
        """End the transaction: what ``change`` did is committed, anything else undone."""
        connection, self._news = self._connection, None
        if connection is None or not connection.is_in_transaction():
            return
        try:
            await connection.execute("COMMIT" if self._changed else "ROLLBACK")
        except ERRORS as error:
            self._drop()
            if self._changed:
                raise self._server.error(error) from error

    def _drop(self) -> None:
        """The connection is of no more use, or may not be."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    # --- writing

    async def _write(self, commits: Sequence[Commit]) -> None:
        connection = self._connection
        assert connection is not None, "the head is held"
        self._group += 1
        session = (connection.get_server_pid(), self._session)
        started = time.perf_counter()
        try:
            await write_group(connection, self._snapshots.tables[1], commits, self.ts, self.node, self._group)
        except (*ERRORS, StoreError) as error:
            if is_lost(error):
                self._drop()
            raise self._server.error(error) from error
        written = time.perf_counter()
        self.durations["write"].add(written - started)
        try:
            await connection.execute(f"NOTIFY {CHANNEL}; COMMIT")
            self.durations["commit"].add(time.perf_counter() - written)
        except ERRORS as error:
            self._drop()
            if not is_lost(error):
                raise self._server.error(error) from error
            if not await self._was_committed(self._group, *session):
                raise self._server.error(error) from error

    async def _was_committed(self, group: int, pid: int, session: str) -> bool:
        """Ask the database what became of a group; over and over until it answers."""
        logger.warning("The connection to %s was lost under a commit. What became of it is asked", self._server.name)
        while True:
            try:
                connection = await self._connected()
                await connection.fetch(END_SESSION, pid, session)
                await connection.execute(LOCK, timeout=HEAD_TIMEOUT_S)
                last: int | None = await connection.fetchval("SELECT last_group FROM _reactor_nodes WHERE node = $1", self.node)
                await connection.execute("ROLLBACK")
            except (*ERRORS, StoreError) as error:
                self._drop()
                if self.unusable is not None:
                    raise
                if not isinstance(self._server.error(error), StoreUnavailable):
                    logger.warning("Asking failed: %s", error)
                await asyncio.sleep(RECONNECT_S)
            else:
                return last == group

    async def _change(self, work: Work, schema: str | None, *, commit: bool) -> None:
        connection = self._connection
        assert connection is not None, "the head is held"
        try:
            before = await connection.fetchval(VERSION)
            await work(connection)
            if schema is not None:
                await connection.execute(
                    "UPDATE _reactor_head SET schema = $1, tables_version = tables_version + 1 WHERE schema <> $1", schema
                )
                await connection.execute("INSERT INTO _reactor_schemas (digest) VALUES ($1) ON CONFLICT DO NOTHING", schema)
            version = await connection.fetchval(VERSION)
            loaded = None if version == before else (version, await load_tables(connection))
            if commit:
                await connection.execute("COMMIT")
        except (*ERRORS, StoreError) as error:
            if is_lost(error):
                self._drop()
            raise self._server.error(error) from error
        self._changed = not commit
        if loaded is not None:
            self._snapshots.tables = loaded
        if schema is not None:
            self.schema, self.schema_since = schema, version
