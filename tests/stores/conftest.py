"""The stores that the contract suite runs over. Another store joins by adding its place to ``PLACES``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import pytest

from reactor.engine.store import Store
from reactor.stores.sqlite import SqliteStore
from tests.stores.library import Book, Library, Reader, catalog_of, push


class Place(Protocol):
    """Where a database is. Opened again after a close, it is the same one."""

    async def open(self) -> Store: ...


class SqlitePlace:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "reactor.db"

    async def open(self) -> Store:
        return SqliteStore.open(self.path)


PLACES: dict[str, Callable[[Path], Place]] = {"sqlite": SqlitePlace}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place."""
    return PLACES[request.param](tmp_path)


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
