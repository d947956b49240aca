"""A new schema: brought in beside live writes, all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeAlias

import orjson
import pytest
from annotated_types import Le

from reactor.engine import backfill
from reactor.engine.engine import Engine
from reactor.engine.store import LogEntry, Store, Ts
from reactor.engine.transaction import Transaction
from reactor.errors import SchemaError, StoreFull
from reactor.schema import Document, Index
from reactor.schema.catalog import Catalog, Table
from reactor.values.interval import FULL
from tests.engine.support import GatedStore, Result, Watch, item, mutation, opened, put, running
from tests.support.databases import Databases

pytestmark = pytest.mark.anyio


class Item(Document, table="items"):
    list: str
    rank: float

    by_list = Index("list")


class Indexed(Document, table="items"):
    list: str
    rank: float

    by_list = Index("list", "rank")  # other fields than before
    by_rank = Index("rank")


class Bounded(Document, table="items"):
    list: str
    rank: Annotated[float, Le(100)]

    by_rank = Index("rank")


class Strict(Document, table="items"):
    """The same indexes as Item: documents are only checked."""

    list: str
    rank: Annotated[float, Le(100)]

    by_list = Index("list")


def schema(document: type[Document]) -> Catalog:
    return Catalog.of({document.__name__: document})


Hook = Callable[[], Awaitable[Any]]
Shop: TypeAlias = "tuple[Engine, HookedStore]"


class HookedStore(GatedStore):
    """Lets a test do something in the middle of a push, once for each hook, and gives the log two entries at a time."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.hooks: dict[str, Hook] = {}

    async def _come_to(self, place: str) -> None:
        hook = self.hooks.pop(place, None)
        if hook is not None:
            await hook()

    async def build_index(self, table: str, name: str) -> None:
        await self._come_to("build_index")
        await self._inner.build_index(table, name)

    async def log_after(self, ts: Ts, *, until: Ts | None = None, limit: int = 1000) -> list[LogEntry]:
        await self._come_to("log_after")
        found: list[LogEntry] = await self._inner.log_after(ts, until=until, limit=min(limit, 2))
        return found

    async def finish_schema(self, tables: Sequence[Table]) -> None:
        await self._come_to("finish_schema")
        await self._inner.finish_schema(tables)


@pytest.fixture
async def shop(anyio_backend: str, databases: Databases) -> AsyncIterator[tuple[Engine, HookedStore]]:
    """An engine with the schema of ``Item``, and a few documents."""
    async with opened(databases, schema(Item)) as opened_store:
        store = HookedStore(opened_store._inner)
        async with running(store, schema(Item)) as engine:
            for number in range(5):
                await write(engine, number, float(number))
            yield engine, store
            assert not store.hooks, "a push never came to where the test waits for it"


def change_meanwhile(engine: Engine, store: HookedStore) -> None:
    """Have a push something to catch up with: only then does it come to ``log_after``."""
    store.hooks.setdefault("build_index", lambda: write(engine, 4, 4.0, "b"))


async def write(engine: Engine, number: int, rank: float | None, list: str = "a") -> None:
    """Put the item under the schema in force, or delete it."""

    async def body(tx: Transaction) -> None:
        table = engine.catalog.tables["items"]
        row = await tx.get(table, item(number))
        if rank is not None:
            await put(tx, number, list, rank, table)
        elif row is not None:
            tx.write(table, row.id, row, None, (), 0)

    await mutation(engine, body)


async def ranks(engine: Engine, index: str = "by_id", at: Ts | None = None) -> list[float]:
    async def read(tx: Transaction) -> list[float]:
        rows = await tx.scan(engine.catalog.tables["items"].index(index), FULL).rest()
        return [orjson.loads(row.json)["rank"] for row in rows]

    return (await engine.query(read, at=at))[0]


