"""What every test shares."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from reactor.stores.postgres import PostgresStore
from reactor.testing import TestBackend
from tests.support.postgres import new_database, server_url

settings.register_profile("default", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile("long" if os.environ.get("REACTOR_TEST_LONG") else "default")


@pytest.fixture
def anyio_backend() -> str:
    """Reactor is for asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A Postgres server for the databases of tests."""
    with server_url() as url:
        yield url


@pytest.fixture(scope="session", autouse=True)
def chosen_store(request: pytest.FixtureRequest) -> Iterator[None]:
    """With ``REACTOR_TEST_STORE=postgres`` what tests start, in this process or in others, has a Postgres database each."""
    if os.environ.get("REACTOR_TEST_STORE") != "postgres":
        yield
        return
    url: str = request.getfixturevalue("postgres_url")
    os.environ["REACTOR_TEST_POSTGRES_URL"] = url  # for servers in processes

    async def open_store(self: TestBackend) -> PostgresStore:
        store = await PostgresStore.open(new_database(url))
        store.path = tempfile.mkdtemp()  # where its files go
        return store

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestBackend, "_open_store", open_store)
        yield
