"""Several nodes over one database, random transactions, random suspensions, failing writes: every invariant at once.

A failure prints the seed; ``REACTOR_TEST_LONG=1`` runs many more seeds.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from reactor.engine.committer import Answer
from reactor.engine.engine import Engine
from reactor.engine.live_query import Subscription
from reactor.engine.store import RequestKey, Ts
from reactor.engine.transaction import Transaction
from reactor.errors import StoreFull, StoreUnavailable, WriteConflict
from reactor.limits import Limits
from tests.simulation.ledger import Model, Recorder, Step, catalog, equal, random_steps, replay
from tests.simulation.model_store import Database, ModelStore

SEEDS = range(2000 if os.environ.get("REACTOR_TEST_LONG") else 60)


class ScriptedRuntime:
    """A clock that a simulation moves, and the seed's randomness."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.ns = 1_000_000

    def now_ns(self) -> int:
        self.ns += self.rng.randint(-20, 100)  # clocks stand still and go back
        return self.ns

    def monotonic_s(self) -> float:
        return self.ns / 1e9

    def random_bytes(self, n: int) -> bytes:
        return self.rng.randbytes(n)

    async def sleep(self, seconds: float) -> None:
        for _ in range(self.rng.randint(0, 20)):
            await asyncio.sleep(0)


@dataclass
class Done:
    """A mutation that was answered, as its caller saw it."""

    ts: Ts
    began: int
    ended: int
    steps: list[Step]
    wrote: bool


@dataclass(eq=False)
class Watched:
    """What a live query last gave its watcher, and whether it was told to look again."""

    outcome: Result | None = None
    dirty: bool = True

    def invalidated(self, subscription: Subscription[Result]) -> None:
        self.dirty = True


@dataclass(frozen=True)
class Result:
    value: tuple[str, ...]
    identity_used: bool = False
    lasting: bool = True
    journal: str | None = None
    joinable: bool = True

    def same_as(self, other: Result) -> bool:
        return self.value == other.value


