"""A full disk, a failing disk: what was acknowledged stays, what failed leaves no trace, and it goes on by itself."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest

from reactor.engine.store import OVER, RequestKey, Ts
from reactor.errors import StoreCorrupt, StoreError, StoreFull, StoreReadOnly, StoreUnavailable
from reactor.stores.sqlite import SqliteStore
from tests.stores.faulty_disk import FaultyDisk, faulty_disk
from tests.stores.library import Book, Library, catalog_of, push, titles

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("what is SQLite's own")]


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    with faulty_disk() as disk:
        yield disk


@pytest.fixture
def small_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.stores.sqlite_checkpoints.CHECKPOINT_PAGES", 20)
    monkeypatch.setattr("reactor.stores.sqlite_checkpoints.RETRY_PAGES", 5)


@pytest.fixture
async def library(disk: FaultyDisk, tmp_path: Path) -> AsyncIterator[Library[SqliteStore]]:
    store = SqliteStore.open(tmp_path / "reactor.db")
    yield Library(store, await push(store, catalog_of(Book)))
    await store.close()


async def crashed(library: Library[SqliteStore], folder: Path) -> tuple[Ts, list[str]]:
    """What is found if the process dies now: its head, and the titles."""
    copy = folder / "crashed.db"
    for ending in ("", "-wal"):
        Path(f"{copy}{ending}").write_bytes(Path(f"{library.store.path}{ending}").read_bytes())
    store = SqliteStore.open(copy)
    snapshot = store.snapshot()
    found = snapshot.ts, await titles(snapshot, library.books)
    snapshot.release()
    await store.close()
    return found


async def shown(library: Library[SqliteStore]) -> list[str]:
    snapshot = library.store.snapshot()
    try:
        return await titles(snapshot, library.books, "by_title")
    finally:
        snapshot.release()


async def test_a_full_disk_fails_the_group_and_nothing_else(library: Library[SqliteStore], disk: FaultyDisk) -> None:
    await library.put(library.add("Emma"))
    disk.full = "-wal"
    for _ in range(3):
        with pytest.raises(StoreFull, match=r"no space left on the disk\. Nothing was written; free some space"):
            await library.write(library.commit(library.add("lost")), library.commit(request=RequestKey("s", 1)))
    assert await shown(library) == ["Emma"]
    snapshot = library.store.snapshot()
    assert snapshot.ts == 10
    assert await snapshot.find_request(RequestKey("s", 1)) is None
    snapshot.release()
    disk.full = None
    await library.put(library.add("Persuasion"))
    assert await shown(library) == ["Emma", "Persuasion"]
    assert len(await library.store.log_after(Ts(0))) == 2


@pytest.mark.parametrize("room", [0, 24, 5_000, 40_000, 75_000])
async def test_a_disk_that_fills_in_the_middle_of_a_commit_leaves_nothing_of_it(
    library: Library[SqliteStore], disk: FaultyDisk, tmp_path: Path, room: int
) -> None:
    await library.put(library.add("Emma"))
    size = (tmp_path / "reactor.db-wal").stat().st_size
    disk.room = room
    with pytest.raises(StoreFull):
        await library.put(*(library.add(f"lost {number} " * 100) for number in range(20)))
    assert disk.room < 4096
    disk.room = None
    assert (tmp_path / "reactor.db-wal").stat().st_size - size <= room
    assert await crashed(library, tmp_path) == (10, ["Emma"])
    await library.put(library.add("Persuasion"))
    assert await shown(library) == ["Emma", "Persuasion"]
    assert (await crashed(library, tmp_path))[1] == ["Emma", "Persuasion"]


async def test_a_full_disk_fails_a_change_of_the_schema_and_leaves_it_as_it_was(library: Library[SqliteStore], disk: FaultyDisk) -> None:
    store = library.store
    before = dict(store.tables())
    disk.full = "-wal"
    with pytest.raises(StoreFull):
        await store.create_table("more")
    with pytest.raises(StoreFull):
        await store.create_index("books", "by_year", ("year",))
    assert store.tables() == before
    disk.full = None
    assert (await store.create_table("more")).number == 10_002


async def test_a_full_disk_keeps_the_log_from_reaching_the_file_until_there_is_space(
    small_log: None, library: Library[SqliteStore], disk: FaultyDisk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.full = "reactor.db"
    number = 0
    async with asyncio.timeout(20):
        while "cannot be brought into the file" not in caplog.text:
            await library.put(library.add(f"{number:05}"))
            number += 1
    disk.full = None
    for after in range(number, number + 60):
        await library.put(library.add(f"{after:05}"))
    assert await shown(library) == [f"{number:05}" for number in range(number + 60)]


async def test_a_commit_that_the_disk_failed_is_not_found_after_a_crash(
    library: Library[SqliteStore], disk: FaultyDisk, tmp_path: Path
) -> None:
    await library.put(library.add("Emma"))
    disk.failing = "-wal"
    with pytest.raises(StoreError, match="the disk failed"):
        await library.put(library.add("lost"))
    assert await shown(library) == ["Emma"]
    with pytest.raises(StoreError, match="the disk failed"):
        await library.put(library.add("lost too"))
    disk.failing = None
    # Written over what may have reached the disk:
    await library.put(library.add("Persuasion"))
    assert (await crashed(library, tmp_path))[1] == ["Emma", "Persuasion"]


async def test_a_disk_that_fails_once_leaves_no_failed_commit_to_be_found(
    library: Library[SqliteStore], disk: FaultyDisk, tmp_path: Path
) -> None:
    await library.put(library.add("Emma"))

    def fail_once(name: str) -> None:
        if name.endswith("-wal"):
            disk.sync = FaultyDisk.sync.__get__(disk)  # type: ignore[method-assign]
            raise apsw.IOError("broken")

    disk.sync = fail_once  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="the disk failed"):
        await library.put(library.add("lost"))
    # The process dies before another commit:
    assert await crashed(library, tmp_path) == (10, ["Emma"])


async def test_a_commit_that_cannot_be_shown_stops_the_store(library: Library[SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    await library.put(library.add("Emma"))

    def broken(*_: object) -> None:
        raise apsw.IOError("broken")

    monkeypatch.setattr("reactor.stores.sqlite_snapshots.Reader.begin", broken)
    unseen = library.add("durable, and not to be seen")
    with pytest.raises(
        StoreUnavailable, match=r"the disk failed.*is durable, and cannot be read\. The node has to be started again"
    ) as told:
        await library.put(unseen)
    assert told.value.code in OVER
    monkeypatch.undo()
    snapshot = library.store.snapshot()
    assert await snapshot.get(library.books, unseen.id) is None
    snapshot.release()
    with pytest.raises(StoreError, match="the disk failed"):
        await library.put(library.add("would get its ts"))


async def test_too_many_open_files_fail_a_group_before_it_is_written(library: Library[SqliteStore], disk: FaultyDisk) -> None:
    store = library.store
    await library.put(library.add("Emma"))
    held = []
    disk.refusing = "reactor.db"
    with pytest.raises(StoreReadOnly):
        for number in range(10):
            held.append(store.snapshot())
            await library.put(library.add(f"book {number}"))
    newest = store.snapshot()
    assert newest.ts == held[-1].ts
    newest.release()
    for snapshot in held:
        snapshot.release()
    await library.put(library.add("Persuasion"))
    assert (await shown(library))[:2] == ["Emma", "Persuasion"]


def test_a_disk_that_cannot_be_written_says_so_at_opening(disk: FaultyDisk, tmp_path: Path) -> None:
    disk.full = ""
    with pytest.raises(StoreFull):
        SqliteStore.open(tmp_path / "reactor.db")
    disk.full = None
    disk.refusing = "-wal"
    with pytest.raises((StoreReadOnly, StoreCorrupt)) as caught:
        SqliteStore.open(tmp_path / "reactor.db")
    assert str(tmp_path / "reactor.db") in str(caught.value)


async def test_the_loop_waits_for_a_disk_that_answers_at_once_and_a_thread_for_another(
    library: Library[SqliteStore], disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def on_loop() -> bool:
        disk.waited.clear()
        await library.put(library.add("Emma"))
        return set(disk.waited) == {threading.get_ident()}

    monkeypatch.setattr("reactor.stores.sqlite_writer.ON_LOOP_S", 60.0)
    assert [await on_loop() for _ in range(3)] == [True, True, True]
    monkeypatch.setattr("reactor.stores.sqlite_writer.ON_LOOP_S", -1.0)
    monkeypatch.setattr("reactor.stores.sqlite_writer.BLOCKED", 1e-9)
    assert [await on_loop() for _ in range(3)] == [True, False, False]


async def test_a_disk_that_was_slow_is_tried_again_after_a_hundred_times_as_long(
    library: Library[SqliteStore], disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("reactor.stores.sqlite_writer.time", SimpleNamespace(monotonic=lambda: clock[0], perf_counter=time.perf_counter))
    sync = disk.sync

    def slow(name: str) -> None:
        clock[0] += 0.01 if name.endswith("-wal") else 0
        sync(name)

    monkeypatch.setattr(disk, "sync", slow)
    waited: list[bool] = []
    while clock[0] < 3:
        disk.waited.clear()
        await library.put(library.add("Emma"))
        clock[0] += 0.09
        waited.append(threading.get_ident() in disk.waited)
    assert waited == [number % 11 == 0 for number in range(len(waited))]
