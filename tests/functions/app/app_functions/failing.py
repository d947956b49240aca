"""Functions that fail, each in its way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from reactor import ActionCtx, AppError, MutationCtx, QueryCtx, action, mutation, query
from tests.functions.app.app_functions import items
from tests.functions.app.schema import Item


@query
async def app_error(ctx: QueryCtx, data: Any) -> None:
    raise AppError(data)


@query
async def bug(ctx: QueryCtx) -> None:
    raise ZeroDivisionError("the password is hunter2")


@query
async def nested_bug(ctx: QueryCtx) -> None:
    await ctx.run_query(bug)


@action
async def action_of_bug(ctx: ActionCtx) -> None:
    await ctx.run_query(bug)


@action
async def action_of_app_error(ctx: ActionCtx) -> None:
    await ctx.run_query(app_error, data={"code": 7})


@action
async def group(ctx: ActionCtx) -> None:
    async with asyncio.TaskGroup() as both:
        both.create_task(ctx.run_query(bug))
        both.create_task(ctx.run_query(app_error, data={"code": 7}))


@query
async def bad_data(ctx: QueryCtx) -> None:
    raise AppError({"set": {1, 2}})


@mutation
async def wrong_result(ctx: MutationCtx) -> str:
    await ctx.db.insert(Item(list="a", rank=1))
    return 5  # type: ignore[return-value]


@mutation
async def catches_wrong_result(ctx: MutationCtx) -> str:
    await ctx.run_mutation(items.insert, list="a", rank=0)
    try:
        return await ctx.run_mutation(wrong_result)
    except Exception as error:
        return type(error).__name__


@mutation
async def takes(ctx: MutationCtx, number: float, names: list[str] | None = None) -> None:
    await ctx.db.insert(Item(list="a", rank=number))


@query
async def repeats(ctx: QueryCtx, text: str, times: int) -> str:
    return text * times


async def exits() -> None:
    sys.exit("no")


async def interrupts() -> None:
    raise KeyboardInterrupt("no")


async def closes() -> None:
    raise GeneratorExit("no")


async def awaits_what_is_cancelled() -> None:
    waited = asyncio.ensure_future(asyncio.Event().wait())
    waited.cancel("no")
    await waited


async def exits_in_a_task() -> None:
    await asyncio.gather(exits())


ESCAPES: dict[str, Callable[[], Awaitable[None]]] = {
    way.__name__: way for way in (exits, interrupts, closes, awaits_what_is_cancelled, exits_in_a_task)
}


@query
async def escape_from_query(ctx: QueryCtx, way: str) -> None:
    await ESCAPES[way]()


@mutation
async def escape_from_mutation(ctx: MutationCtx, way: str) -> None:
    await ctx.db.insert(Item(list="a", rank=1))
    await ESCAPES[way]()


@action
async def escape_from_action(ctx: ActionCtx, way: str) -> None:
    await ESCAPES[way]()
