"""Crons: when they run, that they do not overlap, and what a push changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor import CronJob, Crons, Id, ScheduledFunction, SchemaError
from reactor.errors import CodeError
from reactor.functions.crons import Clock, Interval, parse_spec
from reactor.services.crons import reconcile
from reactor.testing import TestBackend
from tests.services.app.app_functions import jobs
from tests.services.app.schema import Trace
from tests.services.conftest import APP
from tests.services.nodes import Node
from tests.support.examples import examples
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

SEEDS = range(examples(3, 100))
BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 1, 1, tzinfo=UTC)


def times(spec: Clock, after: datetime, count: int) -> list[str]:
    """The next times of a spec, as its zone's clock shows them, with the offset."""
    found: list[str] = []
    at_ms = after.timestamp() * 1000
    for _ in range(count):
        at_ms = spec.next(at_ms, 0)
        found.append(datetime.fromtimestamp(at_ms / 1000, ZoneInfo(spec.timezone)).strftime("%d %H:%M %z"))
    return found


@pytest.mark.sqlite_only("clocks, of which no store hears")
class TestSpec:
    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ("0 8 * * *", ["01 08:00", "02 08:00", "03 08:00"]),
            ("*/20 * * * *", ["01 00:20", "01 00:40", "01 01:00"]),
            ("0 0 * * 1", ["05 00:00", "12 00:00", "19 00:00"]),  # 2026-01-05 is a Monday
            ("0 0 * * MON", ["05 00:00", "12 00:00", "19 00:00"]),
            ("0 0 * * 0", ["04 00:00", "11 00:00", "18 00:00"]),
            ("0 0 * * 7", ["04 00:00", "11 00:00", "18 00:00"]),
            ("30 9-17/4 * * mon-fri", ["01 09:30", "01 13:30", "01 17:30", "02 09:30"]),
            ("15,45 6 2,4 * *", ["02 06:15", "02 06:45", "04 06:15"]),
            ("0 0 31 * *", ["31 00:00", "31 00:00", "31 00:00"]),  # of January, March, May
            ("0 0 29 2 *", ["29 00:00"]),  # of February 2028
            ("0 0 13 * 5", ["02 00:00", "09 00:00", "13 00:00"]),  # a day of the month or a Friday
        ],
    )
    def test_standard_cron_syntax(self, spec: str, expected: list[str]) -> None:
        assert times(Clock(spec), START, len(expected)) == [f"{time} +0000" for time in expected]

    def test_a_time_that_clocks_skip_is_the_first_one_after(self) -> None:
        # On 29 March 2026 Berlin goes from 02:00 to 03:00.
        after = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
        assert times(Clock("30 2 * * *", "Europe/Berlin"), after, 3) == ["29 03:00 +0200", "30 02:30 +0200", "31 02:30 +0200"]
        assert times(Clock("0,30 2 * * *", "Europe/Berlin"), after, 2) == ["29 03:00 +0200", "30 02:00 +0200"]
        assert times(Clock("0 8 * * *", "Europe/Berlin"), after, 2) == ["29 08:00 +0200", "30 08:00 +0200"]

    def test_a_time_that_clocks_show_twice_comes_once(self) -> None:
        # On 25 October 2026 Berlin goes from 03:00 back to 02:00.
        spec = Clock("30 2 * * *", "Europe/Berlin")
        assert times(spec, datetime(2026, 10, 24, 12, tzinfo=BERLIN), 2) == ["25 02:30 +0200", "26 02:30 +0100"]
        for minute in (10, 30, 50):
            second_time = datetime(2026, 10, 25, 2, minute, tzinfo=BERLIN, fold=1)
            assert times(spec, second_time, 1) == ["26 02:30 +0100"]

    def test_every_hour_is_every_hour_that_passes(self) -> None:
        spec = Clock("30 * * * *", "Europe/Berlin")
        spring = times(spec, datetime(2026, 3, 29, 0, 45, tzinfo=BERLIN), 3)
        assert spring == ["29 01:30 +0100", "29 03:30 +0200", "29 04:30 +0200"]
        autumn = times(spec, datetime(2026, 10, 25, 1, 45, tzinfo=BERLIN), 4)
        assert autumn == ["25 02:30 +0200", "25 02:30 +0100", "25 03:30 +0100", "25 04:30 +0100"]

    @given(
        st.sampled_from(["0 8 * * *", "30 2 * * *", "*/7 * * * *", "0 */5 * * 1", "59 1-3 * * *", "0 0 L * *"]),
        st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Santiago"]),
        st.floats(0, 4e12),
    )
    def test_the_next_time_is_later_and_the_same_however_it_is_come_to(self, text: str, zone: str, after_ms: float) -> None:
        spec = parse_spec(f"{text} {zone}")
        next_ms = spec.next(after_ms, 0)
        assert next_ms > after_ms and next_ms % 60_000 == 0
        between = after_ms + (next_ms - after_ms) * 0.5
        assert spec.next(between, 0) == next_ms

    @given(st.integers(1, 10**6), st.floats(0, 4e12), st.floats(0, 4e12))
    def test_intervals_are_multiples_from_the_first_run(self, seconds: int, first_ms: float, later_ms: float) -> None:
        after_ms = first_ms + later_ms
        next_ms = Interval(seconds).next(after_ms, first_ms)
        assert after_ms < next_ms <= after_ms + seconds * 1000 + 1
        assert abs((next_ms - first_ms) / (seconds * 1000) % 1 - 0.5) > 0.4999

    @pytest.mark.parametrize("spec", [Interval(30), Clock("0 8 * * MON-FRI"), Clock("0 8 * * *", "Europe/Berlin")])
    def test_its_text_says_it_all(self, spec: Interval | Clock) -> None:
        assert parse_spec(str(spec)) == spec


