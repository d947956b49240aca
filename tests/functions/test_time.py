"""Functions that compute, wait or live on for too long."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from reactor import FunctionTimeout, Limits, ReactorError
from reactor.engine.eager import Kept
from reactor.engine.store import Row
from reactor.functions.outcome import Outcome
from reactor.stores.sqlite_snapshots import SqliteSnapshot
from reactor.testing import TestBackend
from reactor.values import codec
from tests.functions.app.app_functions import busy, items
from tests.functions.app.schema import Item
from tests.functions.support import APP, call, fill, ranks

pytestmark = pytest.mark.anyio

LIMITS = Limits(function_time_s=0.1, function_wait_s=0.2, action_time_s=1.0)


@pytest.fixture
async def quick(anyio_backend: str) -> AsyncIterator[TestBackend]:
    async with TestBackend(APP, limits=LIMITS) as backend:
        yield backend


@pytest.fixture(scope="module", autouse=True)
def small_heap() -> Iterator[None]:
    """A collection of all that the tests before have left takes longer than a function may here, whichever it falls into."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    for name in ("began", "go", "task"):
        busy.events[name] = asyncio.Event()
    yield
    busy.tasks.clear()
    busy.contexts.clear()


async def refused(call: Awaitable[Any], text: str) -> FunctionTimeout:
    """The call times out soon."""
    began = time.monotonic()
    with pytest.raises(FunctionTimeout, match=text) as raised:
        async with asyncio.timeout(10):
            await call
    assert time.monotonic() - began < 5
    assert raised.value.code == "FunctionTimeout"
    return raised.value


@pytest.mark.parametrize(
    ("path", "args"),
    [
        ("writes_and_loops", {}),
        ("swallows", {"what": "Exception"}),
        ("swallows", {"what": "BaseException"}),
        ("swallows_often", {}),
        ("loops_nested", {}),
    ],
)
async def test_a_mutation_that_computes_too_long_is_interrupted_and_writes_nothing(
    quick: TestBackend, path: str, args: dict[str, Any]
) -> None:
    error = await refused(quick.mutation(f"busy:{path}", **args), rf"timed out \(maximum duration: 0.1s\): busy:{path}")
    assert "move the computation to an action" in error.message
    assert await ranks(quick) == [], "others still answer"
    await fill(quick, "a", 2)
    assert await ranks(quick) == [2]


@pytest.mark.parametrize("path", ["loops", "loops_in_filter", "loops_in_task", "turns"])
async def test_a_query_that_computes_too_long_is_interrupted(quick: TestBackend, path: str) -> None:
    await fill(quick, "a", 1)
    await refused(quick.query(f"busy:{path}"), "maximum duration: 0.1s")
    assert await ranks(quick) == [1]


@pytest.mark.parametrize("way", busy.WAITS)
async def test_waiting_for_what_does_not_come_ends_with_nothing_written(quick: TestBackend, way: str) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(FunctionTimeout, match=r"waited 0.2s\): busy:waits .* Await only ctx calls"):
            await quick.mutation(busy.waits, way=way)
    assert await ranks(quick) == []


