"""A small schema, and an engine over a store whose writes a test holds back, fails, or cuts off from their answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from reactor.engine.committer import Answer, Committed
from reactor.engine.engine import Engine
from reactor.engine.live_query import Subscription
from reactor.engine.snapshot import Pin
from reactor.engine.store import Commit, RequestKey, Store, Write
from reactor.engine.transaction import Transaction
from reactor.errors import StoreError
from reactor.limits import Limits
from reactor.schema import Document, Index
from reactor.schema.catalog import Catalog, Table
from reactor.testing import VirtualRuntime
from reactor.values.interval import FULL
from tests.simulation.ledger import document_id
from tests.simulation.model_store import Database, ModelHead, ModelStore


class Item(Document, table="items"):
    list: str
    rank: float

    by_list = Index("list", "rank")
    by_rank = Index("rank")


class Other(Document, table="others"):
    list: str
    rank: float

    by_list = Index("list", "rank")
    by_rank = Index("rank")


def catalog() -> Catalog:
    made = Catalog.of({"Item": Item, "Other": Other})
    made.bind({"items": 10001, "others": 10002})
    return made


CATALOG = catalog()
ITEMS, OTHERS = CATALOG.tables["items"], CATALOG.tables["others"]


def item(number: int, table: Table = ITEMS) -> str:
    """The id of this number's document; ids sort like their numbers."""
    return document_id(table, number)


def text(id: str, list: str, rank: float) -> str:
    return orjson.dumps({"_creationTime": 1.0, "_id": id, "list": list, "rank": rank}, option=orjson.OPT_SORT_KEYS).decode()


def change(table: Table, id: str, before: str | None, after: str | None) -> Write:
    return Write(table, id, before, after, *(() if json is None else table.keys_of_json(json) for json in (before, after)))


async def put(tx: Transaction, number: int, list: str = "a", rank: float = 0.0, table: Table = ITEMS) -> None:
    """Read the document and write it."""
    id = item(number, table)
    json = text(id, list, rank)
    tx.write(table, id, await tx.get(table, id), json, table.keys_of_json(json), len(json))


async def rank(tx: Transaction, number: int) -> float | None:
    row = await tx.get(ITEMS, item(number))
    return None if row is None else float(orjson.loads(row.json)["rank"])


class CalmDatabase(Database):
    """Suspends nowhere, like a store in the same process."""

    async def suspend(self, most: int = 3) -> None:
        return


class GatedStore(ModelStore):
    """A node whose writes wait for ``gate``.

    Attributes:
        groups: what each write was given.
        writing: set while a write waits or goes on.
        cut_off: how many of the next writes are durable, and fail all the same.
    """

    def __init__(self, database: Database | None = None) -> None:
        super().__init__(database or CalmDatabase())
        self.groups: list[Sequence[Commit]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.writing = asyncio.Event()
        self.cut_off = 0

    @contextlib.asynccontextmanager
    async def head(self) -> AsyncIterator[ModelHead]:
        async with self.database.lock:
            yield _GatedHead(self)


class _GatedHead(ModelHead):
    def __init__(self, store: GatedStore) -> None:
        super().__init__(store)
        self._gated = store

    async def write(self, commits: Sequence[Commit]) -> None:
        store = self._gated
        store.groups.append(commits)
        store.writing.set()
        await store.gate.wait()
        store.writing.clear()
        await super().write(commits)
        if store.cut_off:
            store.cut_off -= 1
            raise StoreError("the connection was lost before the answer came")


@contextlib.asynccontextmanager
async def running(store: Store, catalog: Catalog = CATALOG, **limits: Any) -> AsyncIterator[Engine]:
    engine = Engine(store, catalog, VirtualRuntime(1_000_000_000), Limits(**limits))
    await engine.start()
    try:
        yield engine
    finally:
        if isinstance(store, GatedStore):
            store.gate.set()
        await engine.stop()


Body = Callable[[Transaction], Awaitable[Any]]


def mutation(engine: Engine, body: Body, *, request: RequestKey | None = None, value: bytes = b"null") -> asyncio.Task[Committed]:
    """Send a mutation. ``body`` runs at each attempt."""

    async def run(tx: Transaction) -> Answer:
        return Answer(value, (), await body(tx))

    return asyncio.ensure_future(engine.mutate(run, request=request))


def putting(number: int, list: str = "a", rank: float = 0.0, table: Table = ITEMS) -> Body:
    async def body(tx: Transaction) -> None:
        await put(tx, number, list, rank, table)

    return body


def adding(number: int, by: float = 1.0) -> Body:
    """Reads a rank and writes a greater one, which it gives."""

    async def body(tx: Transaction) -> float:
        new = (await rank(tx, number) or 0.0) + by
        await put(tx, number, rank=new)
        return new

    return body


async def settled() -> None:
    """Let every task go as far as it can without what a test holds back."""
    for _ in range(20):
        await asyncio.sleep(0)


async def ranks(engine: Engine) -> dict[str, float]:
    """Every item's rank, on the newest published commit."""

    async def read(tx: Transaction) -> dict[str, float]:
        return {row.id: orjson.loads(row.json)["rank"] for row in await tx.scan(ITEMS.by_id, FULL).rest()}

    return (await engine.query(read))[0]


Texts = tuple[str, ...]


@dataclass(frozen=True)
class Result:
    value: Texts
    identity_used: bool = False
    lasting: bool = True
    journal: str | None = None
    joinable: bool = True

    def same_as(self, other: Result) -> bool:
        return self.value == other.value


Run = Callable[[Transaction, str | None], Coroutine[Any, Any, Result]]


@dataclass(eq=False)
class Watch:
    """One who watches, and counts how often it was told that its result is stale."""

    engine: Engine
    run: Run
    key: object = "query"
    identity: object = None
    journal: str | None = None
    told: int = 0
    subscription: Subscription[Result] = field(init=False)

    def __post_init__(self) -> None:
        self.subscription = self.engine.live.subscribe(self.key, self.identity, self.run, self, journal=self.journal)

    def invalidated(self, subscription: Subscription[Result]) -> None:
        assert subscription is self.subscription
        self.told += 1

    def at(self, pin: Pin) -> Result | asyncio.Future[Result]:
        return self.subscription.at(pin)

    def now(self) -> Result:
        """The newest result, of a query that does not suspend."""
        pin = self.engine.pin()
        try:
            result = self.at(pin)
            assert not isinstance(result, asyncio.Future)
            return result
        finally:
            pin.release()