@pytest.mark.sqlite_only("declarations, of which no store hears")
class TestDeclaring:
    @pytest.mark.parametrize(
        ("declare", "spec"),
        [
            (lambda c: c.interval("a", timedelta(minutes=5), jobs.trace, key="k"), "every 300 s"),
            (lambda c: c.cron("a", " 0  8 * * * ", jobs.trace, "k"), "0 8 * * * UTC"),
            (lambda c: c.cron("a", "0 8 * * *", jobs.trace, timezone="Europe/Berlin", key="k"), "0 8 * * * Europe/Berlin"),
            (lambda c: c.hourly("a", jobs.trace, minute_utc=5, key="k"), "5 * * * * UTC"),
            (lambda c: c.daily("a", jobs.trace, hour_utc=17, minute_utc=30, key="k"), "30 17 * * * UTC"),
            (lambda c: c.weekly("a", jobs.trace, day_of_week="Monday", hour_utc=0, minute_utc=0, key="k"), "0 0 * * 1 UTC"),
            (lambda c: c.monthly("a", jobs.trace, day=31, hour_utc=23, minute_utc=59, key="k"), "59 23 31 * * UTC"),
        ],
    )
    def test_each_kind_has_its_times(self, declare: Callable[[Crons], None], spec: str) -> None:
        crons = Crons()
        declare(crons)
        assert [str(cron.spec) for cron in crons] == [spec]

    def test_a_minute_left_out_is_the_same_each_time_and_differs_by_name(self) -> None:
        def minutes() -> list[str]:
            crons = Crons()
            for name in "abcdefgh":
                crons.hourly(name, jobs.count)
            return [str(cron.spec) for cron in crons]

        assert minutes() == minutes() and len(set(minutes())) > 4

    @pytest.mark.parametrize(
        ("declare", "why"),
        [
            (lambda c: c.interval("a", 5, jobs.count), "Cron 'a' takes a timedelta, not int"),
            (lambda c: c.interval("a", timedelta(), jobs.count), "takes a whole number of seconds from 1 up, not 0:00:00"),
            (lambda c: c.interval("a", timedelta(seconds=-5), jobs.count), "takes a whole number of seconds from 1 up"),
            (lambda c: c.interval("a", timedelta(seconds=1.5), jobs.count), "takes a whole number of seconds from 1 up"),
            (lambda c: c.cron("a", "0 8 * *", jobs.count), "takes five fields"),
            (lambda c: c.cron("a", "0 0 8 * * *", jobs.count), "takes five fields"),
            (lambda c: c.cron("a", "", jobs.count), "takes five fields"),
            (lambda c: c.cron("a", None, jobs.count), "takes five fields"),
            (lambda c: c.cron("a", "60 8 * * *", jobs.count), "which is none (Bad minute)"),
            (lambda c: c.cron("a", "0 24 * * *", jobs.count), "which is none (Bad hour)"),
            (lambda c: c.cron("a", "x 8 * * *", jobs.count), "which is none (Bad minute)"),
            (lambda c: c.cron("a", "*/0 8 * * *", jobs.count), "which is none"),
            (lambda c: c.cron("a", "0 0 31 2 *", jobs.count), "which is none (Bad day-of-month)"),
            (lambda c: c.cron("a", "0 0 31 4,6 *", jobs.count), "which is none (Bad day-of-month)"),
            (lambda c: c.cron("a", "0 8 * * *", jobs.count, timezone="Mars/Olympus"), "takes a time zone such as"),
            (lambda c: c.cron("a", "0 8 * * *", jobs.count, timezone="../etc"), "takes a time zone such as"),
            (lambda c: c.cron("a", "0 8 * * *", jobs.count, timezone=""), "takes a time zone such as"),
            (lambda c: c.hourly("a", jobs.count, minute_utc=60), "takes as minute_utc a number from 0 to 59, not 60"),
            (lambda c: c.daily("a", jobs.count, hour_utc=24), "takes as hour_utc a number from 0 to 23, not 24"),
            (lambda c: c.daily("a", jobs.count, hour_utc=True), "takes as hour_utc a number"),
            (lambda c: c.weekly("a", jobs.count, day_of_week="mo", hour_utc=1), "takes as day_of_week one of sunday"),
            (lambda c: c.monthly("a", jobs.count, day=0, hour_utc=1), "takes as day a number from 1 to 31, not 0"),
            (lambda c: c.cron("", "0 8 * * *", jobs.count), "The name of a cron is"),
            (lambda c: c.cron("ä", "0 8 * * *", jobs.count), "The name of a cron is"),
            (lambda c: c.cron("a\n", "0 8 * * *", jobs.count), "The name of a cron is"),
            (lambda c: c.cron("a" * 65, "0 8 * * *", jobs.count), "The name of a cron is"),
            (lambda c: [c.cron("a", "0 8 * * *", jobs.count) for _ in range(2)], "There are two crons named 'a'"),
            (lambda c: c.cron("a", "0 8 * * *", jobs.traces), "takes a mutation, an action or a path"),
            (lambda c: c.cron("a", "0 8 * * *", print), "takes a mutation, an action or a path"),
        ],
    )
    def test_what_cannot_be_is_refused(self, declare: Callable[[Any], None], why: str) -> None:
        with pytest.raises(CodeError, match=re.escape(why)) as refused:
            declare(Crons())
        assert refused.value.code == "InvalidCron"


