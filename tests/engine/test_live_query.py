"""Live queries: right as of every commit, run only when touched, shared between those who watch them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactor.engine.commit_log import CommitLog, Published
from reactor.engine.engine import Engine
from reactor.engine.read_set import ReadSet
from reactor.engine.snapshot import Pin
from reactor.engine.store import Ts
from reactor.engine.transaction import Transaction
from reactor.values.interval import FULL, Interval
from reactor.values.order import encode_key, prefix_end
from tests.engine.support import (
    ITEMS,
    GatedStore,
    Result,
    Run,
    Texts,
    Watch,
    change,
    item,
    later,
    mutation,
    opened,
    put,
    running,
    settled,
    text,
)
from tests.support.databases import Databases
from tests.support.examples import examples

HISTORIES = pytest.mark.sqlite_only("many histories, of which tests/functions/test_live_model.py has a few over Postgres")


@dataclass(frozen=True)
class Asked:
    """The first ``limit`` items of a list, or of all lists by rank; or the item ``get``."""

    list: str | None = None
    limit: int = 99
    reverse: bool = False
    get: int | None = None

    async def read(self, tx: Transaction) -> Texts:
        if self.get is not None:
            row = await tx.get(ITEMS, item(self.get))
            return () if row is None else (row.json,)
        index, interval = ITEMS.index("by_rank"), FULL
        if self.list is not None:
            prefix = encode_key(self.list)
            index, interval = ITEMS.index("by_list"), Interval(prefix, prefix_end(prefix), prefix)
        return tuple(row.json for row in await tx.scan(index, interval, reverse=self.reverse).next(self.limit))

    def of(self, model: dict[int, tuple[str, float]]) -> Texts:
        """The same from plain Python."""
        if self.get is not None:
            found = [(self.get, *model[self.get])] if self.get in model else []
        else:
            found = [(number, *fields) for number, fields in model.items() if self.list in (None, fields[0])]
            found.sort(key=lambda it: (it[2], it[0]), reverse=self.reverse)
        return tuple(text(item(number), *fields) for number, *fields in found[: self.limit])  # type: ignore[arg-type]


def asking(asked: Asked) -> Run:
    async def run(tx: Transaction, journal: str | None) -> Result:
        return Result(await asked.read(tx))

    return run


LISTS, RANKS, NUMBERS = st.sampled_from("ab"), st.integers(0, 3).map(float), st.integers(0, 5)
COMMIT = st.dictionaries(NUMBERS, st.none() | st.tuples(LISTS, RANKS), min_size=1, max_size=3)
ASKED = st.builds(Asked, st.none() | LISTS, st.integers(1, 3) | st.just(99), st.booleans()) | st.builds(Asked, get=NUMBERS)

Changes = dict[int, tuple[str, float] | None]
Model = dict[int, tuple[str, float]]


async def commit(engine: Engine, model: Model, changes: Changes) -> None:
    async def body(tx: Transaction) -> None:
        for number, fields in changes.items():
            row = await tx.get(ITEMS, item(number))
            if fields is not None:
                await put(tx, number, *fields)
            elif row is not None:
                tx.write(ITEMS, row.id, row, None, (), 0)

    await mutation(engine, body)
    for number, fields in changes.items():
        model.pop(number, None)
        if fields is not None:
            model[number] = fields


@HISTORIES
@given(ASKED, st.lists(COMMIT, max_size=8))
def test_a_live_query_equals_one_from_scratch_and_runs_only_when_it_was_touched(
    databases: Databases, asked: Asked, commits: list[Changes]
) -> None:
    async def play() -> None:
        async with opened(databases) as store, running(store) as engine:
            model: Model = {}
            watch = Watch(engine, asking(asked))
            result = await watch.now()
            for changes in commits:
                told, runs = watch.told, engine.live.runs
                await commit(engine, model, changes)
                differs = asked.of(model) != result.value
                assert watch.told - told == differs
                result = await watch.now()
                assert result.value == asked.of(model)
                assert engine.live.runs - runs == differs

    asyncio.run(play())


class Audience:
    """Watchers of one query that looks at who calls, and can be joined, depending on the data."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.model: Model = {}
        self.past: dict[Ts, Model] = {}
        self.watching: list[Watch] = []
        self.pins: list[Pin] = []

    def subscribe(self, identity: str, journal: str | None) -> None:
        async def run(tx: Transaction, journal: str | None) -> Result:
            return self.result(Asked().of({}) + await Asked().read(tx), identity)

        self.watching.append(Watch(self.engine, run, identity=identity, journal=journal))

    def result(self, found: Texts, identity: str) -> Result:
        if item(0) in "".join(found):
            return Result((identity, *found), identity_used=True, joinable=item(1) not in "".join(found), journal=str(len(found) % 2))
        return Result(found, joinable=item(1) not in "".join(found))

    async def do(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("subscribe", identity, journal):
                self.subscribe(identity, journal)
            case ("close", at) if self.watching:
                self.watching.pop(at % len(self.watching)).subscription.close()
            case ("commit", changes):
                await commit(self.engine, self.model, changes)
            case ("pin",):
                self.pins.append(self.engine.pin())
            case ("restart",):
                self.engine.live.restart_all()
            case ("read", at) if self.watching:
                pin = self.pins.pop(0) if self.pins else self.engine.pin()
                await self.read(self.watching[at % len(self.watching)], pin)
                pin.release()
        self.past[self.engine.head_ts] = dict(self.model)
        self.engine.live.check_invariants()

    async def read(self, watch: Watch, pin: Pin) -> None:
        result = await later(watch.at(pin))
        assert isinstance(watch.identity, str)
        assert result.value == self.result(Asked().of(self.past[pin.ts]), watch.identity).value


@contextlib.asynccontextmanager
async def shared_run(engine: Engine) -> AsyncIterator[tuple[list[Watch], asyncio.Event]]:
    """Ada and Bob share a query, which is running for Ada, and will find that it depends on who calls, once the gate is open."""
    gate = asyncio.Event()
    watches: list[Watch] = []

    def subscribe(identity: str) -> None:
        async def run(tx: Transaction, journal: str | None) -> Result:
            found = await Asked().read(tx)
            if not found:
                return Result(())
            await gate.wait()
            return Result((identity, *found), identity_used=True)

        watches.append(Watch(engine, run, identity=identity))

    for identity in ("ada", "bob"):
        subscribe(identity)
        assert await watches[-1].now() == Result(())
    assert watches[0].subscription.live is watches[1].subscription.live
    await commit(engine, {}, {0: ("a", 0.0)})
    yield watches, gate


@pytest.mark.anyio
async def test_one_who_asks_twice_while_another_s_run_goes_on_gets_their_own_result_twice(store: GatedStore) -> None:
    async with running(store) as engine, shared_run(engine) as ((ada, bob), gate):
        pin = engine.pin()
        asked = [asyncio.ensure_future(later(watch.at(pin))) for watch in (ada, bob, bob)]
        gate.set()
        assert [result.value[0] for result in await asyncio.gather(*asked)] == ["ada", "bob", "bob"]
        pin.release()


@pytest.mark.anyio
async def test_a_subscription_that_is_closed_while_another_s_run_goes_on_leaves_nothing_behind(store: GatedStore) -> None:
    async with running(store) as engine, shared_run(engine) as ((ada, bob), gate):
        pin = engine.pin()
        asked = [asyncio.ensure_future(later(watch.at(pin))) for watch in (ada, bob)]
        await settled()
        bob.subscription.close()
        gate.set()
        assert [result.value[0] for result in await asyncio.gather(*asked)] == ["ada", "bob"]
        pin.release()
        ada.subscription.close()
        assert len(engine.live) == 0
        engine.live.check_invariants()


FEW = st.dictionaries(st.integers(0, 2), st.none() | st.tuples(LISTS, RANKS), min_size=1, max_size=2)
AUDIENCE_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("subscribe"), st.sampled_from(["ada", "bob", "cleo"]), st.none() | st.just("1")),
        st.tuples(st.just("commit"), FEW),
        st.tuples(st.just("read"), st.integers(0, 5)),
        st.tuples(st.just("close"), st.integers(0, 5)),
        st.tuples(st.just("pin")),
        st.tuples(st.just("restart")),
    ),
    max_size=40,
)


