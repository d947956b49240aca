"""What is written out of habit, and is not so here, is answered with what to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reactor import MutationCtx, ReactorError
from reactor.functions.context import ActionCtx, QueryCtx
from reactor.functions.database import Reader
from reactor.schema.validators import ReturnsValidator
from reactor.testing import TestBackend
from tests.functions.app.app_functions import items
from tests.functions.app.schema import Item
from tests.functions.support import APP

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("messages, of which no store hears")]


async def plain(ctx: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (
            lambda ctx: ctx.db.query(Item),
            "<query of Item.by_creation_time> does not run by itself: async for. Or end it with collect(), take(n)",
        ),
        (lambda ctx: list(ctx.db.query(Item)), "<query of Item.by_creation_time> does not run by itself: async for."),
        (lambda ctx: ctx.db.query(Item.by_rank), "Item.by_rank is an index. Call it with the values to look for: Item.by_rank(…)."),
        (lambda ctx: ctx.db.query(dict), "Expected a class of documents, or a document made with one, got dict. Read with query(Message)"),
        (lambda ctx: ctx.db.insert({"list": "a"}), "Expected a class of documents, or a document made with one, got dict."),
        (lambda ctx: ctx.db.insert(Item), "write with insert(Message(…))."),
        (lambda ctx: ctx.run_mutation(plain), "is no query, mutation or action. Name one that was declared with a decorator"),
        (lambda ctx: ctx.run_query(items.ranks.fn, list="a"), "is no query, mutation or action."),
    ],
)
async def test_a_call_of_ctx_that_means_nothing_says_what_does(t: TestBackend, mistake: Callable[[Any], Any], says: str) -> None:
    async def run(ctx: MutationCtx) -> None:
        await mistake(ctx)

    with pytest.raises(ReactorError) as refused:
        await t.run(run)
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("ctx", "name", "says"),
    [
        (QueryCtx, "run_mutation", "QueryCtx has no 'run_mutation': a query only reads. Declare the function with @mutation."),
        (QueryCtx, "scheduler", "Declare the function with @mutation."),
        (QueryCtx, "run_action", "Declare the function with @action."),
        (MutationCtx, "run_action", "Have the action run once it has committed: ctx.scheduler.run_after(timedelta(0), …)."),
        (MutationCtx, "run_once", "Use reactor.contrib.idempotency for keys of your own."),
        (ActionCtx, "db", "an action reaches the database through queries and mutations: ctx.run_query(…), ctx.run_mutation(…)."),
        (ActionCtx, "now", "Use time.time()."),
    ],
)
def test_what_a_ctx_lacks_is_said_with_where_it_is(ctx: Any, name: str, says: str) -> None:
    made = ctx.__new__(ctx)
    with pytest.raises(AttributeError) as refused:
        getattr(made, name)
    assert says in str(refused.value)
    assert not hasattr(made, name)


@pytest.mark.parametrize("name", ["insert", "patch", "replace", "delete"])
def test_a_query_that_writes_is_told_to_be_a_mutation(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"^ctx.db has no '{name}': a query only reads. Declare the function with @mutation.$"):
        getattr(Reader.__new__(Reader), name)


def test_a_result_that_was_not_awaited_is_named() -> None:
    coroutine = plain(None)
    with pytest.raises(ReactorError, match=r"found <coroutine object plain at 0x\w+>: await it"):
        ReturnsValidator(list[int], "items:ranks").check(coroutine, None)
    coroutine.close()


async def test_a_backend_that_was_not_entered_says_so() -> None:
    with pytest.raises(ReactorError, match="Write: async with TestBackend"):
        await TestBackend(APP).query(items.ranks, list="a")


@pytest.mark.parametrize("function", [plain, items.ranks.fn, 5])
async def test_a_backend_calls_what_was_declared(t: TestBackend, function: Any) -> None:
    with pytest.raises(ReactorError, match="is no query, mutation or action"):
        await t.query(function)
