"""The stores that the contract suite runs over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from reactor.engine.store import Store
from reactor.stores.postgres import PostgresStore
from reactor.stores.sqlite import SqliteStore
from tests.stores.library import Book, Library, Reader, catalog_of, push
from tests.support.postgres import database


class Place(Protocol):
    """Where a database is. Opened again after a close, it is the same one."""

    async def open(self) -> Store: ...


class SqlitePlace:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "reactor.db"

    async def open(self) -> Store:
        return SqliteStore.open(self.path)


class PostgresPlace:
    def __init__(self, url: str) -> None:
        self.url = url

    async def open(self) -> Store:
        return await PostgresStore.open(self.url)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place."""
    if request.param == "sqlite":
        yield SqlitePlace(tmp_path)
    else:
        with database(request.getfixturevalue("postgres_url")) as url:
            yield PostgresPlace(url)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    """A store without tables."""
    store = await place.open()
    yield store
    await store.close()


@pytest.fixture
async def library(store: Store) -> Library:
    """The same store with the tables books and readers, empty."""
    return Library(store, await push(store, catalog_of(Book, Reader)))
