"""``ctx.scheduler``: what is called later, when, and how it ends."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from reactor import (
    AppError,
    ArgumentError,
    FunctionNotFound,
    Id,
    IdError,
    LimitExceeded,
    Limits,
    MutationCtx,
    ScheduledFunction,
    ScheduleError,
    SchemaError,
    WrongFunctionKind,
)
from reactor.functions.pending import Pending
from reactor.functions.registry import Registry
from reactor.testing import TestBackend
from tests.services.app.app_functions import jobs
from tests.services.app.schema import Trace
from tests.services.conftest import APP
from tests.support.examples import examples

pytestmark = pytest.mark.anyio

SECOND_MS = 1000.0
DAY_S = 86_400.0


async def state(t: TestBackend, id: Id[ScheduledFunction]) -> str:
    job = await t.query(jobs.one, id=id)
    assert job is not None
    return job.state.kind


async def ended(t: TestBackend, path: str, **args: Any) -> ScheduledFunction:
    """Schedule it, run it, and give how it ended."""
    id = await t.mutation(jobs.any_of, path=path, args=args)
    await t.advance()
    job = await t.query(jobs.one, id=id)
    assert job is not None
    return job


class TestTime:
    async def test_nothing_runs_before_the_clock_is_moved(self, t: TestBackend) -> None:
        for _ in range(20):  # a server begins what is due at the next commit
            await t.mutation(jobs.later, key="now")
        assert await t.query(jobs.traces) == []
        await t.advance()
        assert await t.query(jobs.traces) == ["now"] * 20

    async def test_each_runs_at_its_own_time_whatever_the_order_of_scheduling(self, t: TestBackend) -> None:
        start = t.runtime.now_ns() / 1e6
        for seconds in (3600.0, 1.0, 0.25, 60.0):
            await t.mutation(jobs.later, key=f"{seconds}", seconds=seconds)
        await t.advance(minutes=30)
        assert [round(at - start, 3) for at in await t.query(jobs.times)] == [250, 1000, 60_000]
        await t.advance(minutes=30)
        assert [round(at - start, 3) for at in await t.query(jobs.times)] == [250, 1000, 60_000, 3_600_000]
        assert t.runtime.now_ns() / 1e6 == start + 3_600_000

    async def test_what_a_scheduled_function_schedules_runs_on_the_way_too(self, t: TestBackend) -> None:
        start = t.runtime.now_ns() / 1e6
        await t.mutation(jobs.any_of, path="jobs:chain", args={"left": 5, "seconds": 10.0}, seconds=10)
        await t.advance(seconds=45)
        assert [round(at - start) for at in await t.query(jobs.times)] == [10_000, 20_000, 30_000, 40_000]
        await t.advance(hours=1)
        assert await t.query(jobs.traces) == ["0", "1", "2", "3", "4", "5"]

    async def test_run_at_takes_a_time_of_any_zone(self, t: TestBackend) -> None:
        start = t.runtime.now_ns() // 1_000_000

        async def schedule(ctx: MutationCtx) -> None:
            moment = datetime.fromtimestamp(start / 1000, UTC)
            for hours in (1, -5, 13):
                there = (moment + timedelta(minutes=hours + 6)).astimezone(timezone(timedelta(hours=hours, minutes=30)))
                await ctx.scheduler.run_at(there, jobs.trace, key=f"{hours}")

        await t.run(schedule)
        await t.advance(hours=1)
        assert [round(at - start) for at in await t.query(jobs.times)] == [60_000, 7 * 60_000, 19 * 60_000]

    async def test_a_time_that_has_passed_means_at_once_and_is_kept_as_it_was_asked_for(self, t: TestBackend) -> None:
        now = t.runtime.now_ns() / 1e6
        id = await t.mutation(jobs.at, key="late", time_ms=now - 5000)
        await t.advance()
        job = await t.query(jobs.one, id=id)
        assert job is not None and (job.scheduled_time, job.completed_time, job.state.kind) == (now - 5000, now, "success")

    @pytest.mark.parametrize(
        ("delay", "why"),
        [
            (timedelta(seconds=-1), "not negative"),
            (timedelta(microseconds=-1), "not negative"),
            (timedelta.min, "not negative"),
            (5, "run_after takes a timedelta, not int"),
            (0.5, "run_after takes a timedelta, not float"),
            (None, "run_after takes a timedelta, not NoneType"),
            (timedelta(days=5 * 365, seconds=1), "cannot be scheduled more than 1825 days from now: after 1825 days, 0:00:01"),
            (timedelta.max, "cannot be scheduled more than 1825 days from now"),
        ],
    )
    async def test_a_delay_that_is_none_is_refused(self, t: TestBackend, delay: Any, why: str) -> None:
        await self.refused(t, lambda ctx: ctx.scheduler.run_after(delay, jobs.trace, key="never"), why)

    @pytest.mark.parametrize(
        ("time", "why"),
        [
            (datetime(2026, 1, 1), "run_at takes a datetime with a time zone"),
            (datetime(2031, 1, 1, tzinfo=UTC), "cannot be scheduled more than 1825 days from now: for 2031-01-01"),
            (datetime(2020, 12, 31, tzinfo=UTC), "cannot be scheduled more than 1825 days from now"),
            (datetime.min.replace(tzinfo=UTC), "cannot be scheduled more than 1825 days from now"),
            (datetime.max.replace(tzinfo=UTC), "cannot be scheduled more than 1825 days from now"),
            (1_767_225_600_000, "run_at takes a datetime, not int"),
            ("2026-01-01", "run_at takes a datetime, not str"),
        ],
    )
    async def test_a_time_that_is_none_is_refused(self, t: TestBackend, time: Any, why: str) -> None:
        await self.refused(t, lambda ctx: ctx.scheduler.run_at(time, jobs.trace, key="never"), why)

    async def refused(self, t: TestBackend, schedule: Callable[[MutationCtx], Awaitable[Any]], why: str) -> None:
        with pytest.raises(ScheduleError, match=re.escape(why)) as raised:
            await t.run(schedule)
        assert raised.value.code == "InvalidScheduledFunctionDelay"
        assert await t.query(jobs.of_state, kind="pending") == []


class TestScheduling:
    async def test_it_is_part_of_the_transaction_and_seen_in_it(self, t: TestBackend) -> None:
        async def schedule(ctx: MutationCtx) -> None:
            id = await ctx.scheduler.run_after(timedelta(seconds=1), jobs.trace, "key")
            job = await ctx.db.get(id)
            assert job is not None and (job.name, job.args, job.state.kind) == ("jobs:trace", [{"key": "key"}], "pending")
            assert (job.scheduled_time, job.completed_time, job.state.error) == (ctx.now + 1000, None, None)
            assert await ctx.db.query(ScheduledFunction.by_state(state__kind="pending")).collect() == [job]

        await t.run(schedule)

    async def test_a_mutation_that_fails_has_scheduled_nothing(self, t: TestBackend) -> None:
        with pytest.raises(AppError):
            await t.mutation(jobs.later_and_fail, key="never")
        await t.advance(days=1)
        assert await t.query(jobs.traces) == []

    async def test_a_nested_mutation_that_fails_has_scheduled_nothing_and_its_caller_has(self, t: TestBackend) -> None:
        assert await t.mutation(jobs.nested_failure) == 1
        await t.advance()
        assert await t.query(jobs.traces) == ["kept"]

    async def test_an_action_that_fails_has_scheduled_all_the_same(self, t: TestBackend) -> None:
        with pytest.raises(AppError, match="too late"):
            await t.action(jobs.schedules_and_fails, key="kept")
        await t.advance()
        assert await t.query(jobs.traces) == ["kept"]

    async def test_subscribers_see_each_state(self, t: TestBackend) -> None:
        id = await t.mutation(jobs.later, key="seen", seconds=1)
        seen = t.subscribe(jobs.one, id=id)
        job = await anext(seen)
        assert job is not None and job.state.kind == "pending"
        await t.advance(seconds=1)
        job = await anext(seen)
        assert job is not None and job.state.kind == "success"

    async def test_on_the_wire_it_has_the_names_that_clients_know(self, t: TestBackend) -> None:
        id = await t.mutation(jobs.later, key="wire")
        await t.advance()
        wire = await t.query("jobs:one", id=id)
        assert wire.keys() == {"_id", "_creationTime", "name", "args", "scheduledTime", "completedTime", "state"}
        assert (wire["name"], wire["args"], wire["state"]) == ("jobs:trace", [{"key": "wire"}], {"kind": "success"})

    @pytest.mark.parametrize(
        ("path", "error"),
        [
            ("jobs:missing", FunctionNotFound),
            ("no path", FunctionNotFound),
            ("", FunctionNotFound),
            ("jobs:traces", WrongFunctionKind),
        ],
    )
    async def test_the_function_has_to_be_there_and_no_query(self, t: TestBackend, path: str, error: type[Exception]) -> None:
        with pytest.raises(error):
            await t.mutation(jobs.any_of, path=path, args={})

    async def test_arguments_have_to_be_values(self, t: TestBackend) -> None:
        for wrong in (object(), {1: 2}, "\ud800", 2**60):
            with pytest.raises(ArgumentError, match="jobs:trace"):
                await t.run(lambda ctx, wrong=wrong: ctx.scheduler.run_after(timedelta(), jobs.trace, key=wrong))  # type: ignore[misc]

    async def test_too_many_positional_arguments_are_refused(self, t: TestBackend) -> None:
        with pytest.raises(ArgumentError, match="jobs:trace takes 1 arguments, 2 were given"):
            await t.run(lambda ctx: ctx.scheduler.run_after(timedelta(), jobs.trace, "a", "b"))  # type: ignore[call-arg]

    async def test_arguments_that_do_not_fit_are_found_when_it_runs(self, t: TestBackend) -> None:
        job = await ended(t, "jobs:trace", kee="misspelt")
        assert job.state.kind == "failed" and job.state.error is not None
        assert job.state.error.startswith("ArgumentError: jobs:trace was called with arguments that do not fit.")

    async def test_a_function_may_schedule_only_so_many(self, anyio_backend: str) -> None:
        async with TestBackend(APP, limits=Limits(functions_scheduled=10)) as t:
            await t.mutation(jobs.many, count=10)
            for call in (t.mutation(jobs.many, count=11), t.action(jobs.schedules_many, count=11)):
                with pytest.raises(LimitExceeded, match="schedules at most 10 functions") as raised:
                    await call
                assert raised.value.code == "TooManyFunctionsScheduled"

    async def test_only_so_many_may_wait_and_one_more_is_refused_until_some_have_run(self, anyio_backend: str) -> None:
        async with TestBackend(APP, limits=Limits(functions_pending=10)) as t:
            await t.mutation(jobs.many, count=8)
            with pytest.raises(LimitExceeded):
                await t.mutation(jobs.many, count=3)
            await t.mutation(jobs.many, count=2)
            for call in (t.mutation(jobs.later, key="one more"), t.action(jobs.schedules_many, count=1)):
                with pytest.raises(LimitExceeded, match="scheduled functions wait to begin, at most 10 may") as raised:
                    await call
                assert raised.value.code == "TooManyFunctionsPending"
            await t.advance()
            id = await t.mutation(jobs.later, key="later", seconds=9)
            await t.mutation(jobs.many, count=9)
            await t.mutation(jobs.cancel, id=id)
            await t.mutation(jobs.later, key="instead", seconds=9)
            with pytest.raises(LimitExceeded):
                await t.mutation(jobs.later, key="too many")
            assert t._runner.pending.count == 10

    async def test_what_waits_is_counted_when_a_node_starts_without_reading_it(self, t: TestBackend) -> None:
        await t.mutation(jobs.many, count=300)
        await t.mutation(jobs.later, key="run")
        await t.advance()
        await t.mutation(jobs.many, count=250)
        pending = Pending(t._engine, 1000)
        await pending.load()
        await t.mutation(jobs.many, count=7)
        assert pending.count == t._runner.pending.count == 257

    async def test_arguments_may_be_only_so_large(self, t: TestBackend) -> None:
        most = 4 * 1024 * 1024
        for length in (most - len('{"key":""}'), most):
            call = t.mutation(jobs.later, key="x" * length)
            if length == most:
                with pytest.raises(LimitExceeded, match="at most 4194304 fit") as raised:
                    await call
                assert raised.value.code == "ScheduledFunctionsArgumentsTooLarge"
            else:
                await call

    @pytest.mark.parametrize("write", ["insert", "patch", "replace", "delete"])
    async def test_functions_cannot_write_it(self, t: TestBackend, write: str) -> None:
        id = await t.mutation(jobs.later, key="kept", seconds=1)

        async def run(ctx: MutationCtx) -> None:
            job = await ctx.db.get(id)
            assert job is not None
            writes: dict[str, Any] = {"insert": (job,), "patch": (id,), "replace": (id, job), "delete": (id,)}
            await getattr(ctx.db, write)(*writes[write])

        with pytest.raises(SchemaError, match="reactor's own"):
            await t.run(run)


class TestEnd:
    async def test_a_mutation_and_its_end_are_one_commit(self, t: TestBackend) -> None:
        id = await t.mutation(jobs.later, key="done", seconds=2)
        now = t.runtime.now_ns() / 1e6
        await t.advance(seconds=5)
        job = await t.query(jobs.one, id=id)
        assert job is not None and (job.state.kind, job.completed_time) == ("success", now + 2000)
        entries = await t._engine._store.log_after(0)  # type: ignore[arg-type]
        tables = [{write.table for write in entry.writes} for entry in entries]
        assert {"_scheduled_functions", "traces"} in tables and {"traces"} not in tables

    async def test_a_mutation_that_fails_has_written_nothing_but_that(self, t: TestBackend) -> None:
        job = await ended(t, "jobs:fails", text="broken")
        assert (job.state.kind, job.state.error) == ("failed", "ValueError: broken")
        assert await t.query(jobs.traces) == []

    async def test_an_application_error_is_shown_as_its_data(self, t: TestBackend) -> None:
        assert (await ended(t, "jobs:fails_on_purpose")).state.error == "not today"

    async def test_an_action_is_in_progress_until_it_ends(self, t: TestBackend) -> None:
        jobs.gates["slow"] = asyncio.Event()
        id = await t.mutation(jobs.any_of, path="jobs:acts", args={"key": "slow"})
        advancing = asyncio.ensure_future(t.advance())
        states = t.subscribe(jobs.one, id=id)
        async for job in states:
            assert job is not None
            if job.state.kind == "inProgress":
                assert job.completed_time is None
                jobs.gates["slow"].set()
            if job.state.kind == "success":
                break
        await advancing
        assert jobs.effects == ["began slow", "ended slow"]

    async def test_an_action_that_fails_says_why_whatever_its_text(self, t: TestBackend) -> None:
        assert (await ended(t, "jobs:fails_acting")).state.error == "ValueError: boom ?"

    async def test_nobody_is_signed_in(self, t: TestBackend) -> None:
        await t.with_identity(subject="alice").mutation(jobs.any_of, path="jobs:who", args={})
        await t.advance()
        assert await t.query(jobs.traces) == ["nobody"]

    async def test_a_function_that_is_gone_when_it_is_due_has_failed(self, t: TestBackend) -> None:
        id = await t.mutation(jobs.later, key="never", seconds=1)
        app = t._runner.app
        left = Registry(function for function in app.registry if function.path != "jobs:trace")
        t._runner.app = replace(app, registry=left)
        await t.advance(seconds=1)
        job = await t.query(jobs.one, id=id)
        assert job is not None and job.state.kind == "failed"
        assert job.state.error is not None and job.state.error.startswith("FunctionNotFound: Could not find")

    async def test_a_mutation_may_write_as_much_as_one_that_is_called(self, anyio_backend: str) -> None:
        async with TestBackend(APP, limits=Limits(documents_written=50)) as t:
            assert (await ended(t, "jobs:writes", documents=50)).state.kind == "success"
            assert (await ended(t, "jobs:writes", documents=51)).state.kind == "failed"

    async def test_many_on_one_document_all_take_effect(self, t: TestBackend) -> None:
        for _ in range(100):
            await t.mutation(jobs.any_of, path="jobs:count", args={})
        await t.advance()
        counter = await t.run(lambda ctx: ctx.db.query(jobs.Counter).unique())
        assert counter is not None and counter.count == 100

    async def test_it_is_kept_for_seven_days_after_its_end(self, t: TestBackend) -> None:
        id = await t.mutation(jobs.later, key="kept", seconds=3 * DAY_S)
        await t.mutation(jobs.many, count=300)
        await t.advance(days=3)
        await t.advance(days=6, hours=23)
        assert await t.query(jobs.one, id=id) is not None
        assert [job.id for job in await t.query(jobs.of_state, kind="success")] == [id]
        await t.advance(hours=2)
        assert await t.query(jobs.one, id=id) is None


class TestCancel:
    async def test_what_is_pending_never_runs(self, t: TestBackend) -> None:
        id = await t.mutation(jobs.later, key="never", seconds=1)
        now = t.runtime.now_ns() / 1e6
        await t.mutation(jobs.cancel, id=id)
        await t.advance(days=1)
        job = await t.query(jobs.one, id=id)
        assert job is not None and (job.state.kind, job.completed_time) == ("canceled", now)
        assert await t.query(jobs.traces) == []

    async def test_from_an_action(self, t: TestBackend) -> None:
        id = await t.mutation(jobs.later, key="never", seconds=1)
        await t.action(jobs.cancels_from_action, id=id)
        assert await state(t, id) == "canceled"

    @pytest.mark.parametrize("kind", ["success", "failed", "canceled", "trimmed"])
    async def test_of_what_has_ended_does_nothing(self, t: TestBackend, kind: str) -> None:
        path, args = ("jobs:fails", {"text": ""}) if kind == "failed" else ("jobs:trace", {"key": "ran"})
        id = await t.mutation(jobs.any_of, path=path, args=args)
        if kind == "canceled":
            await t.mutation(jobs.cancel, id=id)
        await t.advance()
        if kind == "trimmed":
            await t.advance(days=8)
        before = await t.query(jobs.one, id=id)
        assert (before.state.kind if before else "trimmed") == kind
        await t.advance(seconds=1)
        await t.mutation(jobs.cancel, id=id)
        assert await t.query(jobs.one, id=id) == before

    async def test_of_an_id_of_another_table_is_an_error(self, t: TestBackend) -> None:
        other: Any = await t.run(lambda ctx: ctx.db.insert(Trace(key="other", at=0)))
        for id, why in ((other, "Expected an id of table '_scheduled_functions', got an id of table 'traces'"), ("x", "is not an id")):
            with pytest.raises(IdError, match=re.escape(why)):
                await t.run(lambda ctx, id=id: ctx.scheduler.cancel(id))  # type: ignore[misc]

    async def test_of_itself_is_an_error_for_a_mutation(self, t: TestBackend) -> None:
        job = await ended(t, "jobs:cancels", of="jobs:cancels")
        assert job.state.error == "ScheduleError: A scheduled mutation cannot cancel itself. Return, or raise."

    async def test_what_a_mutation_scheduled_and_canceled_never_runs(self, t: TestBackend) -> None:
        async def both(ctx: MutationCtx) -> None:
            await ctx.scheduler.cancel(await ctx.scheduler.run_after(timedelta(), jobs.trace, key="never"))

        await t.run(both)
        await t.advance()
        assert await t.query(jobs.traces) == []

    async def test_a_running_action_goes_on_and_what_it_schedules_from_then_on_never_runs(self, t: TestBackend) -> None:
        jobs.gates["running"] = asyncio.Event()
        id = await t.mutation(jobs.any_of, path="jobs:acts_then_schedules", args={"key": "running"})
        advancing = asyncio.ensure_future(t.advance())
        async for job in t.subscribe(jobs.one, id=id):
            assert job is not None
            if job.state.kind == "inProgress":
                break
        await t.mutation(jobs.cancel, id=id)
        assert await state(t, id) == "canceled"
        jobs.gates["running"].set()
        await advancing
        await t.advance(days=1)
        assert await state(t, id) == "canceled"
        assert [job.args for job in await t.query(jobs.of_state, kind="canceled") if job.id != id] == [
            [{"key": "running itself"}],
            [{"key": "running by a mutation"}],
        ]
        assert await t.query(jobs.traces) == []


@pytest.mark.parametrize("seed", range(examples(6, 200)))
async def test_random_schedules_run_once_each_at_their_time_in_order(seed: int, anyio_backend: str) -> None:
    """Against a model: a list of (time, key), some of them canceled before they are due."""
    chance = random.Random(seed)
    async with TestBackend(APP) as t:
        start = t.runtime.now_ns() / 1e6
        model: dict[str, float] = {}
        waiting: dict[str, Id[ScheduledFunction]] = {}
        passed_s = 0.0
        for step in range(60):
            match chance.choice(["later", "later", "cancel", "advance"]):
                case "later":
                    seconds = chance.choice([0, 0, 0.001, 1, 7.5, 60, 3600])
                    key = f"{step:03d}"
                    waiting[key] = await t.mutation(jobs.later, key=key, seconds=seconds)
                    model[key] = passed_s + seconds
                case "cancel" if waiting:
                    key = chance.choice(sorted(waiting))
                    await t.mutation(jobs.cancel, id=waiting.pop(key))
                    del model[key]
                case "advance":
                    seconds = chance.choice([0, 0.5, 5, 600])
                    await t.advance(seconds=seconds)
                    passed_s += seconds
                    waiting = {key: id for key, id in waiting.items() if model[key] > passed_s}
        await t.advance(hours=2)
        ran = await t.run(lambda ctx: ctx.db.query(Trace).collect())
        assert {trace.key: round((trace.at - start) / 1000, 6) for trace in ran} == {key: round(at, 6) for key, at in model.items()}
        assert len(ran) == len(model)
        assert [trace.at for trace in ran] == sorted(trace.at for trace in ran)
