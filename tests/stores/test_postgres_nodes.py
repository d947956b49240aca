"""Two stores on one Postgres database, where one has not heard of what the other did."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from reactor.engine.store import StoredIndex, Ts
from reactor.errors import StoreError
from reactor.schema import Document, Index
from reactor.stores.postgres import PostgresStore
from reactor.stores.postgres_connections import Connection
from reactor.stores.postgres_follower import Follower
from tests.stores.library import Book, Library, catalog_of, push, titles
from tests.support.postgres import database

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_only("what is Postgres's own")]


class PlainBook(Document, table="books"):
    title: str
    shelf: str = ""
    year: float = 0.0


class TitledBook(PlainBook, table="books"):
    by_title = Index("title")


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    with database(postgres_url) as url:
        yield url


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(url)
    yield store
    await store.close()


async def test_the_column_of_a_dropped_index_that_is_used_again_is_left_alone(store: PostgresStore, url: str) -> None:
    library = Library(store, await push(store, catalog_of(Book)))
    write = library.add("Emma")
    ts = await library.put(write)
    await store.finish_schema([catalog_of(PlainBook).tables["books"]])
    late = await PostgresStore.open(url)
    try:
        await store.trim(log_before=Ts(0), requests_before=Ts(0))
        table = catalog_of(TitledBook).tables["books"]
        await store.create_index("books", "by_title", ("title",))
        await store.fill_index("books", "by_title", [(write.id, ts, table.keys_of_json(library.now[write.id])[1])])
        await store.finish_schema([table])
        await late.trim(log_before=Ts(0), requests_before=Ts(0))
        for each in (store, late):
            assert StoredIndex("by_title", ("title",), True) in each.tables()["books"].indexes
            snapshot = each.snapshot()
            assert await titles(snapshot, table, "by_title", "Emma") == ["Emma"]
            snapshot.release()
    finally:
        await late.close()


async def test_what_others_wrote_is_learned_unless_it_is_too_much(store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.stores.postgres_log.NEWS_ROWS", 5)
    library = Library(store, await push(store, catalog_of(Book)))
    late = await PostgresStore.open(url)
    try:
        before = late.snapshot()
        for number in range(5):
            await library.put(library.add(str(number)))
        assert [entry.ts for entry in (await late.news(before.ts)).entries] == [10, 20, 30, 40, 50]
        await library.put(library.add("5"))
        with pytest.raises(StoreError, match="more than 5 documents were written") as news:
            await late.news(before.ts)
        with pytest.raises(StoreError, match="more than 5 documents were written") as held:
            async with late.head():
                pass
        assert news.value.code == held.value.code == "LogTrimmed"
        before.release()
        async with late.skip() as snapshot:
            assert snapshot.ts == 60
            assert await titles(snapshot, library.books) == [str(number) for number in range(6)]
        async with late.head() as head:
            assert head.ts == 60 and await head.entries_after(snapshot.ts) == []
    finally:
        await late.close()


async def test_a_bug_ends_neither_hearing_of_others_nor_reading(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    library = Library(store, await push(store, catalog_of(Book)))
    look, failures = Follower._look, 1

    async def failing(follower: Follower, connection: Connection) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise ZeroDivisionError("a bug of ours")
        await look(follower, connection)

    async def broken(connection: Connection) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(Follower, "_look", failing)
    with pytest.raises(StoreError, match="a bug of ours"):
        await store.newest()
    assert "a bug of ours" in caplog.text
    assert await store.newest() == 0

    snapshot = store.snapshot()
    await titles(snapshot, library.books)
    reader = snapshot._reader
    assert reader is not None
    with pytest.raises(StoreError, match="a bug of ours"):
        await reader.run(broken)
    assert await titles(snapshot, library.books) == []
    snapshot.release()
