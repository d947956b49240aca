"""A small schema, and an engine over a real store whose writes a test holds back, fails, or cuts off from their answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from reactor.engine.committer import Answer, Committed
from reactor.engine.engine import Engine
from reactor.engine.live_query import Subscription
from reactor.engine.snapshot import Pin
from reactor.engine.store import Commit, Head, RequestKey, Store, Write
from reactor.engine.transaction import Transaction
from reactor.errors import StoreError, StoreFull
from reactor.limits import Limits
from reactor.schema import Document, Index
from reactor.schema.catalog import Catalog, Table
from reactor.testing import VirtualRuntime
from reactor.values.interval import FULL
from tests.simulation.ledger import document_id
from tests.simulation.model_store import Database
from tests.support.databases import Databases


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


class _Activity:
    """What is going on in stores, so that a test can wait until nothing is."""

    def __init__(self) -> None:
        self.operations = self.entering = self.gated = 0

    @property
    def ended(self) -> bool:
        """While a gate holds a write back, and the head with it, whoever wants the head waits in vain."""
        return not self.operations and (not self.entering or self.gated > 0)

    @contextlib.contextmanager
    def count(self, what: str) -> Iterator[None]:
        setattr(self, what, getattr(self, what) + 1)
        try:
            yield
        finally:
            setattr(self, what, getattr(self, what) - 1)


ACTIVITY = _Activity()


class _Watched:
    """Something of a store, with some of its operations counted as activity."""

    def __init__(self, inner: Any, *operations: str) -> None:
        self._inner = inner
        self._operations = operations

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._counted(found) if name in self._operations else found

    def _counted(self, operation: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(*args: Any, **kwargs: Any) -> Any:
            with ACTIVITY.count("operations"):
                return await operation(*args, **kwargs)

        return counted


class GatedStore(_Watched):
    """A store whose writes wait for ``gate``.

    Attributes:
        groups: what each write was given.
        writing: set while a write waits or goes on.
        door: whoever wants the head waits for it.
        failures: how many of the next writes fail.
        cut_off: how many of the next writes are durable, and fail all the same.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store, "news", "newest", "log_after")
        self.groups: list[Sequence[Commit]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.writing = asyncio.Event()
        self.door = asyncio.Event()
        self.door.set()
        self.failures = 0
        self.cut_off = 0

    def snapshot(self) -> Any:
        return _Watched(self._inner.snapshot(), "get", "scan", "find_request", "newest_request")

    @contextlib.asynccontextmanager
    async def head(self) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            await self.door.wait()
            with ACTIVITY.count("entering"):
                head = await stack.enter_async_context(self._inner.head())
            yield _GatedHead(self, head)


class _GatedHead(_Watched):
    def __init__(self, store: GatedStore, head: Head) -> None:
        super().__init__(head, "entries_after")
        self._store = store

    async def write(self, commits: Sequence[Commit]) -> None:
        store = self._store
        store.groups.append(commits)
        store.writing.set()
        with ACTIVITY.count("gated"):
            await store.gate.wait()
        store.writing.clear()
        if store.failures:
            store.failures -= 1
            raise StoreFull("the disk is full")
        with ACTIVITY.count("operations"):
            await self._inner.write(commits)
        if store.cut_off:
            store.cut_off -= 1
            raise StoreError("the connection was lost before the answer came")


@contextlib.asynccontextmanager
async def opened(databases: Databases, catalog: Catalog = CATALOG) -> AsyncIterator[GatedStore]:
    """An empty store."""
    store = await databases.open_with(catalog)
    try:
        yield GatedStore(store)
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def running(store: GatedStore | Store, catalog: Catalog = CATALOG, **limits: Any) -> AsyncIterator[Engine]:
    engine = Engine(cast(Store, store), catalog, VirtualRuntime(1_000_000_000), Limits(**limits))
    await engine.start()
    try:
        await engine.push(catalog)
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
    quiet = 0
    while quiet < 20:
        await asyncio.sleep(0)
        quiet = quiet + 1 if ACTIVITY.ended else 0


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

    async def now(self) -> Result:
        """The newest result."""
        pin = self.engine.pin()
        try:
            return await later(self.at(pin))
        finally:
            pin.release()


async def later(result: Result | asyncio.Future[Result]) -> Result:
    return await result if isinstance(result, asyncio.Future) else result