async def serves_as_before(engine: Engine, old: Catalog) -> None:
    """The schema in force is ``old``, queries find by its indexes, and mutations write."""
    assert engine.catalog is old
    before = await ranks(engine, "by_list")
    assert sorted(before) == sorted(await ranks(engine))
    await write(engine, 50, 50.0)
    assert sorted(await ranks(engine, "by_list")) == sorted([*before, 50.0])
    await write(engine, 50, None)


async def test_a_new_index_has_every_document_while_writes_go_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "STEP", 1)
    engine, _ = shop
    for number in range(100):
        await write(engine, number, float(number))
    pushed = asyncio.ensure_future(engine.push(schema(Indexed)))
    written = 0
    while not pushed.done():
        number = written * 37 % 130
        await write(engine, number, None if written % 5 == 0 else 1000.0 - written, "ab"[written % 2])
        written += 1
    await pushed
    assert written > 20
    found = await ranks(engine, "by_rank")
    assert found == sorted(await ranks(engine))
    assert len(found) == len(await ranks(engine, "by_list"))


async def test_the_commits_of_a_long_walk_over_the_documents_are_not_kept_in_memory(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backfill, "STEP", 1)
    engine, store = shop
    fill_index = store._inner.fill_index
    kept: list[int] = []

    async def filling(table: str, name: str, rows: Any) -> None:
        if len(kept) < 10:  # two indexes of five documents
            await write(engine, 4, float(len(kept)))
            kept.append(len(engine._log))
        await fill_index(table, name, rows)

    monkeypatch.setattr(store, "fill_index", filling, raising=False)
    await engine.push(schema(Indexed))
    assert len(kept) == 10 and max(kept) <= 2
    assert len(await ranks(engine, "by_rank")) == 5


@pytest.mark.parametrize("place", ["build_index", "log_after", "finish_schema"])
async def test_what_is_written_at_any_step_of_a_push_is_in_the_new_index(shop: Shop, place: str) -> None:
    engine, store = shop
    old = engine.catalog
    sent: list[asyncio.Task[None]] = []

    async def change() -> None:
        for number, rank in ((1, 70.0), (2, None), (7, 7.0)):
            sent.append(asyncio.ensure_future(write(engine, number, rank)))
        if place != "finish_schema":  # there no mutation begins before the push is over
            await asyncio.gather(*sent)

    store.hooks[place] = change
    change_meanwhile(engine, store)
    await engine.push(schema(Indexed))
    await asyncio.gather(*sent)
    assert engine.catalog is not old
    assert await ranks(engine, "by_rank") == [0.0, 3.0, 4.0, 7.0, 70.0]


@pytest.mark.parametrize("document", [Bounded, Strict])
async def test_a_document_that_does_not_fit_is_named_and_the_old_schema_serves_on(shop: Shop, document: type[Document]) -> None:
    engine, _ = shop
    old, switched = engine.catalog, False

    def switch() -> None:
        nonlocal switched
        switched = True

    await write(engine, 3, 101.0)
    for _ in range(2):
        with pytest.raises(SchemaError, match=item(3)):
            await engine.push(schema(document), switch)
        assert not switched
        await serves_as_before(engine, old)
    await write(engine, 3, 100.0)
    await engine.push(schema(document), switch)
    assert switched
    assert sorted(await ranks(engine)) == [0.0, 1.0, 2.0, 4.0, 100.0]


@pytest.mark.parametrize("place", ["build_index", "log_after"])
async def test_a_document_that_does_not_fit_is_found_also_when_it_comes_during_the_push(shop: Shop, place: str) -> None:
    engine, store = shop
    old = engine.catalog
    store.hooks[place] = lambda: write(engine, 9, 101.0)
    change_meanwhile(engine, store)
    with pytest.raises(SchemaError, match=item(9)):
        await engine.push(schema(Bounded))
    await serves_as_before(engine, old)


