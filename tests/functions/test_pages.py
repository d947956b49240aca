"""Pages of a query, one at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reactor import CursorError, Limits, PaginationOptions, PaginationResult, QueryError
from reactor.engine.live_query import Subscription
from reactor.functions.outcome import Outcome
from reactor.testing import TestBackend
from reactor.values import codec
from tests.functions.app.app_functions import items
from tests.functions.app.schema import Item
from tests.functions.support import APP, call, fill

pytestmark = pytest.mark.anyio


def options(num_items: int = 2, cursor: str | None = None, **others: Any) -> PaginationOptions:
    return PaginationOptions(num_items=num_items, cursor=cursor, **others)


def ranks(page: PaginationResult[Item]) -> list[float]:
    return [item.rank for item in page.page]


async def page(t: TestBackend, *args: Any, list: str = "a", descending: bool = False, **others: Any) -> PaginationResult[Item]:
    return await t.query(items.page, list=list, options=options(*args, **others), descending=descending)


@pytest.mark.parametrize("descending", [False, True])
async def test_pages_follow_one_another_to_the_end(t: TestBackend, descending: bool) -> None:
    await fill(t, "a", 1, 2, 3, 4, 5)
    await fill(t, "b", 6)
    expected = [[5, 4], [3, 2], [1]] if descending else [[1, 2], [3, 4], [5]]
    cursor = None
    for wanted in expected:
        found = await page(t, 2, cursor, descending=descending)
        assert ranks(found) == wanted
        assert found.is_done == (wanted is expected[-1])
        cursor = found.continue_cursor
    beyond = await page(t, 2, cursor, descending=descending)
    assert (beyond.page, beyond.is_done, beyond.continue_cursor) == ([], True, cursor)


async def test_a_page_that_ends_with_the_last_document_has_not_seen_the_end(t: TestBackend) -> None:
    await fill(t, "a", 1, 2)
    full = await page(t, 2)
    assert ranks(full) == [1, 2] and not full.is_done
    empty = await page(t, 2, full.continue_cursor)
    assert ranks(empty) == [] and empty.is_done


async def test_an_empty_range_is_one_done_page(t: TestBackend) -> None:
    found = await page(t, 2)
    assert (found.page, found.is_done, found.split_cursor, found.page_status) == ([], True, None, None)


@pytest.mark.parametrize("descending", [False, True])
async def test_a_cursor_is_a_place_and_outlives_the_document_that_it_came_from(t: TestBackend, descending: bool) -> None:
    made = await fill(t, "a", 1, 2, 3)
    first = await page(t, 2, descending=descending)
    await t.mutation(items.remove, item=made[1])
    assert ranks(await page(t, 2, first.continue_cursor, descending=descending)) == ([1] if descending else [3])


async def test_an_end_cursor_ends_the_page_whatever_the_number_of_items(t: TestBackend) -> None:
    await fill(t, "a", 1, 2, 3, 4)
    end = (await page(t, 3)).continue_cursor
    await fill(t, "a", 2.5)
    found = await page(t, 1, None, end_cursor=end)
    assert ranks(found) == [1, 2, 2.5, 3]
    assert (found.continue_cursor, found.is_done) == (end, False)
    last = (await page(t, 9)).continue_cursor
    assert (await page(t, 1, end, end_cursor=last)).is_done


async def test_rejected_documents_do_not_count_towards_the_number_of_items(t: TestBackend) -> None:
    await fill(t, "a", *range(10))
    first = await t.query(items.even_page, options=options(2))
    second = await t.query(items.even_page, options=options(2, first.continue_cursor))
    assert ranks(first) + ranks(second) == [0, 2, 4, 6]


@pytest.mark.parametrize("budget", [{"maximum_rows_read": 3}, {"maximum_bytes_read": 250}])
async def test_a_budget_ends_a_page_early_and_asks_to_split_it(t: TestBackend, budget: dict[str, Any]) -> None:
    await fill(t, "a", *range(10))
    found = await page(t, 9, **budget)
    assert 0 < len(found.page) < 9 and not found.is_done
    assert found.page_status == "SplitRequired"
    rest = await page(t, 20, found.continue_cursor)
    assert ranks(found) + ranks(rest) == list(range(10)), "it goes on where it was stopped"


async def test_a_page_can_be_empty_though_it_is_not_the_last(t: TestBackend) -> None:
    await fill(t, "a", *range(1, 20, 2), 20)
    found = await t.query(items.even_page, options=options(2, maximum_rows_read=4))
    assert (found.page, found.is_done, found.page_status) == ([], False, "SplitRequired")
    rest = await t.query(items.even_page, options=options(2, found.continue_cursor))
    assert ranks(rest) == [20]


async def test_a_page_stops_before_the_functions_own_limit() -> None:
    async with TestBackend(APP, limits=Limits(documents_read=20)) as t:
        await fill(t, "a", *range(20))
        await fill(t, "a", *range(20, 30))
        found = await page(t, 30)
    assert found.page_status == "SplitRequired" and len(found.page) == 18


async def test_a_large_page_recommends_its_split_and_the_halves_are_the_whole() -> None:
    async with TestBackend(APP, limits=Limits(page_split_items=6)) as t:
        await fill(t, "a", *range(10))
        whole = await page(t, 8)
        assert whole.page_status == "SplitRecommended" and whole.split_cursor is not None
        first = await page(t, 8, None, end_cursor=whole.split_cursor)
        second = await page(t, 8, whole.split_cursor, end_cursor=whole.continue_cursor)
    assert ranks(first) and ranks(second)
    assert ranks(first) + ranks(second) == ranks(whole) == list(range(8))
    assert first.page_status is None and first.split_cursor is None
    assert second.continue_cursor == whole.continue_cursor


async def test_a_function_paginates_once_and_each_nested_call_too(t: TestBackend) -> None:
    await fill(t, "a", 1, 2)
    await fill(t, "b", 1)
    assert await t.query(items.nested_pages, options=options(2)) == 5
    with pytest.raises(QueryError, match="can paginate one query") as refused:
        await t.query(items.two_pages, options=options())
    assert refused.value.code == "MultiplePaginatedDatabaseQueries"


@pytest.mark.parametrize("num_items", [0, -1, 32_001])
async def test_a_number_of_items_out_of_range_is_refused(t: TestBackend, num_items: int) -> None:
    with pytest.raises(QueryError, match="1 to 32000") as refused:
        await page(t, num_items)
    assert refused.value.code == "InvalidPaginationLimit"


@pytest.mark.parametrize("name", ["cursor", "end_cursor"])
async def test_a_cursor_that_is_not_this_querys_is_refused_with_data_for_clients(t: TestBackend, name: str) -> None:
    await fill(t, "a", *range(5))
    own = (await page(t, 2)).continue_cursor
    foreign = {
        "other order": (await page(t, 2, descending=True)).continue_cursor,
        "other range": (await page(t, 2, list="b")).continue_cursor,
        "garbage": "nonsense",
        "empty": "",
        "not base64": "\u00e9!",
        "cut": own[:-4],
        "changed": ("A" if own[0] != "A" else "B") + own[1:],
        "longer": own + "AAAA",
    }
    async with TestBackend(APP) as elsewhere:
        await fill(elsewhere, "a", 1, 2, 3)
        foreign["other database"] = (await page(elsewhere, 2)).continue_cursor
    for what, cursor in foreign.items():
        given = {"numItems": 2.0, "cursor": None, "endCursor": None, name.replace("_c", "C"): cursor}
        for production in (False, True):
            error = (await call(t, "query", "items:page", production=production, list="a", paginationOpts=given)).error
            assert error is not None and error.code == "InvalidCursor", what
            assert error.data is not None
            assert codec.from_json(error.data) == {"isConvexSystemError": True, "paginationError": "InvalidCursor"}
            assert production or "InvalidCursor" in error.message
    with pytest.raises(CursorError):
        await page(t, 2, "nonsense")


class _Watcher:
    def invalidated(self, subscription: Subscription[Any]) -> None:
        pass


async def live_page(t: TestBackend, journal: str | None, opts: PaginationOptions) -> Outcome:
    """What a client that resubscribes with a journal gets."""
    runner, engine, caller = t._runner, t._engine, t._caller()
    args = items.page.args.to_json({"list": "a", "options": opts})
    path = items.page.path
    key = runner.live_key(path, args, caller)
    subscription = engine.live.subscribe(key, None, runner.live_run(path, args, caller), _Watcher(), journal=journal)
    pin = engine.pin()
    try:
        result = subscription.at(pin)
        outcome: Outcome = await result if isinstance(result, asyncio.Future) else result
        return outcome
    finally:
        pin.release()
        subscription.close()


async def test_a_journal_keeps_the_end_of_a_page(t: TestBackend) -> None:
    await fill(t, "a", 1, 2, 3)
    first = await live_page(t, None, options(2))
    assert first.journal is not None
    again = await live_page(t, first.journal, options(2))
    assert (again.value, again.journal) == (first.value, first.journal)
    await fill(t, "a", 1.5)
    grown = await live_page(t, first.journal, options(2))
    page = codec.from_json(grown.value)
    assert isinstance(page, dict)
    assert [item["rank"] for item in page["page"]] == [1, 1.5, 2]  # type: ignore[index,union-attr,call-overload]
    assert grown.journal == first.journal

    ended = await live_page(t, first.journal, options(2, end_cursor=page["continueCursor"]))
    assert ended.journal == page["continueCursor"], "an end cursor has precedence"


@pytest.mark.parametrize("journal", ["nonsense", ""])
async def test_a_journal_that_cannot_be_read_is_an_invalid_cursor(t: TestBackend, journal: str) -> None:
    outcome = await live_page(t, journal, options(2))
    assert outcome.error is not None and outcome.error.code == "InvalidCursor"
