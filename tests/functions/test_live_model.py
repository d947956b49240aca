"""After any commits a live query gives what it would give anew, and it ran again only when a commit wrote inside what it read."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reactor import Id, MutationCtx
from reactor.engine.live_query import Subscription
from reactor.functions.outcome import Outcome
from reactor.testing import TestBackend
from reactor.values import codec
from tests.functions.app.schema import Item
from tests.functions.support import APP
from tests.support.examples import examples

RANKS = range(6)
Key = tuple[str, float, int]  # list, rank, and the number of the insert, which orders documents of one rank


@dataclass(frozen=True)
class Window:
    """The arguments of ``watching:window``, and what a model of the index says of them."""

    list: str
    low: float
    high: float
    count: int
    descending: bool

    def inside(self, keys: set[Key]) -> list[Key]:
        return sorted((key for key in keys if key[0] == self.list and self.low <= key[1] < self.high), reverse=self.descending)

    def result(self, keys: set[Key]) -> list[float]:
        return [rank for _, rank, _ in self.inside(keys)[: self.count]]

    def read(self, keys: set[Key], key: Key) -> bool:
        """Whether a run over ``keys`` looked at the place of ``key``: up to the last one returned, or all if there were too few."""
        if not self.inside({key}):
            return False
        found = self.inside(keys)
        if self.count == 0:
            return False
        if len(found) < self.count:
            return True
        last = found[self.count - 1]
        return key >= last if self.descending else key <= last


ranks = st.sampled_from(RANKS).map(float)
windows = st.builds(Window, st.sampled_from("ab"), ranks, ranks, st.integers(0, 4), st.booleans())
#: Insert into a list, move or delete what was inserted as the n-th, several in a commit.
writes = st.one_of(
    st.tuples(st.just("insert"), st.sampled_from("ab"), ranks),
    st.tuples(st.just("move"), st.integers(0, 20), ranks),
    st.tuples(st.just("delete"), st.integers(0, 20), st.just(0.0)),
)
commits = st.lists(st.lists(writes, min_size=1, max_size=3), max_size=8)


class Watcher:
    def __init__(self, t: TestBackend, window: Window) -> None:
        self.window = window
        self._engine = t._engine
        args = codec.to_json({name: getattr(window, name) for name in ("list", "low", "high", "count", "descending")})
        runner, caller, path = t._runner, t._caller(), "watching:window"
        self._subscription = t._engine.live.subscribe(runner.live_key(path, args, caller), None, runner.live_run(path, args, caller), self)

    def invalidated(self, subscription: Subscription[Outcome]) -> None:
        """Read below after every commit."""

    async def read(self) -> tuple[object, int]:
        """The result, and how many runs it took."""
        before = self._engine.live.runs
        pin = self._engine.pin()
        result = self._subscription.at(pin)
        outcome = await result if isinstance(result, asyncio.Future) else result
        pin.release()
        assert isinstance(outcome, Outcome)
        assert outcome.error is None
        return codec.from_json(outcome.value), self._engine.live.runs - before

    def close(self) -> None:
        self._subscription.close()


class Table:
    """The items, and a model of them."""

    def __init__(self) -> None:
        self.ids: list[Id[Item]] = []
        self.now: dict[int, Key] = {}

    async def write(self, ctx: MutationCtx, kind: str, where: str | int, rank: float) -> set[Key]:
        """Apply one write; the keys that it touches."""
        if kind == "insert":
            assert isinstance(where, str)
            number = len(self.ids)
            self.ids.append(await ctx.db.insert(Item(list=where, rank=rank)))
            self.now[number] = (where, rank, number)
            return {self.now[number]}
        assert isinstance(where, int)
        before = self.now.get(where)
        if before is None:
            return set()
        if kind == "delete":
            await ctx.db.delete(self.ids[where])
            del self.now[where]
            return {before}
        await ctx.db.patch(self.ids[where], rank=rank)
        self.now[where] = (before[0], rank, where)
        return {before, self.now[where]}


async def check(watched: list[Window], done: list[list[tuple[str, str | int, float]]]) -> None:
    async with TestBackend(APP) as t:
        table = Table()
        watchers = [Watcher(t, window) for window in watched]
        for watcher in watchers:
            await watcher.read()
        for commit in done:
            keys = set(table.now.values())

            async def write(ctx: MutationCtx, commit: list[tuple[str, str | int, float]] = commit) -> None:
                for kind, where, rank in commit:
                    await table.write(ctx, kind, where, rank)

            await t.run(write)
            after = set(table.now.values())
            for watcher in watchers:
                window = watcher.window
                result, runs = await watcher.read()
                assert result == window.result(after)
                touched = any(window.read(keys, key) for key in keys ^ after)
                assert runs <= touched, f"{window} ran though nothing that it read was written"
        for watcher in watchers:
            watcher.close()


@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(windows, min_size=1, max_size=5, unique=True), commits)
def test_live_queries_are_right_and_run_again_only_when_touched(
    watched: list[Window], done: list[list[tuple[str, str | int, float]]]
) -> None:
    asyncio.run(check(watched, done))
