"""Scheduled functions over many nodes that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from reactor import Id, ScheduledFunction
from reactor.engine.store import Head
from reactor.errors import StoreError, StoreFull
from reactor.schema.index import IndexRange
from reactor.schema.system import SchedulerLease
from reactor.services import scheduler
from reactor.services.scheduler import INTERRUPTED
from reactor.testing import TestBackend
from tests.services.app.app_functions import jobs
from tests.services.app.schema import Trace
from tests.services.nodes import Node
from tests.support.examples import examples
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

SEEDS = examples(6, 200)


async def leases(t: TestBackend) -> list[SchedulerLease]:
    return await t._runner.transact(lambda db, now_ms: db.query(SchedulerLease).collect())


async def began(key: str) -> None:
    await eventually_async(lambda: f"began {key}" in jobs.effects, f"{key} to begin")


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_mutations_run_exactly_once_and_actions_at_most_once_whoever_dies(seed: int, anyio_backend: str) -> None:
    chance = random.Random(seed)
    async with TestBackend(__file__.rpartition("/")[0] + "/app") as t:
        nodes = [Node(t, skew_s=chance.uniform(-2, 2)) for _ in range(3)]
        dead: list[Node] = []
        scheduled: dict[Id[ScheduledFunction], tuple[str, str]] = {}

        async def some_turns() -> None:
            for node in nodes:
                if chance.random() < 0.7:
                    node.turn()
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)

        for step in range(80):
            kind = chance.choice(["mutation", "mutation", "action"])
            key = f"{kind} {step}"
            path = "jobs:trace" if kind == "mutation" else "jobs:acts"
            seconds = chance.choice([0, 0, 0.5, 10])
            scheduled[await t.mutation(jobs.any_of, path=path, args={"key": key}, seconds=seconds)] = (kind, key)
            await some_turns()
            t.runtime.advance_to(t.runtime.now_ns() + chance.choice([0, 100_000_000, 2_000_000_000]))
            chance.choice(nodes).resume()
            if chance.random() < 0.2:
                chance.choice(nodes).pause()
            if chance.random() < 0.15:
                victim = nodes.pop(chance.randrange(len(nodes)))
                victim.kill()
                dead.append(victim)
                nodes.append(Node(t, skew_s=chance.uniform(-2, 2)))

        for node in nodes:
            node.resume()

        async def over() -> bool:
            for node in nodes:
                node.turn()
            await asyncio.sleep(0.001)
            t.runtime.advance_to(t.runtime.now_ns() + 500_000_000)
            return not await t.query(jobs.of_state, kind="pending") and not await t.query(jobs.of_state, kind="inProgress")

        for _ in range(2000):
            if await over():
                break
        else:
            pytest.fail("scheduled functions are left over")

        traced = Counter(trace.key for trace in await t.run(lambda ctx: ctx.db.query(Trace).collect()))
        acted = Counter(effect for effect in jobs.effects)
        for id, (kind, key) in scheduled.items():
            job = await t.query(jobs.one, id=id)
            assert job is not None
            if kind == "mutation":
                assert (job.state.kind, traced[key]) == ("success", 1), key
            else:
                assert acted[f"began {key}"] <= 1 and traced[key] <= 1, key
                assert job.state.kind == "success" or job.state.error == INTERRUPTED, job.state
                assert job.state.kind == "failed" or (acted[f"ended {key}"], traced[key]) == (1, 1), key
        for node in (*dead, *nodes):
            node.kill()
            node.bury()


async def test_a_functions_work_is_not_done_on_every_node(t: TestBackend) -> None:
    runs: list[str] = []
    jobs.hook.append(lambda: runs.append("run"))
    nodes = [Node(t) for _ in range(4)]
    for _ in range(200):
        await t.mutation(jobs.any_of, path="jobs:calls", args={})
    while await t.query(jobs.of_state, kind="pending"):
        for node in nodes:
            node.turn()
        await asyncio.sleep(0)
    # A run that conflicts is run again; that is not what doubles the work.
    assert 200 <= len(runs) < 240


async def test_what_a_dead_node_had_claimed_is_run_by_another_once_its_lease_has_expired(t: TestBackend) -> None:
    first, second = Node(t), Node(t)
    first.runs._slots = asyncio.Semaphore(0)  # it claims, and dies before it runs
    await t.mutation(jobs.later, key="claimed")
    await first.runs.turn()
    first.kill()
    await t.mutation(jobs.later, key="another")
    await second.runs.run_due()
    assert await t.query(jobs.traces) == ["another"]
    t.runtime.advance_to(t.runtime.now_ns() + 16_000_000_000)
    await second.runs.run_due()
    assert await t.query(jobs.traces) == ["another", "claimed"]
    assert [lease.owner for lease in await leases(t)] == [second.runs.owner]
    first.bury()


async def test_a_node_that_stood_still_past_its_lease_does_not_run_again_what_another_took_over(t: TestBackend) -> None:
    first, second = Node(t), Node(t)
    first.runs._slots = asyncio.Semaphore(0)
    await t.mutation(jobs.later, key="once")
    await first.runs.turn()
    t.runtime.advance_to(t.runtime.now_ns() + 16_000_000_000)
    await second.runs.run_due()
    first.runs._slots.release()
    await asyncio.wait(list(first.runs._claimed.values()))
    assert await t.query(jobs.traces) == ["once"]


async def test_two_nodes_that_run_a_mutation_at_the_same_moment_run_it_once(t: TestBackend) -> None:
    nodes = [Node(t) for _ in range(4)]
    await t.mutation(jobs.any_of, path="jobs:count", args={})
    [due] = await nodes[0].runs._due(t.runtime.now_ns() / 1e6)
    outcomes = await asyncio.gather(*(node.runs._attempt(due) for node in nodes), return_exceptions=True)
    assert sorted(map(repr, outcomes)) == ["None", *["Superseded()"] * 3]
    counter = await t.run(lambda ctx: ctx.db.query(jobs.Counter).unique())
    assert counter is not None and counter.count == 1


async def test_an_action_whose_node_died_has_failed_and_does_not_run_again(t: TestBackend) -> None:
    first, second = Node(t), Node(t)
    jobs.gates["cut"] = asyncio.Event()
    id = await t.mutation(jobs.any_of, path="jobs:acts", args={"key": "cut"})
    await first.runs.turn()
    await began("cut")
    first.kill()
    await second.runs.run_due()
    job = await t.query(jobs.one, id=id)
    assert job is not None and job.state.kind == "inProgress"
    t.runtime.advance_to(t.runtime.now_ns() + 16_000_000_000)
    await second.runs.run_due()
    job = await t.query(jobs.one, id=id)
    assert job is not None and (job.state.kind, job.state.error) == ("failed", INTERRUPTED)
    assert jobs.effects == ["began cut"]
    first.bury()


async def test_a_node_that_is_alone_knows_at_its_start_that_what_ran_was_interrupted(t: TestBackend) -> None:
    first = Node(t)
    jobs.gates["cut"] = asyncio.Event()
    id = await t.mutation(jobs.any_of, path="jobs:acts", args={"key": "cut"})
    await first.runs.turn()
    await began("cut")
    first.kill()
    await Node(t, alone=True).runs.run_due()
    job = await t.query(jobs.one, id=id)
    assert job is not None and job.state.error == INTERRUPTED
    first.bury()


async def test_a_node_that_runs_a_long_action_keeps_its_lease(t: TestBackend) -> None:
    first, second = Node(t), Node(t)
    jobs.gates["long"] = asyncio.Event()
    id = await t.mutation(jobs.any_of, path="jobs:acts", args={"key": "long"})
    for _ in range(20):
        await first.runs.turn()
        await second.runs.turn()
        t.runtime.advance_to(t.runtime.now_ns() + 4_000_000_000)
    jobs.gates["long"].set()
    await first.runs.run_due()
    job = await t.query(jobs.one, id=id)
    assert job is not None and job.state.kind == "success"
    t.runtime.advance_to(t.runtime.now_ns() + 30_000_000_000)
    await first.runs.turn()
    assert await leases(t) == [], "an idle node has no lease"


async def test_a_claim_that_was_written_though_the_node_was_told_otherwise_is_noticed(
    t: TestBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(t)
    real = node.runs._runner.transact

    async def lost(*args: object) -> object:
        monkeypatch.setattr(node.runs._runner, "transact", real)
        await real(*args)  # type: ignore[arg-type]
        raise StoreError("the connection went away")

    id = await t.mutation(jobs.any_of, path="jobs:acts", args={"key": "lost"})
    monkeypatch.setattr(node.runs._runner, "transact", lost)
    with pytest.raises(StoreError):
        await node.runs.turn()
    await node.runs.run_due()
    job = await t.query(jobs.one, id=id)
    assert job is not None and (job.state.error, jobs.effects) == (INTERRUPTED, [])


async def test_a_stop_lets_what_runs_end_and_claims_nothing_more(t: TestBackend) -> None:
    node = Node(t)
    jobs.gates["running"] = asyncio.Event()
    id = await t.mutation(jobs.any_of, path="jobs:acts", args={"key": "running"})
    await node.runs.turn()
    await began("running")
    stopping = asyncio.ensure_future(node.runs.stop(20))
    await asyncio.sleep(0)
    await t.mutation(jobs.later, key="later")
    await node.runs.turn()
    jobs.gates["running"].set()
    await stopping
    job = await t.query(jobs.one, id=id)
    assert job is not None and job.state.kind == "success"
    assert await t.query(jobs.traces) == ["running"] and await leases(t) == []


async def test_a_stop_whose_time_is_over_fails_the_actions_that_still_run(t: TestBackend) -> None:
    node = Node(t)
    jobs.gates["endless"] = asyncio.Event()
    id = await t.mutation(jobs.any_of, path="jobs:acts", args={"key": "endless"})
    await node.runs.turn()
    await began("endless")
    await node.runs.stop(0)
    job = await t.query(jobs.one, id=id)
    assert job is not None and (job.state.kind, job.state.error) == ("failed", INTERRUPTED)
    assert await leases(t) == []


async def test_many_long_actions_hold_up_no_mutation(t: TestBackend) -> None:
    for number in range(80):
        jobs.gates[f"{number}"] = asyncio.Event()
        await t.mutation(jobs.any_of, path="jobs:acts", args={"key": f"{number}"})
    await t.mutation(jobs.later, key="after them")
    node = Node(t)
    await node.runs.turn()
    while not await t.query(jobs.traces):
        await asyncio.sleep(0)
    assert len(await t.query(jobs.of_state, kind="inProgress")) == 64
    for gate in jobs.gates.values():
        gate.set()
    await node.runs.run_due()
    assert len(await t.query(jobs.traces)) == 81


async def test_how_late_functions_begin_is_counted(t: TestBackend) -> None:
    for seconds in (0, 3, 4):
        await t.mutation(jobs.later, key="late", seconds=seconds)
    t.runtime.advance_to(t.runtime.now_ns() + 4_000_000_000)
    await t.advance()
    lateness = t._scheduled.lateness
    assert (lateness.count, round(lateness.sum, 3)) == (3, 5.0)
    assert [count for count in lateness.counts if count] == [1, 1, 1]


async def test_a_database_that_cannot_write_for_a_while_delays_and_loses_nothing(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter([True] * 5)
    store = t._engine._store
    real = store.head

    @contextlib.asynccontextmanager
    async def head() -> AsyncIterator[Head]:
        if next(failures, False):
            raise StoreFull("no space left")
        async with real() as held:
            yield held

    await t.mutation(jobs.later, key="in the end", seconds=1)
    t.runtime.advance_to(t.runtime.now_ns() + 1_000_000_000)
    monkeypatch.setattr(store, "head", head)
    node = Node(t)
    for _ in range(5):
        with pytest.raises(StoreFull):
            await node.runs.turn()
    await node.runs.run_due()
    assert await t.query(jobs.traces) == ["in the end"]


async def test_more_due_actions_than_are_looked_at_hold_up_no_mutation(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "LOOK_AHEAD", 64)
    for number in range(64):
        jobs.gates[f"{number}"] = asyncio.Event()
    for number in range(300):
        await t.mutation(jobs.any_of, path="jobs:acts", args={"key": f"{number}"})
    await t.mutation(jobs.later, key="after them")
    node = Node(t)
    while not await t.query(jobs.traces):
        await node.runs.turn()
        await asyncio.sleep(0)
    await eventually_async(lambda: len(jobs.effects) == 64, "all that were claimed to begin")
    # One that is due before all of them, scheduled when they have been looked at.
    await t.mutation(jobs.at, key="before them", time_ms=t.runtime.now_ns() / 1e6 - 60_000)
    while len(await t.query(jobs.traces)) < 2:
        await node.runs.turn()
        await asyncio.sleep(0)
    assert await t.query(jobs.traces) == ["after them", "before them"]
    for gate in jobs.gates.values():
        gate.set()
    await node.runs.run_due()
    assert len(await t.query(jobs.traces)) == 302


async def test_nothing_due_is_left_when_all_that_ran_ends_while_a_node_that_had_no_room_looks_on(
    t: TestBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(65):
        jobs.gates[f"{number}"] = asyncio.Event()
        await t.mutation(jobs.any_of, path="jobs:acts", args={"key": f"{number}"})
    node = Node(t)
    await node.runs.turn()
    await eventually_async(lambda: len(jobs.effects) == 64, "all that there is room for to begin")
    look = node.runs._first_due_ms

    async def look_slowly(pending: IndexRange[ScheduledFunction]) -> float | None:
        for gate in jobs.gates.values():
            gate.set()
        await eventually_async(lambda: not node.runs._claimed, "all of them to end")
        return await look(pending)

    monkeypatch.setattr(node.runs, "_first_due_ms", look_slowly)
    await node.runs.run_due()
    assert len(await t.query(jobs.traces)) == 65


async def test_more_due_mutations_than_are_looked_at_hold_up_no_action(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "LOOK_AHEAD", 64)
    await t.mutation(jobs.many, count=900)
    await t.mutation(jobs.any_of, path="jobs:acts", args={"key": "among them"})
    node = Node(t)
    while "ended among them" not in jobs.effects:
        await node.runs.turn()
        await asyncio.sleep(0)
    assert len(await t.query(jobs.traces)) < 500
    await node.runs.run_due()
    assert len(await t.query(jobs.traces)) == 901


async def test_mutations_that_are_tried_again_and_again_hold_up_no_action(t: TestBackend) -> None:
    node = Node(t)
    node.runs._slots = asyncio.Semaphore(0)  # none of them gets to run
    await t.mutation(jobs.many, count=200)
    await t.mutation(jobs.any_of, path="jobs:acts", args={"key": "beside them"})
    while "ended beside them" not in jobs.effects:
        await node.runs.turn()
        await asyncio.sleep(0)
    node.kill()
    node.bury()


async def test_what_another_node_had_claimed_and_left_is_taken_up_though_it_was_looked_at(t: TestBackend) -> None:
    first, second = Node(t), Node(t)
    first.runs._slots = asyncio.Semaphore(0)
    await t.mutation(jobs.later, key="left")
    await first.runs.turn()
    await t.mutation(jobs.later, key="other")
    await second.runs.run_due()
    assert await t.query(jobs.traces) == ["other"]
    await first.runs.stop(0)
    await second.runs.run_due()
    assert await t.query(jobs.traces) == ["left", "other"]


@pytest.mark.sqlite_only("over Postgres what is due runs beside each other, begun in that order and ended in any")
async def test_of_what_fell_due_while_nobody_looked_the_oldest_runs_first(t: TestBackend) -> None:
    for seconds in (3, 1, 2):
        await t.mutation(jobs.later, key=f"{seconds}", seconds=seconds)
    t.runtime.advance_to(t.runtime.now_ns() + 5_000_000_000)
    await t.advance()
    order = [trace.key for trace in await t.run(lambda ctx: ctx.db.query(Trace).collect())]
    assert order == ["1", "2", "3"]


@pytest.mark.parametrize("skew_s", [-3600.0, 3600.0])
async def test_with_a_clock_an_hour_off_mutations_still_run_once_and_actions_at_most_once(t: TestBackend, skew_s: float) -> None:
    nodes = [Node(t), Node(t, skew_s=skew_s)]
    ids = [await t.mutation(jobs.any_of, path="jobs:acts", args={"key": f"action {number}"}) for number in range(20)]
    ids += [await t.mutation(jobs.later, key=f"mutation {number}") for number in range(20)]
    while await t.query(jobs.of_state, kind="pending") or await t.query(jobs.of_state, kind="inProgress"):
        for node in nodes:
            node.turn()
        await asyncio.sleep(0)
        t.runtime.advance_to(t.runtime.now_ns() + 100_000_000)
    traced = Counter(await t.query(jobs.traces))
    assert all(traced[f"mutation {number}"] == 1 for number in range(20))
    assert all(jobs.effects.count(f"began action {number}") <= 1 for number in range(20))
    for id in ids:
        job = await t.query(jobs.one, id=id)
        # The other node takes the one whose clock is behind for dead.
        assert job is not None and (job.state.kind == "success" or job.state.error == INTERRUPTED)
