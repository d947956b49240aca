"""Where what a test starts keeps its data: in SQLite files, or in databases on a Postgres server.

The fixture ``databases`` in ``tests/conftest.py`` decides which, and runs the tests of most folders over both.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import asyncpg

from reactor.engine.engine import Engine
from reactor.engine.store import Store
from reactor.limits import DEFAULT_LIMITS
from reactor.schema.catalog import Catalog
from reactor.stores.postgres import PostgresStore
from reactor.stores.sqlite import SqliteStore
from reactor.testing import VirtualRuntime
from tests.support.postgres import clear_database, drop_database, new_database

__all__ = ["Databases", "PostgresDatabases", "SqliteDatabases"]


class Databases(Protocol):
    """Makes databases, each of which is empty."""

    def new(self, folder: Path) -> str:
        """The address of one, as ``--db`` takes it. A file would be in ``folder``."""
        ...

    def give_back(self, address: str) -> None:
        """What was made at ``address`` is of no more use to who had it."""
        ...

    async def open(self, address: str) -> Store:
        """The store at ``address``."""
        ...

    async def open_with(self, catalog: Catalog) -> Store:
        """A store that may have the tables of the catalog already."""
        ...


class SqliteDatabases:
    def new(self, folder: Path) -> str:
        return str(folder / "test.db")

    def give_back(self, address: str) -> None:
        pass  # it goes with its folder

    async def open(self, address: str) -> SqliteStore:
        return SqliteStore.open(address)

    async def open_with(self, catalog: Catalog) -> SqliteStore:
        return SqliteStore.temporary()


class PostgresDatabases:
    """Databases on the server at ``url``. They go with it.

    To make one takes some 50 ms of processor time, and the tables of a schema several times that. So those that have the tables of
    a catalog are emptied when their store is closed, and used again.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: list[str] = []
        self._empty: list[str] = []
        self._free: dict[object, list[tuple[str, int]]] = defaultdict(list)  # by what the tables are

    def new(self, folder: Path) -> str:
        self._made.append(self._empty.pop() if self._empty else new_database(self._url))
        return self._made[-1]

    def give_back(self, address: str) -> None:
        self._made.remove(address)
        clear_database(address)
        self._empty.append(address)

    def drop(self) -> None:
        """Drop what ``new`` made, whoever still uses it: each takes 8 MB of the disk."""
        while self._made:
            drop_database(self._made.pop())

    async def open(self, address: str) -> PostgresStore:
        return await PostgresStore.open(address)

    async def open_with(self, catalog: Catalog) -> PostgresStore:
        tables = tuple((table.name, table.shape, tuple((i.name, i.fields) for i in table.indexes)) for table in catalog.tables.values())
        free = self._free[tables]
        while free:
            address, version = free.pop()
            if await _emptied(address) == version:
                break
            # A test has changed its tables: it is of no more use.
        else:
            address, version = await _prepared(new_database(self._url), catalog)
        return await _LentStore.lend(address, lambda: free.append((address, version)))


class _LentStore(PostgresStore):
    """One whose database is used again, and whose files go in a folder of their own."""

    path: Path  # type: ignore[assignment]
    _on_close: list[Callable[[], None]]

    @classmethod
    async def lend(cls, address: str, give_back: Callable[[], None]) -> _LentStore:
        store = await cls.open(address)
        assert isinstance(store, _LentStore)
        folder = tempfile.TemporaryDirectory(prefix="reactor-")
        store.path = Path(folder.name) / "reactor.db"
        store._on_close = [give_back, folder.cleanup]
        return store

    async def close(self) -> None:
        await super().close()
        while self._on_close:
            self._on_close.pop()()


#: Rows go, tables stay. A table in which nothing was written costs next to nothing.
EMPTY = """
DO $$
DECLARE name text; used boolean;
BEGIN
    PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
    FOR name IN SELECT sql_name FROM _reactor_tables UNION ALL VALUES ('_reactor_log'), ('_reactor_requests'), ('_reactor_nodes') LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', name) INTO used;
        IF used THEN EXECUTE format('TRUNCATE %I', name); END IF;
    END LOOP;
    UPDATE _reactor_head SET head_ts = 0;
    UPDATE _reactor_meta SET trimmed_ts = 0;
END $$
"""


async def _prepared(address: str, catalog: Catalog) -> tuple[str, int]:
    """The database with the tables of the catalog, and their version."""
    store = await PostgresStore.open(address)
    engine = Engine(store, catalog, VirtualRuntime(0), DEFAULT_LIMITS)
    await engine.start()
    await engine.push(catalog)
    await engine.stop()
    await store.close()
    return address, await _emptied(address)


async def _emptied(address: str) -> int:
    """The version of its tables, once the database is empty."""
    connection = await asyncpg.connect(address)
    try:
        await connection.execute(EMPTY)
        return int(await connection.fetchval("SELECT tables_version FROM _reactor_head"))
    finally:
        await connection.close()
