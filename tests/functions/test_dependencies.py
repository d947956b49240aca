"""What the server fills beside a function's arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pytest

from reactor import ActionCtx, AppError, ArgumentError, Depends, Mutation, MutationCtx, Query, QueryCtx, SchemaError
from reactor.testing import TestBackend
from tests.functions.app.app_functions import depending
from tests.functions.app.schema import Item, Person
from tests.functions.support import call, fill

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def seen() -> list[str]:
    depending.seen.clear()
    return depending.seen


async def test_it_is_filled_once_a_call_however_many_need_it(t: TestBackend, seen: list[str]) -> None:
    ann = t.with_identity("ann")
    assert await ann.query("depending:greet", greeting="hi") == "hi ann ANN"
    assert seen == ["name_of", "shouted"]
    assert await ann.query("depending:greet") == "hello ann ANN"
    assert len(seen) == 4


async def test_it_reads_and_writes_in_the_functions_transaction(t: TestBackend) -> None:
    ann = t.with_identity("ann")
    id = await ann.mutation(depending.enrol)
    person = await ann.query(depending.me)
    assert person is not None and person.id == id
    with pytest.raises(AppError, match="after all"):
        await t.with_identity("bob").mutation(depending.enrol, fail=True)
    assert await t.with_identity("bob").query(depending.me) is None


async def test_what_it_raises_is_the_calls_failure(t: TestBackend) -> None:
    with pytest.raises(AppError, match="nobody"):
        await t.query("depending:greet")


async def test_a_live_query_follows_what_it_read_and_is_its_callers_own(t: TestBackend) -> None:
    async for found in t.subscribe("depending:count"):
        if found == 2:
            break
        assert found == 0
        await fill(t, "a", 1, 2)
    runner = t._runner
    assert (await runner.query("depending:greet", b"{}", t.with_identity("ann")._caller())).identity_used
    assert not (await runner.query("depending:count", b"{}", t._caller())).identity_used


async def test_it_works_in_actions_and_between_functions(t: TestBackend) -> None:
    ann = t.with_identity("ann")
    assert await ann.action("depending:act", text="says") == "ann says hello ann ANN"
    assert await ann.mutation(depending.relay) == ["by path ann ANN", "directly ann ANN", "directly given ANN", "True"]


@pytest.mark.parametrize(
    ("path", "args"),
    [("depending:greet", {"name": "admin"}), ("depending:greet", {"loud": "ADMIN", "greeting": "x"}), ("depending:me", {"person": None})],
)
async def test_no_client_can_give_it(t: TestBackend, seen: list[str], path: str, args: dict[str, Any]) -> None:
    outcome = await call(t, "query", path, **args)
    assert outcome.error is not None and f"There is no argument {next(iter(args))!r}" in outcome.error.message
    assert seen == [], "nothing ran"


async def test_nor_can_a_function(t: TestBackend) -> None:
    with pytest.raises(ArgumentError, match="no argument 'person'"):
        await t.query(depending.me, person=None)


async def test_it_is_absent_from_the_description_of_the_arguments(t: TestBackend) -> None:
    described = depending.greet.args.describe(t._engine.catalog)
    assert list(described["value"]) == ["greeting"]


async def test_the_arguments_are_validated_before_it_runs(t: TestBackend, seen: list[str]) -> None:
    outcome = await call(t, "query", "depending:greet", greeting=5)
    assert outcome.error is not None and outcome.error.code == "ArgumentValidationError"
    assert seen == []


# --- what is refused when the app is loaded


async def writes(ctx: MutationCtx) -> int:
    return 1


async def reads(ctx: QueryCtx) -> int:
    return 1


async def acts(ctx: ActionCtx) -> int:
    return 1


async def reads_by_writing(ctx: QueryCtx, n: Annotated[int, Depends(writes)]) -> int:
    return n


async def itself(ctx: QueryCtx, n: Annotated[int, Depends(lambda ctx: 1)]) -> int:
    return n


async def unfilled(ctx: QueryCtx, limit: int) -> int:
    return limit


async def without_ctx() -> int:
    return 1


async def bare_ctx(ctx) -> int:  # type: ignore[no-untyped-def]
    return 1


def function(dependency: Any) -> Callable[..., Any]:
    async def depends(ctx: QueryCtx, n: Annotated[int, Depends(dependency)]) -> int:
        return n

    depends.__annotations__["n"] = Annotated[int, Depends(dependency)]
    return depends


@pytest.mark.parametrize(
    ("dependency", "says"),
    [
        (writes, r"depends on writes \(.*test_dependencies.py:\d+\), which needs MutationCtx, and has QueryCtx"),
        (acts, "which needs ActionCtx, and has QueryCtx"),
        (reads_by_writing, "depends on writes"),
        (unfilled, "nobody fills the parameter 'limit'"),
        (without_ctx, "has no annotated ctx"),
        (bare_ctx, "has no annotated ctx"),
    ],
)
def test_a_dependency_that_cannot_be_filled_is_refused(dependency: Any, says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        Query(function(dependency), internal=False, name=None).compile("m:f", {})


def test_a_mutation_can_depend_on_what_a_query_can(t: TestBackend) -> None:
    for dependency in (reads, writes):
        Mutation(function(dependency), internal=False, name=None).compile("m:f", {})


def test_a_circle_is_refused() -> None:
    first = Depends(itself)
    itself.__annotations__["n"] = Annotated[int, first]
    with pytest.raises(SchemaError, match="depends on itself"):
        Query(function(itself), internal=False, name=None).compile("m:f", {})


def test_it_stands_around_the_whole_annotation() -> None:
    async def inside(ctx: QueryCtx, n: Annotated[int, Depends(reads)] | None) -> None: ...
    async def twice(ctx: QueryCtx, n: Annotated[int, Depends(reads)] = Depends(reads)) -> None: ...
    async def defaulted(ctx: QueryCtx, n: Annotated[int, Depends(reads)] = 5) -> None: ...

    for wrong, says in ((inside, "inside of the annotation"), (twice, "has Depends twice"), (defaulted, "default would never be used")):
        with pytest.raises(SchemaError, match=says):
            Query(wrong, internal=False, name=None).compile("m:f", {"reads": reads})


@pytest.mark.parametrize("wrong", [depending.greet, 5, None, Item])
def test_it_takes_a_plain_function(wrong: Any) -> None:
    with pytest.raises(TypeError, match="plain function"):
        Depends(wrong)


def test_a_dependency_may_name_documents_of_the_schema() -> None:
    async def person(ctx: QueryCtx) -> Person | None:
        return None

    person.__annotations__["return"] = "Later | None"
    Query(function(person), internal=False, name=None).compile("m:f", {"Later": Person})
