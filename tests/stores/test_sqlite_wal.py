"""The write-ahead log stays bounded although the newest commit is always pinned."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reactor.stores.sqlite import SqliteStore
from tests.stores.library import Book, Library, catalog_of, push, titles

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("what is SQLite's own")]

PAGES = 200
RETRY = 20
PAGE_BYTES = 4096 + 24


@pytest.fixture
async def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Library[SqliteStore]]:
    monkeypatch.setattr("reactor.stores.sqlite_checkpoints.CHECKPOINT_PAGES", PAGES)
    monkeypatch.setattr("reactor.stores.sqlite_checkpoints.RETRY_PAGES", RETRY)
    store = SqliteStore.open(tmp_path / "reactor.db")
    yield Library(store, await push(store, catalog_of(Book)))
    await store.close()


def wal_pages(library: Library[SqliteStore]) -> float:
    return Path(f"{library.store.path}-wal").stat().st_size / PAGE_BYTES


async def load(library: Library[SqliteStore], groups: int) -> None:
    for _ in range(groups):
        await library.put(*(library.add(f"{random.random()} " * 20) for _ in range(5)))


async def begun_anew(library: Library[SqliteStore]) -> None:
    """Commit until the log has begun anew: the file keeps its size, but holds little. How soon is up to the checkpoints' thread."""
    for _ in range(500):
        await load(library, 1)
        if library.store._writer.wal_pages < PAGES:
            return
    raise AssertionError(library.store._writer.wal_pages)


async def test_nobody_reading(library: Library[SqliteStore]) -> None:
    await load(library, 300)
    assert PAGES < wal_pages(library) < 3 * PAGES


async def test_snapshots_of_which_there_always_is_one(library: Library[SqliteStore]) -> None:
    """Readers hold theirs over some turns of the loop and overlap each other, so that at no moment there is none."""
    rng = random.Random(1)
    reading = True

    async def read() -> None:
        while reading:
            snapshot, count = library.store.snapshot(), len(library.now)
            for _ in range(rng.randrange(1, 30)):
                await asyncio.sleep(0)
            assert count - 5 <= len(await titles(snapshot, library.books, "by_title")) <= count
            snapshot.release()

    readers = [asyncio.create_task(read()) for _ in range(3)]
    await load(library, 300)
    reading = False
    await asyncio.gather(*readers)
    assert wal_pages(library) < 6 * PAGES


async def test_a_snapshot_held_long_only_delays_it(library: Library[SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.stores.sqlite_checkpoints.PATIENCE_S", 0.01)
    await library.put(library.add("Emma"))
    snapshot = library.store.snapshot()
    await load(library, 150)
    grown = wal_pages(library)
    assert grown > 3 * PAGES
    assert await titles(snapshot, library.books) == ["Emma"]
    snapshot.release()
    await begun_anew(library)
    await load(library, 100)
    assert wal_pages(library) < grown + 5 * PAGES


async def test_a_snapshot_that_reads_the_file_itself_only_delays_it(library: Library[SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.stores.sqlite_checkpoints.PATIENCE_S", 0.01)
    await load(library, 100)
    held = []
    for _ in range(100):
        await load(library, 1)
        held.append(library.store.snapshot())
    for snapshot in held:
        assert len(await titles(snapshot, library.books)) > 500
        snapshot.release()
    await begun_anew(library)


async def test_reads_are_right_while_it_begins_anew(library: Library[SqliteStore]) -> None:
    for count in range(1, 120):
        await load(library, 1)
        snapshot = library.store.snapshot()
        assert len(await titles(snapshot, library.books, "by_title")) == 5 * count
        snapshot.release()


async def test_is_gone_after_closing(library: Library[SqliteStore]) -> None:
    await load(library, 50)
    await library.store.close()
    assert sorted(path.name for path in library.store.path.parent.iterdir()) == ["reactor.db", "reactor.db-lock"]