@HISTORIES
@settings(max_examples=examples(100))
@given(AUDIENCE_STEPS)
def test_everyone_gets_their_own_result_however_queries_are_shared(databases: Databases, steps: list[tuple[Any, ...]]) -> None:
    async def play() -> None:
        async with opened(databases) as store, running(store) as engine:
            audience = Audience(engine)
            for step in steps:
                await audience.do(step)
            for pin in audience.pins:
                pin.release()
            for watch in audience.watching:
                await watch.now()
                watch.subscription.close()
            assert len(engine.live) == 0
            assert len(engine.live._subscriptions) == 0

    asyncio.run(play())


NOBODY, ZERO, ONE = {0: None, 1: None}, {0: ("a", 0.0), 1: None}, {0: None, 1: ("a", 0.0)}


@pytest.mark.anyio
async def test_a_shared_query_that_begins_to_look_at_who_calls_lets_the_others_go(store: GatedStore) -> None:
    """Its owner's own place is taken by then: the shared one could not be joined while item 1 was there."""
    async with running(store) as engine:
        audience = Audience(engine)
        steps: list[tuple[Any, ...]] = [("subscribe", "ada", None), ("read", 0), ("commit", ONE), ("read", 0), ("subscribe", "ada", None)]
        steps += [("commit", ZERO), ("read", 0), ("subscribe", "bob", None), ("read", 2)]
        for step in steps:
            await audience.do(step)


