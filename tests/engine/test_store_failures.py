"""A database that does not answer: no result and no commit comes of what could not be read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reactor.engine.store import UNSEEN, WENT_BACK, Row, StoreSnapshot
from reactor.engine.transaction import Transaction
from reactor.errors import StoreError, StoreUnavailable
from reactor.schema.catalog import Table
from tests.engine.support import CalmDatabase, Result, Watch, item, mutation, putting, rank, ranks, running, settled
from tests.simulation.model_store import ModelHead, ModelSnapshot, ModelStore

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("its store is a model of one with other nodes")]


class _Snapshot(ModelSnapshot):
    async def get(self, table: Table, id: str) -> Row | None:
        store = self._store
        assert isinstance(store, AwayStore)
        if store.away:
            await store.back.wait()
            raise StoreUnavailable("the database does not answer")
        return await super().get(table, id)


class AwayStore(ModelStore):
    """A store of one of several nodes that a test takes away: reads wait for ``back``, and fail."""

    def __init__(self) -> None:
        super().__init__(CalmDatabase())
        self.away = False
        self.back = asyncio.Event()
        self.back.set()
        self.lost: StoreError | None = None

    def snapshot(self) -> StoreSnapshot:
        return _Snapshot(self, self.learned)

    @contextlib.asynccontextmanager
    async def head(self) -> AsyncIterator[ModelHead]:
        if self.lost is not None:
            raise self.lost
        async with super().head() as head:
            yield head


async def test_a_mutation_that_catches_a_failed_read_does_not_commit() -> None:
    store = AwayStore()
    async with running(store) as engine:
        store.away = True

        async def body(tx: Transaction) -> None:
            try:
                await rank(tx, 1)
            except StoreError:
                pass
            await putting(2)(tx)

        async def goes_on_with_another_error(tx: Transaction) -> None:
            with contextlib.suppress(StoreError):
                await rank(tx, 1)
            raise LookupError("what it did not find")

        for tried in (body, goes_on_with_another_error):
            with pytest.raises(StoreUnavailable):
                await mutation(engine, tried)
        store.away = False
        assert await ranks(engine) == {}
        await mutation(engine, body)
        assert list(await ranks(engine)) == [item(2)]


async def test_a_query_that_catches_a_failed_read_has_no_result() -> None:
    store = AwayStore()
    async with running(store) as engine:

        async def read(tx: Transaction) -> str:
            with contextlib.suppress(StoreError):
                await rank(tx, 1)
            return "nothing is there"

        assert (await engine.query(read))[0] == "nothing is there"
        engine._committer.cache.clear(engine._committer.position)
        store.away = True
        with pytest.raises(StoreUnavailable):
            await engine.query(read)


async def test_a_live_query_whose_database_was_away_is_run_again_by_the_next_who_looks() -> None:
    store = AwayStore()
    async with running(store) as engine:
        await mutation(engine, putting(1, rank=1.0))
        engine._committer.cache.clear(engine._committer.position)

        async def run(tx: Transaction, journal: str | None) -> Result:
            try:
                return Result((str(await rank(tx, 1)),))
            except StoreError:
                return Result(("a failure",))

        watch = Watch(engine, run)
        store.away = True
        store.back.clear()
        pin = engine.pin()
        looking = watch.at(pin)
        assert isinstance(looking, asyncio.Future)
        store.back.set()
        with pytest.raises(StoreUnavailable):
            await looking
        pin.release()
        store.away = False
        assert (await watch.now()).value == ("1.0",)
        await mutation(engine, putting(1, rank=2.0))
        assert watch.told == 1 and (await watch.now()).value == ("2.0",)


async def test_a_log_trimmed_beyond_a_node_makes_it_run_everything_again() -> None:
    database = CalmDatabase()
    stores = [ModelStore(database), ModelStore(database)]
    async with running(stores[0]) as asleep, running(stores[1]) as other:
        await mutation(asleep, putting(1, rank=1.0))
        await mutation(other, putting(1, rank=2.0))
        await settled()

        async def run(tx: Transaction, journal: str | None) -> Result:
            return Result((str(await rank(tx, 1)),))

        watch = Watch(asleep, run)
        before = asleep.head_ts
        wake, database.wakes[0] = database.wakes[0], lambda: None
        await mutation(other, putting(1, rank=3.0))
        await settled()
        assert asleep.head_ts == before and (await watch.now()).value == ("2.0",)
        await stores[1].trim(log_before=2**62, requests_before=0)  # type: ignore[arg-type]
        database.wakes[0] = wake
        wake()
        await settled()
        assert asleep.head_ts == other.head_ts
        assert watch.told == 1 and (await watch.now()).value == ("3.0",)
        await mutation(asleep, putting(2, rank=4.0))
        await mutation(other, putting(1, rank=5.0))
        await settled()
        assert (await watch.now()).value == ("5.0",)


async def test_a_mutation_that_cannot_read_what_its_node_has_started_over_from_runs_again() -> None:
    store = AwayStore()
    async with running(store) as engine, running(ModelStore(store.database)) as other:
        store.away = True
        store.back.clear()

        async def body(tx: Transaction) -> None:
            await rank(tx, 1)

        sent = mutation(engine, body)
        await settled()
        wake, store.database.wakes[0] = store.database.wakes[0], lambda: None
        await mutation(other, putting(2, rank=1.0))
        await other._store.trim(log_before=2**62, requests_before=0)  # type: ignore[arg-type]
        store.database.wakes[0] = wake
        wake()
        await settled()
        assert engine.head_ts == other.head_ts and not sent.done()
        store.away = False
        store.back.set()
        await sent


@pytest.mark.parametrize(
    "error",
    [StoreError("it was restored", code=WENT_BACK), StoreUnavailable("durable, and not to be read", code=UNSEEN), LookupError("a bug")],
)
async def test_an_engine_whose_store_is_lost_says_so_and_leaves_nobody_waiting(error: Any) -> None:
    store = AwayStore()
    async with running(store) as engine:
        store.lost = error
        if isinstance(error, LookupError):  # not met by a group, but between two

            async def news(after: object) -> None:
                raise error

            store.news = news  # type: ignore[assignment, method-assign]
            store.wake()
        waiting = mutation(engine, putting(1))
        with pytest.raises(StoreError):
            await asyncio.wait_for(engine.ended(), 5)
        for doomed in (waiting, mutation(engine, putting(2))):
            with pytest.raises((StoreError, LookupError)):
                await asyncio.wait_for(doomed, 5)


async def test_a_mutation_that_is_to_be_favoured_is_told_that_the_store_was_lost_meanwhile() -> None:
    store = AwayStore()
    async with running(store) as engine:
        runs, ended = 0, asyncio.ensure_future(engine.ended())

        async def body(tx: Transaction) -> None:
            nonlocal runs
            runs += 1
            await rank(tx, 1)
            if runs == 3:
                store.lost = StoreError("it was restored", code=WENT_BACK)
            # It comes in the way, three times: the last time by what it is to be, and never will.
            with contextlib.suppress(StoreError):
                await mutation(engine, putting(1, rank=float(runs)))
            await putting(2)(tx)

        with pytest.raises(StoreError, match="it was restored"):
            await asyncio.wait_for(mutation(engine, body), 5)
        assert (runs, ended.done()) == (3, True)
        with pytest.raises(StoreError):
            await ended
