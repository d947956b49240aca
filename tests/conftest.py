"""What every test shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from reactor.functions.registry import imported_app
from reactor.stores.postgres import PostgresStore
from reactor.testing import TestBackend
from tests.support import server
from tests.support.databases import Databases, PostgresDatabases, SqliteDatabases
from tests.support.examples import LONG
from tests.support.postgres import server_url
from tests.support.server import Server

settings.register_profile("default", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile("long" if LONG else "default")

#: The folders whose tests run over SQLite and over Postgres. Those that say nothing about one of the two are marked with
#: ``sqlite_only`` or ``postgres_only``, and why.
BOTH_STORES = ("client", "clients", "contrib", "engine", "functions", "server", "services", "stores", "webhooks")


#: The folders whose tests start processes and wait for them. They come first: each worker takes the next file when it is
#: through with one, and the short ones at the end keep all busy.
LONG_FIRST = ("cluster", "acceptance", "benchmarks", "cli", "clients", "docs", "types", "client", "simulation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG_FIRST.index(item.path.parent.name) if item.path.parent.name in LONG_FIRST else len(LONG_FIRST))


@pytest.fixture
def anyio_backend() -> str:
    """Reactor is for asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A Postgres server for the databases of tests."""
    with server_url() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_databases(postgres_url: str) -> PostgresDatabases:
    return PostgresDatabases(postgres_url)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.path.parent.name not in BOTH_STORES:
        return
    stores = ["sqlite", "postgres"]
    for store in list(stores):
        marker = metafunc.definition.get_closest_marker(f"{store}_only")
        if marker is not None:
            assert marker.args, f"{metafunc.definition.nodeid}: {store}_only wants the reason"
            stores = [store]
    metafunc.parametrize("databases", stores, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def databases(request: pytest.FixtureRequest) -> Iterator[Databases]:
    """Where what tests start, in this process or in others, keeps its data: in SQLite files, or on Postgres.

    A fixture of a module or a session that starts something has to request it, or would keep it over the change of stores.
    """
    with pytest.MonkeyPatch.context() as patch:
        if getattr(request, "param", "sqlite") == "sqlite":
            yield SqliteDatabases()
        else:
            postgres: PostgresDatabases = request.getfixturevalue("postgres_databases")

            async def open_store(backend: TestBackend) -> PostgresStore:
                return await postgres.open_with(imported_app(backend._path).catalog)

            patch.setattr(TestBackend, "_open_store", open_store)
            patch.setattr(server, "new_database", postgres.new)
            yield postgres
            postgres.drop()
    assert not Server.of_store, "a server outlives its store: the fixture that starts it has to request databases"
