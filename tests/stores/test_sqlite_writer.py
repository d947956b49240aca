"""Turns to write, and transactions in pieces, of the store on SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

import apsw
import pytest

from reactor.engine.store import RequestKey, Ts
from reactor.errors import StoreError, StoreLocked
from reactor.stores.sqlite import SqliteStore
from reactor.stores.sqlite_snapshots import SqliteSnapshot
from reactor.stores.turns import Turns
from reactor.values.interval import END
from tests.stores.library import Book, Library, catalog_of, push, title, titles

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("what is SQLite's own")]


class TestTurns:
    async def test_come_in_the_order_in_which_they_were_asked_for(self) -> None:
        turns = Turns()
        order: list[int] = []

        async def take(number: int) -> None:
            async with turns.next():
                order.append(number)
                await asyncio.sleep(0)
                order.append(number)

        await asyncio.gather(*map(take, range(4)))
        assert order == [0, 0, 1, 1, 2, 2, 3, 3]

    async def test_end_when_their_body_fails(self) -> None:
        turns = Turns()
        with contextlib.suppress(RuntimeError):
            async with turns.next():
                raise RuntimeError
        async with turns.next():
            pass

    async def test_are_not_given_up_by_a_cancelled_task(self) -> None:
        turns = Turns()
        order: list[str] = []
        finish = asyncio.get_running_loop().create_future()

        async def first() -> None:
            async with turns.next() as turn:
                order.append("first begins")
                await turn.wait(finish)
                order.append("first ends")

        async def second() -> None:
            async with turns.next():
                order.append("second")
            await asyncio.sleep(0)
            order.append("not reached")

        tasks = [asyncio.create_task(first()), asyncio.create_task(second())]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == ["first begins"]
        finish.set_result(None)
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert order == ["first begins", "first ends", "second"]
        assert tasks[1].cancelled()

    async def test_a_cancellation_by_a_timeout_ends_as_that_timeout(self) -> None:
        turns = Turns()
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                async with turns.next() as turn:
                    done = loop.create_future()
                    loop.call_later(0.01, done.set_result, None)
                    await turn.wait(done)
                await asyncio.sleep(1)


@pytest.fixture
async def library() -> AsyncIterator[Library[SqliteStore]]:
    store = SqliteStore.temporary()
    yield Library(store, await push(store, catalog_of(Book)))
    await store.close()


async def test_a_large_group_is_one_transaction_and_lets_the_loop_run(
    library: Library[SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reactor.stores.sqlite_writer.BREATH_S", 0.0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1
            snapshot = library.store.snapshot()
            assert snapshot.ts in (0, 10)
            snapshot.release()

    counting = asyncio.create_task(count())
    await library.put(*(library.add(str(number)) for number in range(3000)))
    assert turns > 20
    assert counting.cancel()


@pytest.mark.parametrize("in_threads", [False, True])
async def test_reads_never_see_what_is_being_written(
    library: Library[SqliteStore], monkeypatch: pytest.MonkeyPatch, in_threads: bool
) -> None:
    monkeypatch.setattr("reactor.stores.sqlite_writer.BREATH_S", 0.0)
    store = library.store
    first = library.add("Emma")
    await library.put(first)
    if in_threads:
        store._writer._in_threads_until = math.inf
    by_title = library.books.index("by_title")

    async def seen(snapshot: SqliteSnapshot) -> list[str | None]:
        row = await snapshot.get(library.books, first.id)
        rows = await snapshot.scan(by_title, b"", END, reverse=True, limit=1)
        return [row and title(row.json), title(rows[0].json)]

    before = store.snapshot()
    writing = asyncio.create_task(library.put(library.change(first.id, title="Zadig"), *(library.add(f"Candide {n}") for n in range(300))))
    during = 0
    while not writing.done():
        snapshot = store.snapshot()
        assert await seen(before) == ["Emma", "Emma"]
        assert await seen(snapshot) == (["Emma", "Emma"] if snapshot.ts == before.ts else ["Zadig", "Zadig"])
        during += not store._turns.free
        snapshot.release()
        await asyncio.sleep(0)
    await writing
    assert during >= 3, "some were read in the middle of it"
    after = store.snapshot()
    assert await seen(after) == ["Zadig", "Zadig"] and await seen(before) == ["Emma", "Emma"]
    before.release()
    after.release()
    for read in (before, after):
        with pytest.raises(StoreError, match="released"):
            await seen(read)


async def test_trimming_takes_bounded_steps_and_keeps_documents(library: Library[SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.stores.sqlite_log.TRIM_ROWS", 7)
    await library.write(*(library.commit(library.add(str(n)), library.add(str(n)), request=RequestKey("s", n)) for n in range(40)))
    await library.store.trim(log_before=Ts(301), requests_before=Ts(201))
    assert [entry.ts for entry in await library.store.log_after(Ts(300))] == list(range(310, 401, 10))
    snapshot = library.store.snapshot()
    assert [n for n in range(40) if await snapshot.find_request(RequestKey("s", n))] == list(range(20, 40))
    assert len(await titles(snapshot, library.books)) == 80
    snapshot.release()


async def test_commits_go_on_between_the_steps_of_trimming(library: Library[SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.stores.sqlite_log.TRIM_ROWS", 2)
    await library.write(*(library.commit(library.add(str(n))) for n in range(60)))
    trimming = asyncio.create_task(library.store.trim(log_before=Ts(600), requests_before=Ts(0)))
    written = 0
    while not trimming.done():
        await library.put(library.add("meanwhile"))
        written += 1
    await trimming
    assert written > 5


class TestAnotherProgramsTransaction:
    async def test_is_waited_for(self, library: Library[SqliteStore]) -> None:
        other = apsw.Connection(str(library.store.path))
        other.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(0.03, other.execute, "ROLLBACK")
        await library.put(library.add("Emma"))
        other.close()

    async def test_fails_the_group_when_it_does_not_end(self, library: Library[SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("reactor.stores.sqlite_writer.BUSY_TIMEOUT_S", 0.05)
        other = apsw.Connection(str(library.store.path))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLocked, match="another program holds a transaction"):
            await library.put(library.add("Emma"))
        other.execute("ROLLBACK")
        await library.put(library.add("Persuasion"))
        other.close()
