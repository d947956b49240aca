"""The store on Postgres: one database for any number of equal nodes. Fulfils ``reactor.engine.store``.

Parts: ``postgres_connections`` reaches the server, ``postgres_tables`` has the stored schema and its SQL, ``postgres_snapshots``
reads, ``postgres_standby`` has the server that it may read from, ``postgres_head`` and ``postgres_group`` write, ``postgres_log``
reads and trims the log, ``postgres_follower`` hears of other nodes' commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

from reactor.engine.eager import detached
from reactor.engine.store import LOG_BYTES, LogEntry, News, StoredTable, Ts, Write
from reactor.errors import SchemaOutdated, StoreError, StoreTooNew
from reactor.schema.catalog import IndexDef, Table
from reactor.stores import postgres_tables
from reactor.stores.postgres_connections import ERRORS, Connection, Connections, Server, is_lost
from reactor.stores.postgres_follower import Follower
from reactor.stores.postgres_head import OUTDATED, PostgresHead, Work
from reactor.stores.postgres_log import read_log, read_news, trim_log, trim_requests
from reactor.stores.postgres_snapshots import PostgresSnapshot, Snapshots
from reactor.stores.postgres_standby import IS_COMMIT, STANDBY_ANSWER_S, Standby, StandbyHealth
from reactor.stores.postgres_tables import SqlTable, load_tables
from reactor.stores.stored_indexes import SqlIndex, building, is_finished

__all__ = ["PostgresStore"]

MIGRATIONS = Path(__file__).parent / "migrations" / "postgres"

#: Connections of a node that read, on the primary and on a standby each. Beside them it has one that writes, one that listens, and
#: one more during a push.
READERS = 8

#: A node that has not been sure for so long to have all commits gets no requests.
TROUBLE_S = 2.0

#: Rows of a table in which the key of a dropped index is removed in one transaction.
SWEEP_ROWS = 1000

#: Advisory locks, by what they guard. Two numbers: the first marks them as reactor's ("Reac").
LOCK_CLASS = 0x52656163
MIGRATING, PUSHING, TRIMMING = 1, 2, 3

#: How often a node that wants to push looks whether another has ended. Not waited for in the database: a statement that waits
#: there holds a snapshot, which the building of an index in turn waits for.
PUSH_POLL_S = 0.1

#: How long a change of a table waits for its readers before it lets commits pass and tries again.
CHANGE_LOCK_TIMEOUT = "SET LOCAL lock_timeout = 300"
CHANGE_ATTEMPTS = 200
CHANGE_RETRY_S = 0.05


Tables: TypeAlias = tuple[int, Mapping[str, SqlTable]]


class PostgresStore:
    """A node's part of a database on a Postgres server. Made by ``open``.

    Attributes:
        path: the address, without the password.
        instance_name: drawn when the database was made.
        secret: 32 bytes drawn with it, to authenticate what is handed to clients to be given back.
        exclusive: False, other nodes may commit.
        durations: see ``PostgresHead.durations`` and ``Snapshots.durations``.
    """

    exclusive = False

    def __init__(
        self,
        server: Server,
        identity: tuple[str, bytes],
        head: Ts,
        tables: Tables,
        *,
        synchronous: bool,
        rollback: bool,
        read_from: Server | None,
    ) -> None:
        connections = Connections(server, READERS)
        self.path = server.name
        self.instance_name, self.secret = identity
        self._server = server
        self._connections = connections
        self._rollback = rollback
        self._tasks: set[asyncio.Task[None]] = set()
        self._snapshots = Snapshots(server, connections, head, tables, self._spawn)
        self._head = PostgresHead(server, self._snapshots, synchronous=synchronous)
        self.durations = {**self._head.durations, **self._snapshots.durations}
        self._follower = Follower(server, self._snapshots, self._head)
        if read_from is not None:
            self._snapshots.standby = Standby(
                read_from,
                self.instance_name,
                READERS,
                newest=lambda: (self._snapshots.ts, self._snapshots.tables[0]),
                is_commit=self._is_commit,
                on_change=self._snapshots.standby_changed,
            )

    @classmethod
    async def open(cls, url: str, *, read_url: str | None = None, synchronous: bool = True, rollback: bool = False) -> PostgresStore:
        """Open the database at ``url``, which exists; reactor's tables in it are made, or brought to the newest format.

        Any number of nodes may do so at the same time.

        Args:
            url: ``postgres://user:password@host:port/database``.
            read_url: of a hot standby that snapshots are read from whenever it is fresh enough.
            synchronous: False: a crash of the database may lose the last commits.
            rollback: a schema that another one has replaced before may come into force again.

        Raises:
            StoreUnavailable, StoreReadOnly, StoreTooNew, StoreError: it cannot be used; says why.
        """
        server = Server(url)
        connection = await server.connect()
        try:
            await _migrate(connection, server)
            instance_name, secret = await connection.fetchrow("SELECT instance_name, secret FROM _reactor_meta")
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                head, version = await connection.fetchrow("SELECT head_ts, tables_version FROM _reactor_head")
                tables = (version, await load_tables(connection))
        except ERRORS as error:
            raise server.error(error) from error
        finally:
            connection.terminate()
        read_from = None if read_url is None else Server(read_url, prefer="prefer-standby", timeout_s=STANDBY_ANSWER_S)
        identity = (instance_name, bytes(secret))
        store = cls(server, identity, head, tables, synchronous=synchronous, rollback=rollback, read_from=read_from)
        await store._head.connect()
        store._follower.start()
        return store

    # --- commits

    def snapshot(self) -> PostgresSnapshot:
        return self._snapshots.snapshot()

    def head(self) -> AbstractAsyncContextManager[PostgresHead]:
        return self._head

    def head_for_push(self) -> AbstractAsyncContextManager[PostgresHead]:
        return self._head.exclusively()

    async def count(self, index: IndexDef, lo: bytes, hi: bytes) -> tuple[int, Ts]:
        self._snapshots.check_open()
        sql, bounds = self._table(index.table).count(index, lo, hi)
        async with self._connections.one() as connection:
            counted, ts = await connection.fetchrow(sql, *bounds)
        return counted, Ts(ts)

    async def log_after(self, ts: Ts, *, until: Ts | None = None, limit: int = 1000) -> list[LogEntry]:
        self._snapshots.check_open()
        async with self._connections.one() as connection:
            return await read_log(connection, ts, until, limit, LOG_BYTES)

    # --- other nodes

    async def news(self, after: Ts) -> News:
        self._snapshots.check_open()
        if self._head.unusable is not None:
            raise self._head.unusable
        async with self._connections.one() as connection:
            head, entries = await read_news(connection, after)
        return News(head.ts, entries)

    def learn(self, ts: Ts, writes: Sequence[Write] = ()) -> None:
        self._snapshots.apply(ts, writes)

    @contextlib.asynccontextmanager
    async def skip(self) -> AsyncIterator[PostgresSnapshot]:
        self._snapshots.check_open()
        await self._follower.newest()  # which waits while the database is away
        async with self._connections.one() as connection:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                ts, version = await connection.fetchrow("SELECT head_ts, tables_version FROM _reactor_head")
                if version != self._snapshots.tables[0]:
                    self._snapshots.tables = (version, await load_tables(connection))
        with self._snapshots.skipping(ts) as snapshot:
            yield snapshot

    def on_news(self, wake: Callable[[], None]) -> None:
        self._follower.wake = wake

    async def newest(self) -> Ts:
        return await self._follower.newest()

    @property
    def behind_s(self) -> float:
        return self._follower.behind_s

    @property
    def trouble(self) -> str | None:
        if self._head.unusable is not None:
            return self._head.unusable.message
        if self._head.outdated:
            return OUTDATED
        if self.behind_s > TROUBLE_S:
            return f"{self.path}: the database has not answered for {self.behind_s:.0f} s"
        return None

    @property
    def standby(self) -> StandbyHealth | None:
        """How it goes with the standby that reads go to; None where there is none."""
        standby = self._snapshots.standby
        return None if standby is None else standby.health

    # --- the stored schema

    def tables(self) -> Mapping[str, StoredTable]:
        return {name: table.stored for name, table in self._snapshots.tables[1].items()}

    @contextlib.asynccontextmanager
    async def pushing(self, tables: Sequence[Table]) -> AsyncIterator[None]:
        connection = await self._server.connect()
        try:
            await self._begin_push(connection, _digest(tables))
            yield
        finally:
            connection.terminate()

    async def _begin_push(self, connection: Connection, digest: str | None) -> None:
        """Wait for other nodes' pushes, and see that this schema may come."""
        try:
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", LOCK_CLASS, PUSHING):  # noqa: ASYNC110
                await asyncio.sleep(PUSH_POLL_S)
            current = await connection.fetchval("SELECT schema FROM _reactor_head")
            replaced = await connection.fetchval("SELECT pushed FROM _reactor_schemas WHERE digest = $1", digest)
            if replaced is not None and digest != current and not self._rollback:
                raise SchemaOutdated(
                    f"{self.path}: this schema was pushed first on {replaced:%Y-%m-%d %H:%M:%S} UTC, and another one replaced it since. "
                    "Start the app's new version, or go back to this one with --rollback."
                )
            version = await connection.fetchval("SELECT tables_version FROM _reactor_head")
            if version != self._snapshots.tables[0]:
                self._snapshots.tables = (version, await load_tables(connection))
        except ERRORS as error:
            raise self._server.error(error) from error

    async def create_table(self, name: str) -> StoredTable:
        await self._change(lambda connection: postgres_tables.add_table(connection, name))
        return self._snapshots.tables[1][name].stored

    async def create_index(self, table: str, name: str, fields: tuple[str, ...]) -> None:
        await self._change(lambda connection: postgres_tables.add_index(connection, self._table(table), name, fields))

    async def fill_index(self, table: str, name: str, rows: Sequence[tuple[str, Ts, bytes]]) -> None:
        await self._change(lambda connection: postgres_tables.fill_index(connection, self._table(table), name, rows))

    async def build_index(self, table: str, name: str) -> None:
        stored = self._table(table)
        index = building(stored, name)
        async with self._connections.one() as connection:
            await postgres_tables.grow_tree(connection, stored, index, beside_writes=True)

    async def finish_schema(self, tables: Sequence[Table]) -> None:
        """See ``Store.finish_schema``.

        Raises:
            StoreError: a document has no key in an index that would become ready; nothing has changed.
        """

        async def finish(connection: Connection) -> None:
            changed = [table for table in tables if not is_finished(self._table(table.name), table)]
            await postgres_tables.finish(connection, [(self._table(table.name), table) for table in changed])

        await self._change(finish, schema=_digest(tables))
        self._snapshots.restart({table.name: table for table in tables})

    async def trim(self, *, log_before: Ts, requests_before: Ts) -> None:
        """See ``Store.trim``. Also empties what dropped indexes left. One node does it at a time; others find nothing to do.

        Cancelling it stops between two steps.
        """
        async with self._connections.one() as connection:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", LOCK_CLASS, TRIMMING):
                return
            try:
                while await trim_log(connection, log_before):
                    pass
                while await trim_requests(connection, requests_before):
                    pass
                await connection.execute("DELETE FROM _reactor_nodes WHERE ts < $1 AND node <> $2", requests_before, self._head.node)
            finally:
                await connection.execute("SELECT pg_advisory_unlock($1, $2)", LOCK_CLASS, TRIMMING)
        for table in self._snapshots.tables[1].values():
            for index in table.indexes:
                if index.state == "dropped":
                    await self._sweep(table, index)

    async def close(self) -> None:
        """See ``Store.close``. Snapshots that are still held can no longer be read."""
        await self._follower.close()
        await self._head.close()
        await self._snapshots.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._connections.close()
        await asyncio.sleep(0)  # a connection is closed in the turn after

    async def _change(self, work: Work, *, schema: str | None = None) -> None:
        """Change the stored schema. Commits, and other nodes, pass between the attempts to have a table for itself."""
        self._snapshots.check_open()

        async def attempt(connection: Connection) -> None:
            await connection.execute(CHANGE_LOCK_TIMEOUT)
            await work(connection)

        for left in reversed(range(CHANGE_ATTEMPTS)):
            try:
                await self._head.change(attempt, schema=schema)
                return
            except StoreError as error:
                if not left or self._head.held_exclusively or not (error.__cause__ and is_lost(error.__cause__)):
                    raise
            await asyncio.sleep(CHANGE_RETRY_S)

    async def _sweep(self, table: SqlTable, index: SqlIndex) -> None:
        """Empty the column of a dropped index. While a snapshot still reads the table it is left to the next time."""
        after: str | None = ""

        async def step(connection: Connection) -> None:
            nonlocal after
            if after is None or index not in self._table(table.name).indexes:
                after = None  # another node has emptied it, and the column may have an index again
                return
            await connection.execute(CHANGE_LOCK_TIMEOUT)
            after = await postgres_tables.sweep(connection, table, index, after, SWEEP_ROWS)

        while after is not None:
            try:
                await self._head.change(step)
            except StoreError as error:
                if error.__cause__ is not None and is_lost(error.__cause__):
                    return
                raise

    async def _is_commit(self, ts: Ts) -> bool:
        async with self._connections.one() as connection:
            found: bool = await connection.fetchval(IS_COMMIT, ts)
        return found

    def _table(self, name: str) -> SqlTable:
        table = self._snapshots.tables[1].get(name)
        if table is None:
            raise StoreError(f"{self.path}: there is no table {name}")
        return table

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = detached(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _digest(tables: Sequence[Table]) -> str | None:
    """Names an app's schema: what is stored, and how it is indexed. None where there are no tables but the system's."""
    description = [
        [table.name, table.shape, sorted([index.name, *index.fields] for index in table.indexes)]
        for table in sorted(tables, key=lambda table: table.name)
        if not table.name.startswith("_")
    ]
    return hashlib.sha256(json.dumps(description).encode()).hexdigest() if description else None


async def _migrate(connection: Connection, server: Server) -> None:
    """Bring the database to the newest format, all steps or none; one node at a time.

    Raises:
        StoreTooNew: a later reactor wrote it.
    """
    scripts = [path.read_text(encoding="utf-8") for path in sorted(MIGRATIONS.glob("*.sql"))]
    async with connection.transaction():
        await connection.execute(f"SELECT pg_advisory_xact_lock({LOCK_CLASS}, {MIGRATING})")
        known = await connection.fetchval("SELECT to_regclass('_reactor_meta') IS NOT NULL")
        version: int = await connection.fetchval("SELECT format FROM _reactor_meta") if known else 0
        if version > len(scripts):
            raise StoreTooNew(
                f"{server.name}: written by a later version of reactor (format {version}, this one knows up to {len(scripts)}). "
                "Upgrade reactor"
            )
        for script in scripts[version:]:
            await connection.execute(script)
        if not known:
            await connection.execute(
                "INSERT INTO _reactor_meta (one, format, instance_name, secret) VALUES (1, $1, $2, $3)",
                len(scripts), f"reactor-{secrets.token_hex(4)}", secrets.token_bytes(32),
            )  # fmt: skip
            await connection.execute("INSERT INTO _reactor_head VALUES (1, 0, 0, '')")
        elif version < len(scripts):
            await connection.execute("UPDATE _reactor_meta SET format = $1", len(scripts))
