"""Functions that call functions: one transaction, nested and undone alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reactor import AppError, ArgumentError, FunctionNotFound, LimitExceeded, Limits, WrongFunctionKind
from reactor.testing import TestBackend
from tests.functions.app.app_functions import calling, items
from tests.functions.support import APP, call, ranks

pytestmark = pytest.mark.anyio


async def test_calls_by_object_and_by_path_share_the_transaction(t: TestBackend) -> None:
    assert await t.mutation(calling.by_object_and_path) == [1, 2, 3]
    assert await ranks(t) == [1, 2, 3]


async def test_a_nested_mutation_that_fails_is_undone_alone_with_all_that_it_called(t: TestBackend) -> None:
    assert await t.mutation(calling.survives) == {"failed": 2}
    assert await ranks(t) == [10, 20]


async def test_a_failure_undoes_what_nested_mutations_wrote(t: TestBackend) -> None:
    with pytest.raises(AppError, match="after all"):
        await t.mutation(calling.fails_after)
    assert await ranks(t) == []


async def test_nested_calls_side_by_side_run_one_after_another(t: TestBackend) -> None:
    assert await t.mutation(calling.at_once) == [1, 2]
    assert await ranks(t) == [1, 2]


async def test_database_calls_can_be_gathered(t: TestBackend) -> None:
    assert await t.mutation(calling.gathers) == [0, 1, 2, 2]
    assert await ranks(t) == [0, 1, 2]


async def test_what_a_caller_does_beside_a_call_neither_sees_it_nor_is_undone_with_it(t: TestBackend) -> None:
    assert await t.mutation(calling.beside_a_call) == [1]
    assert await ranks(t) == [1]


async def test_nested_arguments_and_results_are_copies(t: TestBackend) -> None:
    assert await t.mutation(calling.by_value) == [1, 1, 2]


async def test_calls_nest_up_to_their_limit() -> None:
    async with TestBackend(APP, limits=Limits(call_depth=3)) as t:
        assert await t.mutation(calling.deeper, levels=3) == 3
        with pytest.raises(LimitExceeded, match="more than 3 deep") as refused:
            await t.mutation(calling.deeper, levels=4)
        assert refused.value.code == "MaximumCallDepthExceeded"


async def test_actions_call_each_other_to_a_limited_depth_too() -> None:
    async with TestBackend(APP, limits=Limits(call_depth=3)) as t:
        assert await t.action(calling.act_deeper, depth=3) == 3
        with pytest.raises(LimitExceeded, match=r"calling:act_deeper: functions call each other more than 3 deep") as refused:
            await t.action(calling.act_deeper, depth=4)
        assert refused.value.code == "MaximumCallDepthExceeded"


@pytest.mark.parametrize(
    ("path", "rank", "error", "text"),
    [
        ("items:insert", "high", ArgumentError, "items:insert"),
        ("items:nothing", 1, FunctionNotFound, "Could not find function for 'items:nothing'"),
        ("items:ranks", 1, WrongFunctionKind, "items:ranks as a mutation, but it is defined as a query"),
        ("no path", 1, FunctionNotFound, "Write folder/module:function"),
    ],
)
async def test_a_nested_call_that_cannot_be_made_fails_the_caller(
    t: TestBackend, path: str, rank: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await t.mutation(calling.calls_badly, path=path, rank=rank)


@pytest.mark.parametrize("kind", ["mutation", "action"])
async def test_a_query_calls_queries_only(t: TestBackend, kind: str) -> None:
    with pytest.raises(WrongFunctionKind, match=f"calling:smuggles is a query, and cannot call the {kind}"):
        await t.query(calling.smuggles, kind=kind)
    with pytest.raises(WrongFunctionKind, match="items:insert as a query"):
        await t.query(calling.writes)


async def test_an_action_calls_by_object_and_by_path(t: TestBackend) -> None:
    assert await t.action(calling.delegates) == [[1, 2], [1, 2, 3, 4]]


async def test_each_mutation_of_an_action_is_committed_by_itself(t: TestBackend) -> None:
    with pytest.raises(AppError, match="half done"):
        await t.action(calling.is_half_done)
    assert await ranks(t) == [1, 5]


async def test_an_internal_function_is_for_other_functions_only(t: TestBackend) -> None:
    assert await t.query(calling.tells) == ["secret", "secret"]
    refused = (await call(t, "query", "calling:secret")).error
    unknown = (await call(t, "query", "calling:unknown")).error
    assert refused is not None and unknown is not None
    assert refused.code == unknown.code == "FunctionNotFound"
    assert refused.message.replace("secret", "unknown") == unknown.message, "it is not disclosed that there is one"


@pytest.mark.parametrize(
    ("kind", "path", "text"),
    [
        ("query", "items:insert", "Tried to execute items:insert as a query, but it is defined as a mutation."),
        ("mutation", "calling:act", "Tried to execute calling:act as a mutation, but it is defined as an action."),
        ("action", "items:ranks", "Tried to execute items:ranks as an action, but it is defined as a query."),
    ],
)
async def test_a_function_is_refused_as_another_kind(t: TestBackend, kind: Any, path: str, text: str) -> None:
    error = (await call(t, kind, path)).error
    assert error is not None and error.code == "InvalidFunctionCall"
    assert text in error.message


async def test_older_spellings_of_a_path_find_the_function(t: TestBackend) -> None:
    assert (await call(t, "query", "items.js:ranks", list="a")).value == b"[]"
    with pytest.raises(FunctionNotFound):
        await t.query("items")


async def test_a_function_object_can_be_called_with_a_ctx_of_ones_own(t: TestBackend) -> None:
    assert await t.run(lambda ctx: items.ranks(ctx, list="a")) == []


async def test_a_mutation_run_once_gives_its_first_result_to_every_later_call(t: TestBackend) -> None:
    assert [await t.action(calling.insert_once, key="k", rank=rank) for rank in (1, 1, 2)] == [1, 1, 1]
    assert await t.action(calling.insert_once, key="other", rank=3) == 2
    assert await ranks(t) == [1, 3]


@pytest.mark.parametrize("key", ["", "x" * 100_000, "\0", "'; drop table"])
async def test_any_text_is_a_key(t: TestBackend, key: str) -> None:
    for _ in range(2):
        assert await t.action(calling.insert_once, key=key, rank=1) == 1


async def test_calls_with_one_key_at_the_same_time_run_it_once(t: TestBackend) -> None:
    results = await asyncio.gather(*(t.action(calling.insert_once, key="k", rank=rank) for rank in range(20)))
    assert results == [1] * 20
    assert len(await ranks(t)) == 1


async def test_a_mutation_that_failed_was_not_the_once(t: TestBackend) -> None:
    with pytest.raises(AppError, match="negative"):
        await t.action(calling.insert_once, key="k", rank=-1)
    assert await t.action(calling.insert_once, key="k", rank=1) == 1


async def test_keys_are_those_of_one_mutation(t: TestBackend) -> None:
    await t.action(calling.insert_once, key="k", rank=1)
    for _ in range(2):
        await t.action(calling.once_by_path, key="k", path="items:insert")
    assert await ranks(t) == [1, 50]
    with pytest.raises(WrongFunctionKind):
        await t.action(calling.once_by_path, key="k", path="items:ranks")
    with pytest.raises(FunctionNotFound):
        await t.action(calling.once_by_path, key="k", path="items:nothing")