@pytest.mark.anyio
async def test_a_query_that_is_shared_by_now_is_read_as_of_when_it_looked_at_who_called(store: GatedStore) -> None:
    async with running(store) as engine:
        audience = Audience(engine)
        await audience.do(("commit", ZERO))
        pin = engine.pin()
        steps: list[tuple[Any, ...]] = [("commit", NOBODY), ("subscribe", "ada", None), ("read", 0), ("subscribe", "bob", None)]
        for step in steps:
            await audience.do(step)
        await audience.read(audience.watching[1], pin)


class Slow:
    """A query whose runs wait to be let on after they have read."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.waiting: list[asyncio.Event] = []

    async def __call__(self, tx: Transaction, journal: str | None) -> Result:
        found = await self.asked.read(tx)
        go = asyncio.Event()
        self.waiting.append(go)
        await go.wait()
        return Result(found)

    async def let_on(self, at: int = 0) -> None:
        await settled()
        if self.waiting:
            self.waiting.pop(at % len(self.waiting)).set()


@HISTORIES
@given(
    ASKED,
    st.lists(
        st.one_of(
            st.tuples(st.just("commit"), COMMIT),
            st.tuples(st.just("read"), st.integers(0, 1)),
            st.tuples(st.just("let on"), st.integers(0, 3)),
        ),
        max_size=15,
    ),
)
def test_no_commit_is_missed_while_runs_go_on(databases: Databases, asked: Asked, steps: list[tuple[str, Any]]) -> None:
    async def play() -> None:
        async with opened(databases) as store, running(store) as engine:
            model: Model = {}
            slow = Slow(asked)
            watching = [Watch(engine, slow), Watch(engine, slow)]
            expected: list[tuple[asyncio.Future[Result], Texts]] = []
            for kind, what in steps:
                if kind == "commit":
                    await commit(engine, model, what)
                elif kind == "let on":
                    await slow.let_on(what)
                else:
                    pin = engine.pin()
                    expected.append((asyncio.ensure_future(later(watching[what].at(pin))), asked.of(model)))
                    pin.release()
                await asyncio.sleep(0)
            while slow.waiting:
                await slow.let_on()
                await settled()
            for future, value in expected:
                assert (await future).value == value
            live = watching[0].subscription.live
            assert live.outcome is None or live.invalid_at is not None or live.outcome.value == asked.of(model)
            assert all((watch.told > 0) >= (live.invalid_at is not None) for watch in watching)

    asyncio.run(play())


@pytest.mark.anyio
async def test_a_commit_between_a_run_and_its_registration_makes_it_stale_at_once(store: GatedStore) -> None:
    async with running(store) as engine:
        slow = Slow(Asked(list="a"))
        watch = Watch(engine, slow)
        pin = engine.pin()
        first = watch.at(pin)
        pin.release()
        assert isinstance(first, asyncio.Future)
        await commit(engine, {}, {1: ("a", 1.0)})
        assert watch.told == 0
        await slow.let_on()
        assert (await first).value == ()
        assert watch.told == 1


@pytest.mark.anyio
async def test_a_run_that_was_overtaken_changes_nothing(store: GatedStore) -> None:
    async with running(store) as engine:
        slow = Slow(Asked())
        watch = Watch(engine, slow)
        model: Model = {}
        results = []
        for number in (1, 2):
            pin = engine.pin()
            results.append(watch.at(pin))
            pin.release()
            await commit(engine, model, {number: ("b", 0.0)})
        pin = engine.pin()
        newest = watch.at(pin)
        for at, result in ((2, newest), (0, results[0]), (0, results[1])):
            await slow.let_on(at)
            await later(result)
        assert watch.told == 0
        assert watch.at(pin) is await later(newest)
        pin.release()


@pytest.mark.anyio
@pytest.mark.parametrize("suspends", [False, True])
async def test_one_whose_result_was_overtaken_by_that_of_another_is_told(store: GatedStore, suspends: bool) -> None:
    async with running(store) as engine:
        slow = Slow(Asked())
        one, other = (Watch(engine, slow if suspends else asking(Asked())) for _ in range(2))
        before = engine.pin()
        asked = [one.at(before)] if suspends else []
        await commit(engine, {}, {1: ("a", 1.0)})
        pin = engine.pin()
        newest = other.at(pin)
        await slow.let_on(1)
        await later(newest)
        asked = asked or [one.at(before)]
        await slow.let_on()
        assert (await later(asked[0])).value == ()
        assert (one.told, other.told) == (1, 0)
        assert one.at(pin) is await later(newest)
        assert (one.told, other.told) == (1, 0)
        for held in (before, pin):
            held.release()


@pytest.mark.anyio
async def test_watchers_of_one_query_share_its_run_also_while_it_goes_on(store: GatedStore) -> None:
    async with running(store) as engine:
        slow = Slow(Asked())
        watching = [Watch(engine, slow) for _ in range(10)]
        pin = engine.pin()
        results = [watch.at(pin) for watch in watching]
        await slow.let_on()
        first, *others = [await later(result) for result in results]
        assert all(other is first for other in others)
        assert engine.live.runs == 1
        pin.release()


@pytest.mark.anyio
async def test_one_who_stops_waiting_does_not_stop_the_run_that_others_share(store: GatedStore) -> None:
    async with running(store) as engine:
        slow = Slow(Asked())
        one, other = Watch(engine, slow), Watch(engine, slow)
        pin = engine.pin()
        leaving, staying = one.at(pin), other.at(pin)
        pin.release()
        assert isinstance(leaving, asyncio.Future) and isinstance(staying, asyncio.Future)
        leaving.cancel()
        one.subscription.close()
        await settled()
        await slow.let_on()
        assert (await staying).value == ()
        assert engine._pins.oldest(Ts(-1)) == -1


@pytest.mark.anyio
async def test_a_watcher_that_does_not_look_is_told_once_and_skips_to_the_latest(store: GatedStore) -> None:
    async with running(store) as engine:
        model: Model = {}
        watch = Watch(engine, asking(Asked()))
        await watch.now()
        for number in range(5):
            await commit(engine, model, {number: ("a", 0.0)})
        assert (watch.told, engine.live.runs, len(engine._log)) == (1, 1, 0)
        assert (await watch.now()).value == Asked().of(model)
        assert engine.live.runs == 2


@pytest.mark.anyio
async def test_a_run_of_old_code_is_not_kept_after_a_restart(store: GatedStore) -> None:
    async with running(store) as engine:
        slow = Slow(Asked())
        watch = Watch(engine, slow)
        pin = engine.pin()
        old = watch.at(pin)
        engine.live.restart_all()
        assert watch.told == 1
        new = watch.at(pin)
        pin.release()
        await settled()
        assert len(slow.waiting) == 2
        for result in (old, new):
            await slow.let_on()
            await later(result)
        assert await watch.now() is await later(new)
        assert await watch.now() is not await later(old)


LOG = [Published(Ts(ts), [change(ITEMS, item(ts), None, text(item(ts), "a", float(ts)))]) for ts in (10, 20, 30)]


def log_of(start: int) -> CommitLog:
    log = CommitLog(Ts(0))
    for entry in LOG:
        log.append(entry)
    log.trim(Ts(start))
    log.check_invariants()
    return log


def at_rank(rank: float) -> ReadSet:
    read_set = ReadSet()
    read_set.add(ITEMS.index("by_rank"), encode_key(rank), encode_key(rank + 1), b"")
    return read_set


@pytest.mark.parametrize(
    ("start", "rank", "after", "found"),
    [
        (0, 20, 0, 20),
        (0, 20, 10, 20),
        (0, 20, 19, 20),
        (0, 20, 20, None),
        (0, 20, 99, None),
        (0, 40, 0, None),
        (10, 30, 10, 30),
        (10, 40, 10, None),
        (10, 40, 9, 10),  # not known any more: better to run again
        (99, 40, 29, 30),
        (99, 30, 30, None),
    ],
)
def test_the_commit_log_finds_the_first_commit_that_touched_and_aborts_when_it_does_not_reach_back(
    start: int, rank: float, after: int, found: int | None
) -> None:
    assert log_of(start).first_overlap(at_rank(rank), Ts(after)) == found


@pytest.mark.anyio
async def test_commits_are_kept_in_memory_back_to_the_oldest_snapshot_in_use_and_no_longer(store: GatedStore) -> None:
    async with running(store) as engine:
        await commit(engine, {}, {0: ("a", 0.0)})
        pin = engine.pin()
        for number in (1, 2, 3):
            await commit(engine, {}, {number: ("a", 0.0)})
        assert (len(engine._log), engine._log.start) == (3, pin.ts)
        pin.release()
        await commit(engine, {}, {4: ("a", 0.0)})
        assert (len(engine._log), engine._log.start) == (0, engine.head_ts)
