"""Live queries run again when what they read has changed, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from reactor import AppError, Id
from reactor.engine.live_query import Subscription
from reactor.testing import TestBackend
from reactor.values import codec
from tests.functions.app.app_functions import calling, items, watching
from tests.functions.app.schema import Item
from tests.functions.support import fill

pytestmark = pytest.mark.anyio

Ids = list[Id[Item]]
Change = Callable[[TestBackend, Ids], Awaitable[Any]]


def insert(list: str, rank: float) -> Change:
    return lambda t, made: t.mutation(items.insert, list=list, rank=rank)


def remove(at: int) -> Change:
    return lambda t, made: t.mutation(items.remove, item=made[at])


def touch(at: int) -> Change:
    return lambda t, made: t.mutation(items.touch, item=made[at])


async def fail(t: TestBackend, made: Ids) -> None:
    with pytest.raises(AppError):
        await t.mutation(calling.fails_after)


#: What is watched, on a list "a" of ranks 1, 3, 5 and a list "b" of rank 9, and whether a change concerns it.
CASES: list[tuple[str, dict[str, Any], Change, bool]] = [
    ("items:ranks", {"list": "a"}, insert("a", 7), True),
    ("items:ranks", {"list": "a"}, remove(1), True),
    ("items:ranks", {"list": "a"}, insert("b", 7), False),
    ("items:ranks", {"list": "a"}, remove(3), False),
    ("items:ranks", {"list": "a"}, touch(0), False),
    ("items:ranks", {"list": "a"}, fail, False),
    ("items:ranks", {"list": "a", "at_least": 4}, insert("a", 4), True),
    ("items:ranks", {"list": "a", "at_least": 4}, insert("a", 3.9), False),
    ("items:ranks", {"list": "c"}, insert("c", 1), True),
    ("items:least", {"list": "a", "count": 2}, insert("a", 2), True),
    ("items:least", {"list": "a", "count": 2}, insert("a", 4), False),
    ("items:least", {"list": "a", "count": 2}, remove(2), False),
    ("items:least", {"list": "a", "count": 9}, insert("a", 99), True),
    ("watching:nested", {"list": "a"}, insert("a", 7), True),
    ("watching:nested", {"list": "a"}, insert("b", 7), False),
    ("watching:until", {"list": "a", "rank": 3}, insert("a", 2), True),
    ("watching:until", {"list": "a", "rank": 3}, insert("a", 4), False),
    ("watching:odd", {}, insert("b", 4), True),
    ("watching:failing", {"list": "a"}, insert("a", 7), True),
    ("watching:failing", {"list": "a"}, insert("b", 7), False),
    ("watching:constant", {}, insert("a", 7), False),
]


@pytest.mark.parametrize(("path", "args", "change", "concerns"), CASES)
async def test_a_result_is_stale_when_what_the_query_read_changed_and_only_then(
    t: TestBackend, path: str, args: dict[str, Any], change: Change, concerns: bool
) -> None:
    made = await fill(t, "a", 1, 3, 5)
    made += await fill(t, "b", 9)
    watcher = Watcher(t, path, args)
    await watcher.read()
    await change(t, made)
    assert watcher.stale == concerns
    before = t._engine.live.runs
    await watcher.read()
    assert t._engine.live.runs - before == concerns
    watcher.close()


class Watcher:
    """Somebody who watches a query and reads its result when asked to."""

    def __init__(self, t: TestBackend, path: str, args: dict[str, Any]) -> None:
        runner, caller, text = t._runner, t._caller(), codec.to_json(args)
        self._engine = t._engine
        self._subscription = t._engine.live.subscribe(runner.live_key(path, text, caller), None, runner.live_run(path, text, caller), self)
        self.stale = False

    def invalidated(self, subscription: Subscription[Any]) -> None:
        self.stale = True

    async def read(self) -> None:
        pin = self._engine.pin()
        result = self._subscription.at(pin)
        if isinstance(result, asyncio.Future):  # over a store whose reads suspend
            await result
        pin.release()
        self.stale = False

    def close(self) -> None:
        self._subscription.close()


@pytest.fixture(autouse=True)
def no_runs() -> None:
    watching.runs.clear()


async def test_a_subscription_gives_each_new_result_after_one_run(t: TestBackend) -> None:
    await fill(t, "a", 1)
    async with aclosing(t.subscribe(watching.counted, list="a")) as results:  # type: ignore[type-var]
        assert await anext(results) == [1]
        await fill(t, "b", 1, 2, 3)
        await fill(t, "a", 2)
        assert await anext(results) == [1, 2]
        assert watching.runs == ["a", "a"], "what was written to another list made no run"
        await t.mutation(watching.shift, list="a", by=10)
        assert await anext(results) == [11, 12]
        assert watching.runs == ["a"] * 3, "one commit makes one run"


async def test_a_run_with_the_same_result_is_not_delivered(t: TestBackend) -> None:
    async with aclosing(t.subscribe(watching.many, list="a")) as results:  # type: ignore[type-var]
        assert await anext(results) is False
        waiting = asyncio.ensure_future(anext(results))
        for rank in range(3):
            await fill(t, "a", rank)
            async with asyncio.timeout(10):  # two commits that come while it runs make one run
                while len(watching.runs) < rank + 2:
                    await asyncio.sleep(0)
        assert await waiting is True
    assert len(watching.runs) == 4


async def test_a_document_that_is_missing_is_watched(t: TestBackend) -> None:
    (item,) = await fill(t, "a", 1)
    async with aclosing(t.subscribe(watching.exists, item=item)) as results:  # type: ignore[type-var]
        assert await anext(results) is True
        await fill(t, "a", 2)
        await t.mutation(items.remove, item=item)
        assert await anext(results) is False
    assert len(watching.runs) == 2


async def test_watchers_share_a_run_unless_the_query_looks_at_who_calls(t: TestBackend) -> None:
    ada, grace = t.with_identity("ada"), t.with_identity("grace")
    for looks, runs in ((False, 1), (True, 2)):
        watching.runs.clear()
        async with aclosing(ada.subscribe(watching.who, looks=looks)) as one:  # type: ignore[type-var]
            async with aclosing(grace.subscribe(watching.who, looks=looks)) as other:  # type: ignore[type-var]
                found = [await anext(one), await anext(other)]
        assert found == (["ada", "grace"] if looks else [None, None])
        assert len(watching.runs) == runs


async def test_a_query_that_fails_is_watched_on(t: TestBackend) -> None:
    await fill(t, "a", 1, 2, 3)
    watcher = Watcher(t, "watching:failing", {"list": "a"})
    await watcher.read()
    await fill(t, "a", 4)
    assert watcher.stale
    with pytest.raises(AppError, match="only 0"):
        async for _ in t.subscribe(watching.failing, list="b"):
            raise AssertionError("it has no result")
    watcher.close()
    assert len(t._engine.live) == 0, "who leaves is forgotten"