@contextlib.asynccontextmanager
async def backend(declare: Callable[[Crons], None], now: datetime = START) -> AsyncIterator[TestBackend]:
    async with TestBackend(APP, now=now) as t:
        await push(t, declare)
        yield t


async def push(t: TestBackend, declare: Callable[[Crons], None]) -> None:
    """Have these be the app's crons, as a push of changed code does."""
    crons = Crons()
    declare(crons)
    runner = t._runner
    found = tuple(cron.found(lambda path: runner.app.registry.find(path, None, internal=True)) for cron in crons)
    runner.app = replace(runner.app, crons=found)
    await reconcile(runner)


async def ran(t: TestBackend) -> list[str]:
    """When the traces were made."""
    traces = await t.run(lambda ctx: ctx.db.query(Trace).collect())
    return [datetime.fromtimestamp(trace.at / 1000, UTC).strftime("%d %H:%M:%S") for trace in traces]


async def cron(t: TestBackend, name: str = "a") -> CronJob:
    found = await t.run(lambda ctx: ctx.db.query(CronJob.by_name(name=name)).unique())
    assert found is not None
    return found


async def job(t: TestBackend, id: Id[ScheduledFunction]) -> ScheduledFunction:
    found = await t.query(jobs.one, id=id)
    assert found is not None
    return found


