"""Work that goes on without a task as long as it can."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from reactor.engine.eager import Brief, Kept

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("no store")]


class Work:
    """Waits for one thing after another, and notes in which task it was given what."""

    def __init__(self, *waits: Awaitable[Any]) -> None:
        self.waits = waits
        self.seen: list[tuple[object, bool]] = []

    async def run(self) -> None:
        for wait in self.waits:
            try:
                given = await wait
            except ValueError as error:
                given = str(error)
            except asyncio.CancelledError:
                self.seen.append(("cancelled", asyncio.current_task() is not None))
                raise
            self.seen.append((given, asyncio.current_task() is not None))


async def turns(until: Callable[[], object]) -> None:
    for _ in range(20):
        if until():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not go on")


def started(work: Work) -> Kept:
    """Begun, and its first step taken, in a callback: where no task is."""
    kept = Kept()
    asyncio.get_running_loop().call_soon(kept.start, work.run())
    return kept


async def test_what_waits_for_brief_futures_that_succeed_is_never_a_task() -> None:
    first, second = Brief[int](), Brief[int]()
    work = Work(first, second)
    kept = started(work)
    await asyncio.sleep(0)
    first.set_result(1)
    await turns(lambda: work.seen)
    second.set_result(2)
    await turns(lambda: len(work.seen) == 2)
    assert work.seen == [(1, False), (2, False)]
    assert kept.tasks() == set()


async def test_it_is_a_task_from_the_first_failure_on() -> None:
    first, second = Brief[int](), Brief[int]()
    work = Work(first, second)
    kept = started(work)
    await asyncio.sleep(0)
    first.set_exception(ValueError("no"))
    await turns(lambda: work.seen)
    second.set_result(2)
    await turns(lambda: len(work.seen) == 2)
    assert work.seen == [("no", True), (2, True)]
    await turns(lambda: not kept.tasks())


async def test_it_is_a_task_from_when_it_waits_for_anything_else() -> None:
    first = Brief[int]()
    work = Work(first, asyncio.sleep(0, "slept"))
    kept = started(work)
    await asyncio.sleep(0)
    first.set_result(1)
    await turns(lambda: len(work.seen) == 2)
    assert work.seen == [(1, False), ("slept", True)]
    await turns(lambda: not kept.tasks())


@pytest.mark.parametrize("late", [False, True])
async def test_whoever_asks_for_all_of_it_gets_tasks_that_end(late: bool) -> None:
    first = Brief[int]()
    work = Work(first)
    kept = started(work)
    await asyncio.sleep(0)
    if late:
        first.set_result(1)  # it is to be called back in the next turn
    [task] = kept.tasks()
    if not late:
        first.set_result(1)
    await task
    assert work.seen == [(1, True)]
    await turns(lambda: not kept.tasks())


async def test_it_can_be_cancelled() -> None:
    work = Work(Brief[int]())
    kept = started(work)
    await asyncio.sleep(0)
    [task] = kept.tasks()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert work.seen == [("cancelled", True)]
