"""Pages that are watched stay gapless and do not repeat, whatever comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reactor import PaginationOptions, PaginationResult
from reactor.engine.live_query import Subscription
from reactor.functions.outcome import Outcome
from reactor.testing import TestBackend
from tests.functions.app.app_functions import items
from tests.functions.app.schema import Item
from tests.functions.support import APP, fill
from tests.support.examples import examples

Page = PaginationResult[Item]


class LivePage:
    """One page as a client's hook watches it: a subscription of its own."""

    def __init__(self, t: TestBackend, descending: bool, options: PaginationOptions, journal: str | None = None) -> None:
        self.options = options
        self._t = t
        self._descending = descending
        runner, caller = t._runner, t._caller()
        args = items.page.args.to_json({"list": "a", "options": options, "descending": descending})
        path = items.page.path
        self._subscription = t._engine.live.subscribe(
            runner.live_key(path, args, caller), None, runner.live_run(path, args, caller), self, journal=journal
        )
        self.journal = journal

    def invalidated(self, subscription: Subscription[Any]) -> None:
        """Results are read when they are looked at."""

    async def read(self) -> Page:
        pin = self._t._engine.pin()
        result = self._subscription.at(pin)
        outcome = await result if isinstance(result, asyncio.Future) else result
        pin.release()
        assert isinstance(outcome, Outcome)
        assert outcome.error is None, outcome.error
        self.journal = outcome.journal
        page: Page = items.page.returns.load(outcome.value, self._t._engine.catalog)
        return page

    def like(self, **options: Any) -> LivePage:
        return LivePage(self._t, self._descending, self.options.model_copy(update=options))

    def resubscribed(self) -> LivePage:
        """After the connection was lost."""
        self.close()
        return LivePage(self._t, self._descending, self.options, self.journal)

    def close(self) -> None:
        self._subscription.close()


class Hook:
    """What the clients' paginated hook does with the pages of one query."""

    def __init__(self, t: TestBackend, descending: bool, budget: int | None) -> None:
        self._t = t
        self.descending = descending
        self.pages = [LivePage(t, descending, PaginationOptions(num_items=3, cursor=None, maximum_rows_read=budget))]

    async def results(self) -> list[Page]:
        """The pages, split where they ask for it."""
        at, found = 0, []
        while at < len(self.pages):
            page = await self.pages[at].read()
            if page.split_cursor is not None and (page.page_status is not None or len(page.page) > 6):
                whole = self.pages[at]
                self.pages[at : at + 1] = [
                    whole.like(end_cursor=page.split_cursor),
                    whole.like(cursor=page.split_cursor, end_cursor=page.continue_cursor),
                ]
                whole.close()
                continue
            assert page.page_status != "SplitRequired", "it cannot be split"
            found.append(page)
            at += 1
        return found

    async def more(self, num_items: int) -> None:
        last = (await self.results())[-1]
        if not last.is_done:
            self.pages.append(self.pages[0].like(num_items=num_items, cursor=last.continue_cursor, end_cursor=None))

    def reconnect(self) -> None:
        self.pages = [page.resubscribed() for page in self.pages]

    def close(self) -> None:
        for page in self.pages:
            page.close()


async def check(hook: Hook, t: TestBackend) -> None:
    """The pages are, in order and once each, the documents from the beginning up to the last page's end."""
    results = await hook.results()
    loaded = [item.id for page in results for item in page.page]
    everything = await t.run(lambda ctx: ctx.db.query(Item.by_list(list="a")).order("desc" if hook.descending else "asc").collect())
    assert loaded == [item.id for item in everything][: len(loaded)]
    assert all(not page.is_done for page in results[:-1])
    if results[-1].is_done:
        assert len(loaded) == len(everything)
    for before, after in zip(results, hook.pages[1:], strict=False):
        assert after.options.cursor == before.continue_cursor


RANKS = st.integers(0, 9).map(float)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.lists(RANKS, min_size=1, max_size=4)),
        st.tuples(st.just("delete"), st.integers(0, 99)),
        st.tuples(st.just("move"), st.integers(0, 99), RANKS),
        st.tuples(st.just("more"), st.integers(1, 4)),
        st.tuples(st.just("reconnect")),
        st.tuples(st.just("another")),
    ),
    max_size=14,
)


async def step(t: TestBackend, hooks: list[Hook], descending: bool, budget: int | None, what: tuple[Any, ...]) -> None:
    async def at(index: int, change: Callable[[Any, Item], Awaitable[None]]) -> None:
        async def run(ctx: Any) -> None:
            found = await ctx.db.query(Item.by_list(list="a")).collect()
            if found:
                await change(ctx, found[index % len(found)])

        await t.run(run)

    match what:
        case ("insert", ranks):
            await fill(t, "a", *ranks)
        case ("delete", index):
            await at(index, lambda ctx, item: ctx.db.delete(item.id))
        case ("move", index, rank):
            await at(index, lambda ctx, item: ctx.db.patch(item.id, rank=rank))
        case ("more", num_items):
            await hooks[0].more(num_items)
        case ("reconnect",):
            hooks[0].reconnect()
        case ("another",):
            hooks.append(Hook(t, descending, budget))


@settings(max_examples=examples(30))
@given(first=st.lists(RANKS, max_size=12), steps=STEPS, descending=st.booleans(), budget=st.sampled_from([None, 4]))
def test_pages_have_no_gap_and_no_repeat_while_documents_come_and_go(
    first: list[float], steps: list[Any], descending: bool, budget: int | None
) -> None:
    async def scenario() -> None:
        async with TestBackend(APP) as t:
            await fill(t, "a", *first)
            hooks = [Hook(t, descending, budget)]
            await check(hooks[0], t)
            for what in steps:
                await step(t, hooks, descending, budget, what)
                for hook in hooks:
                    await check(hook, t)
            for hook in hooks:
                hook.close()
            t._engine.live.check_invariants()
            assert len(t._engine.live) == 0

    asyncio.run(scenario())