@dataclass
class Simulation:
    seed: int
    nodes: int
    clock: itertools.count[int] = field(default_factory=itertools.count)
    done: list[Done] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.catalog = catalog()
        self.database = Database(self.seed)
        self.stores = [ModelStore(self.database, exclusive=self.nodes == 1) for _ in range(self.nodes)]
        # Half of them with a row cache that always overflows.
        limits = Limits(mutation_attempts=12, row_cache_bytes=(6000 if self.seed % 2 else 1 << 20))
        self.engines = [Engine(store, self.catalog, ScriptedRuntime(self.rng), limits) for store in self.stores]

    async def suspend(self) -> None:
        await self.database.suspend(2)

    async def run(self, *, clients: int, mutations: int) -> None:
        for engine in self.engines:
            await engine.start()
        watchers = [asyncio.ensure_future(self.watch(engine)) for engine in self.engines]
        try:
            await asyncio.gather(*(self.client(number, mutations) for number in range(clients)))
        finally:
            for watcher in watchers:
                watcher.cancel()
            for found in await asyncio.gather(*watchers, return_exceptions=True):
                if not isinstance(found, asyncio.CancelledError):
                    raise AssertionError("a watcher ended") from found
            for engine in self.engines:
                await engine.stop()

    async def client(self, number: int, mutations: int) -> None:
        rng = random.Random(f"{self.seed}-{number}")
        for count in range(mutations):
            if rng.random() < 0.03:
                rng.choice(self.stores).failures += 1
            if self.nodes > 1 and rng.random() < 0.03:
                await self.trim()
            if rng.random() < 0.2:
                await self.query(rng)
            else:
                await self.mutation(rng, RequestKey(f"client-{number}", count) if rng.random() < 0.5 else None)
            for engine in self.engines:
                engine.live.check_invariants()
                engine._committer._overlay.check_invariants()
                engine._committer.cache.check_invariants()
                engine._log.check_invariants()

    async def trim(self) -> None:
        """Forget the log up to now: nodes that have not followed it up to here cannot any more."""
        await self.stores[0].trim(log_before=Ts(self.database.head + 1), requests_before=Ts(0))

    async def mutation(self, rng: random.Random, request: RequestKey | None) -> None:
        latest: list[Recorder] = []
        seed = rng.random()

        async def run(tx: Transaction) -> Answer:
            recorder = Recorder(tx)
            latest.append(recorder)
            await random_steps(recorder, self.catalog, random.Random(seed), self.suspend, writes=True)
            return Answer(b"null")

        began = next(self.clock)
        try:
            committed = await rng.choice(self.engines).mutate(run, request=request)
        except (WriteConflict, StoreFull, StoreUnavailable):
            return
        last = latest[-1]
        self.done.append(Done(committed.ts, began, next(self.clock), last.steps, bool(last.tx.writes())))
        if request is not None and rng.random() < 0.5:
            try:
                again = await rng.choice(self.engines).mutate(self.again, request=request)
            except (WriteConflict, StoreFull, StoreUnavailable):
                return
            assert again.replayed and again.ts == committed.ts, "a resent request gets the first answer, on every node"

    async def again(self, tx: Transaction) -> Answer:
        # A node that has not heard of the first time runs it once more; nobody ever learns what came of that.
        assert self.nodes > 1, "a request that committed ran again"
        if self.rng.random() < 0.5:
            raise LookupError("what it reads has changed since the first time")
        await self.suspend()
        return Answer(b"another answer")

    async def query(self, rng: random.Random) -> None:
        async def run(tx: Transaction) -> list[Step]:
            recorder = Recorder(tx)
            await random_steps(recorder, self.catalog, random.Random(rng.random()), self.suspend, writes=False)
            return recorder.steps

        began = next(self.clock)
        try:
            steps, ts = await rng.choice(self.engines).query(run)
        except StoreUnavailable:
            return
        self.done.append(Done(ts, began, next(self.clock), steps, False))

    async def watch(self, engine: Engine) -> None:
        """A client of live queries: looks when told, and finds what a run from scratch at that ts finds."""
        accounts = self.catalog.tables["accounts"]
        index = accounts.index("by_name")
        watched: dict[str, tuple[Watched, Subscription[Result]]] = {}

        def run(name: str) -> Callable[[Transaction, str | None], object]:
            async def read(tx: Transaction, journal: str | None) -> Result:
                await self.suspend()
                range = equal(index, name)
                known = tx.known(accounts, index, range, 2, reverse=False)
                rows = known if known is not None else await tx.scan(index, range).next(2)
                return Result(tuple(row.json for row in rows))

            return read

        for name in "abc":
            watcher = Watched()
            watched[name] = (watcher, engine.live.subscribe(name, None, run(name), watcher))  # type: ignore[arg-type]
        while True:
            await asyncio.sleep(0)
            pin = engine.pin()
            try:
                results = {}
                for name, (watcher, subscription) in watched.items():
                    watcher.dirty = False
                    results[name] = subscription.at(pin)
                for name, result in results.items():
                    try:
                        value = await result if isinstance(result, asyncio.Future) else result
                    except StoreUnavailable:
                        continue
                    try:
                        range = equal(index, name)
                        snapshot = await pin.snapshot.scan(index, range.lo, range.hi, reverse=False, limit=2)
                    except StoreUnavailable:
                        continue
                    assert value.value == tuple(row.json for row in snapshot), f"live query {name} is wrong at {pin.ts}"
            finally:
                pin.release()

    def check(self) -> None:
        """Each transaction saw what a serial run in ts order sees, and that order agrees with real time."""
        model = Model()
        # What only read shares its ts with the commit that it read last.
        ordered = sorted(self.done, key=lambda done: (done.ts, not done.wrote))
        for done in ordered:
            replay(model, done.steps)
        for table, rows in self.database.tables.items():
            assert {id: json for id, (_, json, _) in rows.items()} == model.tables.get(table, {})
        for done in self.done:
            latest = max((other.ts for other in self.done if other.ended < done.began), default=Ts(0))
            assert done.ts >= latest, "a transaction was ordered before one that had been answered when it began"


@pytest.mark.anyio
@pytest.mark.parametrize("seed", SEEDS)
async def test_transactions_of_one_node_are_strictly_serializable_and_live_queries_right(seed: int) -> None:
    simulation = Simulation(seed, nodes=1)
    await simulation.run(clients=5, mutations=12)
    simulation.check()
    assert simulation.done


@pytest.mark.anyio
@pytest.mark.parametrize("seed", SEEDS)
async def test_transactions_of_three_nodes_over_one_database_are_strictly_serializable(seed: int) -> None:
    simulation = Simulation(seed, nodes=3)
    await simulation.run(clients=5, mutations=10)
    simulation.check()
    assert simulation.done