def every(seconds: int, function: Any = jobs.trace, **args: Any) -> Callable[[Crons], None]:
    return lambda crons: crons.interval("a", timedelta(seconds=seconds), function, **(args or {"key": "k"}))


class TestRunning:
    async def test_an_interval_runs_at_once_and_then_at_exact_multiples(self) -> None:
        async with backend(every(25)) as t:
            assert await ran(t) == []
            await t.advance()
            assert await ran(t) == ["01 00:00:00"]
            await t.advance(seconds=60)
            await t.advance(seconds=15)
            assert await ran(t) == ["01 00:00:00", "01 00:00:25", "01 00:00:50", "01 00:01:15"]

    async def test_by_the_clock(self) -> None:
        async with backend(lambda c: c.cron("a", "30 8 * * *", jobs.trace, key="k")) as t:
            await t.advance(days=2, hours=8, minutes=29)
            assert await ran(t) == ["01 08:30:00", "02 08:30:00"]

    async def test_in_its_time_zone_over_a_change_of_clocks(self) -> None:
        def declare(crons: Crons) -> None:
            crons.cron("a", "0 8 * * *", jobs.trace, timezone="Europe/Berlin", key="k")

        async with backend(declare, datetime(2026, 3, 28, tzinfo=UTC)) as t:
            await t.advance(days=3)
            assert await ran(t) == ["28 07:00:00", "29 06:00:00", "30 06:00:00"]

    async def test_its_last_and_next_runs_are_documents(self) -> None:
        async with backend(every(10)) as t:
            start = START.timestamp() * 1000
            before = await cron(t)
            assert (before.last_run, before.next_run, before.runs) == (None, start, [])
            await t.advance(seconds=95)
            after = await cron(t)
            assert (after.spec, after.function, after.args) == ("every 10 s", "jobs:trace", [{"key": "k"}])
            assert (after.last_run, after.next_run) == (start + 90_000, start + 100_000)
            assert [(await job(t, id)).state.kind for id in after.runs] == ["success"] * 5
            assert [(await job(t, id)).scheduled_time for id in after.runs] == [start + s * 1000 for s in (50, 60, 70, 80, 90)]
            # Older ones are gone: a cron that runs each second would fill the database with them.
            assert len(await t.query(jobs.of_state, kind="success")) == 5

    async def test_one_that_fails_goes_on(self) -> None:
        async with backend(every(60, jobs.fails, text="broken")) as t:
            await t.advance(minutes=2)
            assert [(await job(t, id)).state.error for id in (await cron(t)).runs] == ["ValueError: broken"] * 3

    async def test_one_run_that_is_canceled_is_skipped(self) -> None:
        async with backend(every(60)) as t:
            await t.mutation(jobs.cancel, id=(await cron(t)).job)
            await t.advance(minutes=2)
            assert await ran(t) == ["01 00:01:00", "01 00:02:00"]

    async def test_it_does_not_overlap_itself_and_times_that_come_meanwhile_are_skipped(self, caplog: pytest.LogCaptureFixture) -> None:
        async with backend(every(60, jobs.acts, key="slow")) as t:
            jobs.gates["slow"] = asyncio.Event()
            advancing = asyncio.ensure_future(t.advance())
            await eventually_async(lambda: jobs.effects, "the action to begin")
            t.runtime.advance(timedelta(minutes=5, seconds=1))
            await t._scheduled.turn()
            assert jobs.effects == ["began slow"]
            with caplog.at_level(logging.WARNING):
                jobs.gates["slow"].set()
                await advancing
            assert "Cron 'a' skips its runs from 2026-01-01 00:01:00+00:00 to 2026-01-01 00:06:00+00:00" in caplog.text
            assert jobs.effects == ["began slow", "ended slow"]
            await t.advance(seconds=59)
            assert jobs.effects == ["began slow", "ended slow"] * 2

    async def test_an_action_that_is_canceled_while_it_runs_is_waited_for(self) -> None:
        async with backend(every(60, jobs.acts, key="slow")) as t:
            jobs.gates["slow"] = asyncio.Event()
            advancing = asyncio.ensure_future(t.advance())
            await eventually_async(lambda: jobs.effects, "the action to begin")
            await t.mutation(jobs.cancel, id=(await cron(t)).job)
            t.runtime.advance(timedelta(minutes=1))
            await t._scheduled.turn()
            assert jobs.effects == ["began slow"]
            jobs.gates["slow"].set()
            await advancing
            assert jobs.effects == ["began slow", "ended slow"] * 2, "the second was due by then"

    async def test_a_canceled_action_whose_node_died_ends_no_cron(self) -> None:
        async with backend(every(60, jobs.acts, key="slow")) as t:
            jobs.gates["slow"] = asyncio.Event()
            node = Node(t)
            await node.runs.turn()
            await eventually_async(lambda: jobs.effects, "the action to begin")
            await t.mutation(jobs.cancel, id=(await cron(t)).job)
            node.kill()
            jobs.gates["slow"].set()
            await t.advance(minutes=2)
            assert jobs.effects.count("ended slow") >= 1
            assert (await cron(t)).next_run == START.timestamp() * 1000 + 180_000
            node.bury()

    async def test_times_that_came_while_no_server_ran_give_one_run(self) -> None:
        async with backend(every(60)) as t:
            await t.advance()
            t.runtime.advance(timedelta(minutes=10, seconds=30))
            await t.advance()
            assert await ran(t) == ["01 00:00:00", "01 00:10:30"]
            await t.advance(minutes=1)
            assert await ran(t) == ["01 00:00:00", "01 00:10:30", "01 00:11:00"]

    async def test_functions_cannot_write_it(self) -> None:
        async with backend(every(60)) as t:
            id = (await cron(t)).id
            with pytest.raises(SchemaError, match="reactor's own"):
                await t.run(lambda ctx: ctx.db.delete(id))

    @pytest.mark.parametrize("seed", SEEDS)
    async def test_over_nodes_that_come_and_go_each_time_has_one_run(self, seed: int) -> None:
        chance = random.Random(seed)
        async with backend(every(10)) as t:
            nodes, dead = [Node(t) for _ in range(3)], []
            t.runtime.advance(timedelta(seconds=0.1))  # so that no run comes late at the very moment of the next
            for _ in range(400):
                for node in nodes:
                    if chance.random() < 0.5:
                        node.turn()
                for _ in range(chance.randrange(12)):
                    await asyncio.sleep(0)
                    await t._engine.catch_up()  # takes as long as any statement, where those take time
                if chance.random() < 0.8:
                    await t._engine._committer.drain()  # else the clock is faster than the disk
                t.runtime.advance(timedelta(seconds=chance.choice([0, 0.5, 1])))
                if chance.random() < 0.03:
                    dead.append(nodes.pop(0))
                    dead[-1].kill()
                    nodes.append(Node(t))
            for node in nodes:
                await node.runs.run_due()
            runs = await t.run(lambda ctx: ctx.db.query(Trace).collect())
            assert len(runs) > 5
            # One run for each of its times at most: never two within one interval of the same multiple.
            slots = [(trace.at - START.timestamp() * 1000) // 10_000 for trace in runs]
            assert len(set(slots)) == len(slots)
            for node in (*nodes, *dead):
                node.kill()
                node.bury()


class TestPush:
    async def test_the_same_times_keep_the_next_run(self) -> None:
        async with backend(every(60)) as t:
            await t.advance(seconds=70)
            before = await cron(t)
            await push(t, every(60))
            assert await cron(t) == before

    async def test_another_function_or_other_arguments_keep_the_next_run_too(self) -> None:
        async with backend(every(60)) as t:
            await t.advance(seconds=70)
            next_run = (await cron(t)).next_run
            await push(t, every(60, key="other"))
            assert (await cron(t)).next_run == next_run
            await t.advance(minutes=1)
            assert await t.query(jobs.traces) == ["k", "k", "other"]

    async def test_other_times_begin_anew(self) -> None:
        async with backend(every(3600)) as t:
            await t.advance(seconds=70)
            await push(t, lambda c: c.cron("a", "30 * * * *", jobs.trace, key="k"))
            await t.advance(hours=1)
            assert await ran(t) == ["01 00:00:00", "01 00:30:00"]
            await push(t, every(7))
            await t.advance(seconds=8)
            assert await ran(t) == ["01 00:00:00", "01 00:30:00", "01 01:01:10", "01 01:01:17"]

    async def test_one_that_is_gone_runs_no_more(self) -> None:
        async with backend(every(60)) as t:
            await t.advance()
            waiting = (await cron(t)).job
            await push(t, lambda c: None)
            await t.advance(days=1)
            assert await ran(t) == ["01 00:00:00"]
            assert (await job(t, waiting)).state.kind == "canceled"
            assert await t.run(lambda ctx: ctx.db.query(CronJob).collect()) == []

    async def test_a_run_in_progress_goes_on_and_the_next_is_as_pushed(self) -> None:
        async with backend(every(60, jobs.acts, key="slow")) as t:
            jobs.gates["slow"] = asyncio.Event()
            advancing = asyncio.ensure_future(t.advance())
            await eventually_async(lambda: jobs.effects, "the action to begin")
            await push(t, every(3600))
            assert await ran(t) == []
            jobs.gates["slow"].set()
            await advancing
            assert jobs.effects == ["began slow", "ended slow"]
            assert (await cron(t)).next_run == START.timestamp() * 1000 + 3_600_000

    async def test_a_run_whose_time_is_changed_while_it_waits_for_room_is_not_forgotten(self) -> None:
        async with backend(every(3600), START + timedelta(seconds=58)) as t:
            node = Node(t)
            jobs.gates["long"] = asyncio.Event()  # so that the node keeps its lease
            await t.mutation(jobs.any_of, path="jobs:acts", args={"key": "long"})
            node.runs._slots = asyncio.Semaphore(0)
            await node.runs.turn()
            waiting = node.runs._claimed[(await cron(t)).job]
            await push(t, lambda crons: crons.cron("a", "* * * * *", jobs.trace, key="k"))
            node.runs._slots.release()
            await asyncio.wait([waiting])
            for _ in range(10):
                await node.runs.turn()
                await eventually_async(lambda: len(node.runs._claimed) == 1, "all but the action to end")
                t.runtime.advance(timedelta(seconds=1))
            assert await ran(t) == ["01 00:01:00"]
            jobs.gates["long"].set()
            await asyncio.wait(list(node.runs._claimed.values()))

    async def test_a_run_whose_arguments_are_changed_as_it_begins_runs_with_the_new_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with backend(every(3600)) as t:
            node = Node(t)
            node.runs._slots = asyncio.Semaphore(0)
            await node.runs.turn()
            [waiting] = node.runs._claimed.values()
            begun, mutation = asyncio.Event(), node.runs._runner.mutation

            async def begin(*args: Any, **kwargs: Any) -> Any:
                begun.set()
                return await mutation(*args, **kwargs)

            monkeypatch.setattr(node.runs._runner, "mutation", begin)
            node.pause()
            node.runs._slots.release()
            await begun.wait()
            await push(t, every(3600, key="changed"))
            await node.runs.turn()  # passes over what is claimed
            node.resume()
            await asyncio.wait([waiting])
            await node.runs.run_due()
            assert await t.query(jobs.traces) == ["changed"]

    @pytest.mark.parametrize(
        ("declare", "why"),
        [
            (every(60, "jobs:missing"), "Cron 'a': Could not find"),
            (every(60, "jobs:traces"), "Cron 'a': jobs:traces is a query; a cron calls a mutation or an action"),
            (every(60, jobs.trace, kee="misspelt"), "Cron 'a': jobs:trace was called with arguments that do not fit"),
            (every(60, jobs.trace, key=object()), "Cron 'a': jobs:trace, argument 'key'"),
        ],
    )
    async def test_what_cannot_be_called_is_refused_and_changes_nothing(self, declare: Callable[[Crons], None], why: str) -> None:
        async with backend(every(60)) as t:
            with pytest.raises(CodeError, match=re.escape(why)):
                await push(t, declare)
            await t.advance()
            assert await ran(t) == ["01 00:00:00"]