@pytest.mark.parametrize("place", ["build_index", "log_after", "finish_schema"])
async def test_a_push_that_the_store_fails_leaves_the_old_schema_and_may_be_tried_again(shop: Shop, place: str) -> None:
    engine, store = shop
    old = engine.catalog

    async def fail() -> None:
        raise StoreFull("the disk is full")

    store.hooks[place] = fail
    change_meanwhile(engine, store)
    with pytest.raises(StoreFull):
        await engine.push(schema(Indexed))
    await serves_as_before(engine, old)
    await engine.push(schema(Indexed))
    assert await ranks(engine, "by_rank") == sorted(await ranks(engine))


async def test_a_push_that_is_cancelled_leaves_the_old_schema_and_may_be_tried_again(shop: Shop) -> None:
    engine, store = shop
    old = engine.catalog
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    store.hooks["finish_schema"] = hang
    pushed = asyncio.ensure_future(engine.push(schema(Indexed)))
    await reached.wait()
    pushed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pushed
    await serves_as_before(engine, old)
    await engine.push(schema(Indexed))
    assert await ranks(engine, "by_rank") == sorted(await ranks(engine))


async def test_a_mutation_that_runs_over_a_push_runs_again_under_the_new_schema(shop: Shop) -> None:
    engine, _ = shop
    go = asyncio.Event()
    under: list[Catalog] = []

    async def body(tx: Transaction) -> None:
        under.append(engine.catalog)
        await go.wait()
        await put(tx, 8, rank=8.0, table=under[-1].tables["items"])

    sent = mutation(engine, body)
    await asyncio.sleep(0)
    old = engine.catalog
    await engine.push(schema(Indexed))
    go.set()
    await sent
    assert under == [old, engine.catalog]
    assert (await ranks(engine, "by_rank"))[-1] == 8.0


async def test_a_mutation_that_reads_an_index_for_the_first_time_after_a_push_has_changed_it_runs_again(shop: Shop) -> None:
    engine, _ = shop
    go = asyncio.Event()
    found: list[int] = []

    async def body(tx: Transaction) -> None:
        table = engine.catalog.tables["items"]
        await go.wait()
        found.append(len(await tx.scan(table.index("by_list"), FULL).rest()))

    sent = mutation(engine, body)
    await asyncio.sleep(0)
    await engine.push(schema(Indexed))
    go.set()
    await sent
    assert found[-1] == 5


async def test_code_is_switched_in_the_turn_in_which_the_schema_comes_into_force(shop: Shop) -> None:
    engine, store = shop
    old, new = engine.catalog, schema(Indexed)
    at_the_end: list[Catalog] = []

    async def look() -> None:
        at_the_end.append(engine.catalog)

    store.hooks["finish_schema"] = look
    await engine.push(new, lambda: at_the_end.append(engine.catalog))
    assert at_the_end == [old, new]


async def test_live_queries_run_again_with_the_new_code(shop: Shop) -> None:
    engine, _ = shop

    async def run(tx: Transaction, journal: str | None) -> Result:
        return Result((engine.catalog.tables["items"].document.__name__,))

    watch = Watch(engine, run)
    assert (await watch.now()).value == ("Item",)
    await engine.push(schema(Indexed))
    assert watch.told == 1
    assert (await watch.now()).value == ("Indexed",)


async def test_the_past_is_read_by_an_index_that_was_not_there_then(shop: Shop) -> None:
    engine, _ = shop
    then = engine.head_ts
    await write(engine, 1, 99.0)
    await engine.push(schema(Indexed))
    await write(engine, 2, None)
    assert await ranks(engine, "by_rank", at=then) == [0.0, 1.0, 2.0, 3.0, 4.0]


async def test_pushes_at_the_same_time_follow_each_other(shop: Shop) -> None:
    engine, _ = shop
    schemas = [schema(document) for document in (Indexed, Bounded, Strict)]
    order: list[Catalog] = []
    await asyncio.gather(*(engine.push(catalog, lambda catalog=catalog: order.append(catalog)) for catalog in schemas))  # type: ignore[misc]
    assert order == schemas
    await serves_as_before(engine, schemas[-1])
