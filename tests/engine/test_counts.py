"""What the engine counts of itself: sizes of groups, conflicts, and what ran again and why."""

from __future__ import annotations

import asyncio

import pytest

from reactor.engine.live_query import Own
from reactor.engine.transaction import Transaction
from reactor.errors import StoreFull, WriteConflict
from reactor.histogram import Histogram
from tests.engine.support import (
    CATALOG,
    ITEMS,
    CalmDatabase,
    GatedStore,
    Result,
    Watch,
    adding,
    item,
    later,
    mutation,
    putting,
    rank,
    running,
    settled,
)
from tests.engine.test_asked_once import once, reading
from tests.engine.test_committer import Pausing
from tests.simulation.model_store import ModelStore

pytestmark = pytest.mark.anyio


def test_a_value_counts_in_the_first_bucket_that_takes_it() -> None:
    histogram = Histogram((1, 2.5))
    for value in (0, 1, 1.1, 2.5, 99):
        histogram.add(value)
    assert (histogram.counts, histogram.sum, histogram.count) == ([2, 2, 1], 103.6, 5)


async def test_groups_are_counted_by_their_size(store: GatedStore) -> None:
    async with running(store) as engine:
        store.gate.clear()
        first = mutation(engine, putting(1))
        await store.writing.wait()
        others = [mutation(engine, putting(number)) for number in (2, 3, 4)]
        await settled()
        store.gate.set()
        await asyncio.gather(first, *others)
        sizes = engine.group_sizes
        assert (sizes.counts[:3], sizes.count, sizes.sum) == ([1, 0, 1], 2, 4)


async def test_a_conflict_is_counted_by_the_table_and_the_rerun_by_its_cause(store: GatedStore) -> None:
    async with running(store) as engine:
        body = Pausing()
        sent = mutation(engine, body)
        await settled()
        await mutation(engine, putting(1, rank=5.0))
        body.go.set()
        await sent
        assert engine.conflicts == {"items": 1}
        assert engine.reruns == {"conflict": 1, "innocent": 0, "repeated": 0}


async def test_the_attempt_after_which_a_mutation_gives_up_is_a_conflict_and_no_rerun(store: GatedStore) -> None:
    async with running(store, mutation_attempts=3) as engine:

        async def body(tx: Transaction) -> None:
            await rank(tx, 1)
            await mutation(engine, putting(1, rank=float(engine.conflicts.get("items", 0))))
            await putting(2)(tx)

        with pytest.raises(WriteConflict):
            await mutation(engine, body)
        assert (engine.conflicts, engine.reruns["conflict"]) == ({"items": 3}, 2)


async def test_what_built_on_a_group_that_failed_runs_again_for_no_fault_of_its_own(store: GatedStore) -> None:
    async with running(store) as engine:
        store.gate.clear()
        store.failures = 1
        first = mutation(engine, adding(1))
        await store.writing.wait()
        second = mutation(engine, adding(1))
        await settled()
        store.gate.set()
        with pytest.raises(StoreFull):
            await first
        assert (await second).result == 1.0
        assert engine.reruns == {"conflict": 0, "innocent": 1, "repeated": 0} and not engine.conflicts


@pytest.mark.sqlite_only("its store is a model of one with other nodes")
async def test_another_nodes_commit_is_a_conflict_in_the_table_that_it_wrote() -> None:
    database = CalmDatabase()
    store, elsewhere = GatedStore(ModelStore(database)), GatedStore(ModelStore(database))
    async with running(store) as engine, running(elsewhere) as other:
        store.gate.clear()
        first = mutation(engine, putting(5))
        await store.writing.wait()
        theirs = mutation(other, putting(1, rank=4.0))
        body = Pausing()
        body.go.set()
        ours = mutation(engine, body)
        await settled()
        store.gate.set()
        await asyncio.gather(first, theirs, ours)
        assert engine.conflicts == {"items": 1} and engine.reruns["conflict"] == 1


async def test_a_live_query_runs_again_for_a_commit_and_for_a_push(store: GatedStore) -> None:
    async with running(store) as engine:
        watch = Watch(engine, reading(1))
        await watch.now()
        assert not any(engine.live.reruns.values()), "the first run is none that was made again"
        await mutation(engine, putting(1, rank=2.0))
        await watch.now()
        await mutation(engine, putting(3))
        await watch.now()
        assert engine.live.reruns["commit"] == 1, "a commit that it did not read makes nothing run"
        await engine.push(CATALOG)
        await watch.now()
        assert engine.live.reruns == {"commit": 1, "environment": 0, "push": 1, "identity": 0, "snapshot": 0}


async def test_a_live_query_asked_for_as_of_an_older_snapshot_runs_for_that(store: GatedStore) -> None:
    async with running(store) as engine:
        watch = Watch(engine, reading(1))
        old = engine.pin()
        await mutation(engine, putting(1, rank=2.0))
        await watch.now()
        await later(watch.at(old))
        old.release()
        assert engine.live.reruns["snapshot"] == 1


async def test_live_queries_are_those_that_clients_watch(store: GatedStore) -> None:
    async with running(store) as engine:
        for identity in ("ada", "grace"):
            await once(engine, reading(1), identity=identity)
        Watch(engine, reading(2), key=Own("of the server"))
        assert len(engine.live) == 0
        watches = [Watch(engine, reading(1), key="a"), Watch(engine, reading(1), key="a"), Watch(engine, reading(1), key="b")]
        assert len(engine.live) == 2
        for watch in watches:
            watch.subscription.close()
        assert len(engine.live) == 0
        engine.live.check_invariants()


async def test_who_has_to_run_alone_since_a_commit_made_it_look_at_the_identity_runs_for_that_commit(store: GatedStore) -> None:
    async def once_there_mine(tx: Transaction, journal: str | None) -> Result:
        row = await tx.get(ITEMS, item(1))
        return Result((), identity_used=row is not None)

    async with running(store) as engine:
        ada, grace = (Watch(engine, once_there_mine, identity=identity) for identity in ("ada", "grace"))
        await ada.now()
        await grace.now()
        await mutation(engine, putting(1))
        await ada.now()
        await grace.now()
        assert engine.live.reruns["commit"] == engine.live.runs - 2 == 2
