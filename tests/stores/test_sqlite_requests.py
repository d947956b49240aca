"""Requests of the store on SQLite, in its index and before they are put there."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from reactor.engine.store import RequestKey, RequestRecord, StoreSnapshot, Ts
from reactor.errors import StoreError
from reactor.stores.sqlite import SqliteStore
from reactor.stores.sqlite_file import DatabaseFile, load_migrations
from tests.stores.library import Library

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("what is SQLite's own")]

KEYS = [RequestKey(session, number) for number in range(4) for session in ("b", "a", "c")]


@pytest.fixture(autouse=True)
def indexed_after_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.stores.sqlite.INDEX_AFTER", 5)


async def answer(library: Library[SqliteStore], *keys: RequestKey) -> None:
    await library.write(*(library.commit(request=key, result=result_of(key)) for key in keys))


def result_of(key: RequestKey) -> bytes:
    return f'"{key.session}{key.request}"'.encode()


async def found(snapshot: StoreSnapshot) -> list[RequestKey]:
    """Those of ``KEYS`` that the snapshot has, each with the answer that it was given."""
    records = {key: await snapshot.find_request(key) for key in KEYS}
    for key, record in records.items():
        assert record is None or record.result == result_of(key)
    for session in "abc":
        numbers = [key.request for key, record in records.items() if record is not None and key.session == session]
        assert await snapshot.newest_request(session) == max(numbers, default=-1)
    return [key for key, record in records.items() if record is not None]


def unindexed(store: SqliteStore) -> int:
    connection = apsw.Connection(str(store.path), flags=apsw.SQLITE_OPEN_READONLY)
    count: int = connection.execute(
        "SELECT (SELECT count(*) FROM _reactor_requests) - (SELECT count(*) FROM _reactor_requests_by_session)"
    ).get
    connection.close()
    return count


async def test_are_put_into_the_index_when_there_are_enough_of_them(library: Library[SqliteStore]) -> None:
    waiting = []
    for at, key in enumerate(KEYS):
        await answer(library, key)
        snapshot = library.store.snapshot()
        assert await found(snapshot) == KEYS[: at + 1]
        snapshot.release()
        waiting.append(unindexed(library.store))
    assert waiting == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2]


async def test_stay_what_they_were_for_a_snapshot_while_they_are_put_into_the_index(library: Library[SqliteStore]) -> None:
    snapshots = [library.store.snapshot()]
    for key in KEYS:
        await answer(library, key)
        snapshots.append(library.store.snapshot())
    for at, snapshot in enumerate(snapshots):
        assert await found(snapshot) == KEYS[:at]
        snapshot.release()


@pytest.mark.parametrize("before", range(1, len(KEYS)))
async def test_cannot_be_written_twice_wherever_they_are(library: Library[SqliteStore], before: int) -> None:
    await answer(library, *KEYS[:before])
    for key in KEYS[:before]:
        with pytest.raises(StoreError, match="was answered before"):
            await library.write(library.commit(request=KEYS[-1]), library.commit(request=key))
    with pytest.raises(StoreError, match="was answered before"):
        await answer(library, KEYS[-1], KEYS[-1])
    await answer(library, *KEYS[before:])
    snapshot = library.store.snapshot()
    assert await found(snapshot) == KEYS
    snapshot.release()


@pytest.mark.parametrize("before", [3, 6])
async def test_are_found_after_a_restart(library: Library[SqliteStore], before: int) -> None:
    for key in KEYS[:before]:
        await answer(library, key)
    path = library.store.path
    # A copy of what is on the disk, as a crash leaves it: closing the store would be kinder.
    copy = path.with_name("copy.db")
    for suffix in ("", "-wal"):
        copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    store = SqliteStore.open(copy)
    snapshot = store.snapshot()
    assert await found(snapshot) == KEYS[:before]
    snapshot.release()
    again = Library(store, library.catalog, 1000)
    with pytest.raises(StoreError, match="was answered before"):
        await answer(again, KEYS[0])
    await answer(again, *KEYS[before:])
    snapshot = store.snapshot()
    assert await found(snapshot) == KEYS
    snapshot.release()
    await store.close()


@pytest.mark.parametrize("forgotten", range(len(KEYS) + 1))
async def test_are_forgotten_from_the_oldest_on_and_can_be_answered_again(
    library: Library[SqliteStore], forgotten: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.stores.sqlite_requests.TRIM_ROWS", 2)
    await answer(library, *KEYS[:7])
    await answer(library, *KEYS[7:])
    before = library.store.snapshot()
    await library.store.trim(log_before=Ts(0), requests_before=Ts(10 * (forgotten + 1)))
    snapshot = library.store.snapshot()
    assert await found(snapshot) == KEYS[forgotten:]
    assert await found(before) == KEYS
    snapshot.release()
    before.release()
    await answer(library, *KEYS[:forgotten])
    snapshot = library.store.snapshot()
    assert await found(snapshot) == KEYS
    snapshot.release()


async def test_of_a_database_of_the_first_format_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    file = DatabaseFile(path, "full", load_migrations()[:1])
    rows = [(*key, 10 * (at + 1), result_of(key).decode(), '["seen"]') for at, key in enumerate(KEYS)]
    file.writer.executemany("INSERT INTO _reactor_requests (session, request, ts, result, log_lines) VALUES (?, ?, ?, ?, ?)", rows)
    file.writer.execute("UPDATE _reactor_meta SET head_ts = 120")
    file.close()
    store = SqliteStore.open(path)
    assert unindexed(store) == 0
    snapshot = store.snapshot()
    assert await found(snapshot) == KEYS
    assert await snapshot.find_request(KEYS[2]) == RequestRecord(Ts(30), result_of(KEYS[2]), ("seen",))
    snapshot.release()
    await store.close()
