"""The stores that the contract suite runs over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reactor.engine.store import Store
from tests.stores.library import Book, Library, Reader, catalog_of, push
from tests.support.databases import Databases


@dataclass(frozen=True)
class Place:
    """Where a database is. Opened again after a close, it is the same one."""

    databases: Databases
    address: str

    async def open(self) -> Store:
        return await self.databases.open(self.address)


@pytest.fixture
def place(databases: Databases, tmp_path: Path) -> Iterator[Place]:
    """An empty place."""
    address = databases.new(tmp_path)
    yield Place(databases, address)
    databases.give_back(address)


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