async def test_waiting_for_a_slow_database_is_not_the_functions_fault(quick: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(quick, "a", 1)
    quick._engine._committer.cache.clear(quick._engine._committer.position)
    real, answers = SqliteSnapshot.scan, asyncio.Event()

    async def slow(self: SqliteSnapshot, *args: Any, **kwargs: Any) -> list[Row]:
        await answers.wait()
        return await real(self, *args, **kwargs)

    monkeypatch.setattr(SqliteSnapshot, "scan", slow)
    asyncio.get_running_loop().call_later(3 * LIMITS.function_wait_s, answers.set)
    assert await ranks(quick) == [1]


async def test_a_function_that_cannot_be_told_anything_is_given_up(quick: TestBackend) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(FunctionTimeout, match="waited"):
            await quick.mutation(busy.is_deaf)
    busy.events["go"].set()
    assert await ranks(quick) == []


async def test_others_answer_while_a_function_waits(t: TestBackend) -> None:
    waiting = asyncio.ensure_future(t.query(busy.waits_for, event="go"))
    await busy.events["began"].wait()
    await fill(t, "a", 1)
    assert await ranks(t) == [1]
    assert not waiting.done()
    busy.events["go"].set()
    assert await waiting == "ended"


async def test_a_function_that_is_cancelled_leaves_nothing_behind(t: TestBackend) -> None:
    waiting = asyncio.ensure_future(t.mutation(busy.waits, way="gathered"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await ranks(t) == []
    await fill(t, "a", 2)
    assert await ranks(t) == [2]


async def test_an_action_may_take_longer_than_a_query_and_others_write_meanwhile(quick: TestBackend) -> None:
    acting = asyncio.ensure_future(quick.action(busy.acts_on, event="go"))
    await busy.events["began"].wait()
    await fill(quick, "a", 1)
    busy.events["go"].set()
    assert await acting == [1], "it sees what was committed since it began"


async def test_an_action_has_a_limit_too(quick: TestBackend) -> None:
    error = await refused(quick.action(busy.acts_forever), r"maximum duration: 1s\): busy:acts_forever")
    assert "Split it" in error.message


GROUPS = [
    ("query", "reads_in_a_group", "TaskGroup"),
    ("mutation", "writes_in_a_group", "TaskGroup"),
    ("query", "reads_in_time", "TimeoutError"),
    ("query", "reads_for_a_while", "TimeoutError"),
]


@pytest.mark.parametrize(("kind", "path", "failure"), GROUPS)
@pytest.mark.parametrize("task", ["the caller's", "none"])
async def test_a_function_may_have_task_groups_and_timeouts(t: TestBackend, kind: Any, path: str, failure: str, task: str) -> None:
    async def outcome(breaking: bool) -> Outcome:
        if task == "the caller's":
            return await call(t, kind, f"busy:{path}", breaking=breaking)
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            ended.set_result(await call(t, kind, f"busy:{path}", breaking=breaking))

        kept = Kept()
        asyncio.get_running_loop().call_soon(kept.start, run())  # as a connection does
        async with asyncio.timeout(5):
            return await ended

    await fill(t, "b", 1)
    assert codec.from_json((await outcome(breaking=False)).value) == [1 + (kind == "mutation")] * 2
    error = (await outcome(breaking=True)).error
    assert error is not None and failure in error.message


@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_does_not_outlive_its_function(t: TestBackend, fails: bool) -> None:
    call = t.mutation(busy.leaves_task, fails=fails)
    if fails:
        with pytest.raises(Exception, match="failed"):
            await call
    else:
        await call
    assert busy.events["task"].is_set(), "the task began"
    busy.events["go"].set()
    (task,) = busy.tasks
    await asyncio.wait([task])
    assert task.cancelled()
    assert await ranks(t) == ([] if fails else [1])


async def test_a_task_that_will_not_be_cancelled_is_ended_all_the_same(t: TestBackend) -> None:
    async with asyncio.timeout(5):
        await t.mutation(busy.leaves_stubborn_task)
    (task,) = busy.tasks
    assert task.done()
    assert await ranks(t) == [1]


async def test_a_ctx_is_of_no_use_after_its_function_ended(t: TestBackend) -> None:
    (item,) = await fill(t, "a", 1)
    await t.mutation(busy.leaks)
    (ctx,) = busy.contexts
    uses: list[Callable[[], Awaitable[Any]]] = [
        lambda: ctx.db.get(item),
        lambda: ctx.db.query(Item).collect(),
        lambda: ctx.db.insert(Item(list="a", rank=2)),
        lambda: ctx.db.patch(item, rank=2),
        lambda: ctx.db.delete(item),
        lambda: ctx.run_query(items.ranks, list="a"),
        lambda: ctx.run_mutation(items.insert, list="a", rank=2),
    ]
    for use in uses:
        with pytest.raises(ReactorError, match="The function that this ctx belongs to has ended") as closed:
            await use()
        assert closed.value.code == "TransactionClosed"
    assert await ranks(t) == [1]


async def test_what_a_failed_nested_call_left_behind_does_not_write(t: TestBackend) -> None:
    await t.mutation(busy.nested_leaks)
    assert await ranks(t) == []
