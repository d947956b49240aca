"""Functions that take their time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from reactor import ActionCtx, AppError, MutationCtx, QueryCtx, action, mutation, query
from tests.functions.app.app_functions import items
from tests.functions.app.schema import Item

#: What a test looks at and sets.
events: dict[str, asyncio.Event] = {}
tasks: list[asyncio.Task[Any]] = []
contexts: list[Any] = []


def spin() -> None:
    while True:
        pass


def spins(item: Item) -> bool:
    while True:
        pass


@query
async def loops(ctx: QueryCtx) -> None:
    spin()


@mutation
async def writes_and_loops(ctx: MutationCtx) -> None:
    await ctx.db.insert(Item(list="a", rank=1))
    spin()


@mutation
async def swallows(ctx: MutationCtx, what: str) -> str:
    """Goes on whatever is raised."""
    await ctx.db.insert(Item(list="a", rank=1))
    kinds: dict[str, type[BaseException]] = {"Exception": Exception, "BaseException": BaseException}
    try:
        spin()
    except kinds[what]:
        pass
    return "as if nothing had been"


@mutation
async def swallows_often(ctx: MutationCtx) -> None:
    for _ in range(3):
        try:
            spin()
        except BaseException:
            continue


@mutation
async def loops_nested(ctx: MutationCtx) -> str:
    try:
        await ctx.run_mutation(writes_and_loops)
    except Exception:
        return "caught"
    return "ended"


@query
async def loops_in_filter(ctx: QueryCtx) -> int:
    return await ctx.db.query(Item).filter(spins).count()


@query
async def loops_in_task(ctx: QueryCtx) -> None:
    async def part() -> None:
        spin()

    await asyncio.gather(part(), ctx.db.query(Item).first())


@query
async def turns(ctx: QueryCtx) -> None:
    """Computes little by little."""
    while True:
        await asyncio.sleep(0)
        sum(range(1000))


async def forever(ctx: Any) -> None:
    await asyncio.Event().wait()


async def gathered(ctx: Any) -> None:
    await asyncio.gather(forever(ctx), forever(ctx))


async def stubborn(ctx: Any) -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


WAITS: dict[str, Callable[[Any], Awaitable[None]]] = {way.__name__: way for way in (forever, gathered, stubborn)}


@mutation
async def is_deaf(ctx: MutationCtx) -> None:
    """Waits on, whatever it is told, until a test lets it go."""
    released = events["go"]
    await ctx.db.insert(Item(list="a", rank=1))
    while True:
        try:
            await asyncio.Event().wait()
        except BaseException:
            if released.is_set():
                raise


@mutation
async def leaves_stubborn_task(ctx: MutationCtx) -> None:
    tasks.append(asyncio.create_task(stubborn(ctx)))
    await asyncio.sleep(0)
    await ctx.db.insert(Item(list="a", rank=1))


@mutation
async def waits(ctx: MutationCtx, way: str) -> None:
    await ctx.db.insert(Item(list="a", rank=1))
    await WAITS[way](ctx)


@query
async def waits_for(ctx: QueryCtx, event: str) -> str:
    events["began"].set()
    await events[event].wait()
    return "ended"


@action
async def acts_on(ctx: ActionCtx, event: str) -> list[float]:
    events["began"].set()
    await events[event].wait()
    return await ctx.run_query(items.ranks, list="a")


@action
async def acts_forever(ctx: ActionCtx) -> None:
    await forever(ctx)


@mutation
async def leaves_task(ctx: MutationCtx, fails: bool) -> None:
    """Ends while a task of its own still means to write."""

    async def later() -> None:
        events["task"].set()
        await events["go"].wait()
        await ctx.db.insert(Item(list="a", rank=99))

    tasks.append(asyncio.create_task(later()))
    await asyncio.sleep(0)
    await ctx.db.insert(Item(list="a", rank=1))
    if fails:
        raise AppError("failed")


@mutation
async def leaks(ctx: MutationCtx) -> None:
    """Gives its ctx away."""
    contexts.append(ctx)


@mutation
async def nested_leaks(ctx: MutationCtx) -> None:
    """A call of its own that failed leaves its ctx, or a task, behind."""
    try:
        await ctx.run_mutation(leaks_and_fails)
    except AppError:
        pass
    for _ in range(3):
        await asyncio.sleep(0)


@mutation
async def leaks_and_fails(ctx: MutationCtx) -> None:
    async def later() -> None:
        await asyncio.sleep(0)
        await ctx.db.insert(Item(list="a", rank=99))

    async def call_later() -> None:
        await asyncio.sleep(0)
        await ctx.run_mutation(items.insert, list="a", rank=98)

    tasks.append(asyncio.create_task(later()))
    tasks.append(asyncio.create_task(call_later()))
    raise AppError("failed")


async def breaks() -> None:
    raise ValueError("the cause")


@query
async def reads_in_a_group(ctx: QueryCtx, breaking: bool) -> list[int]:
    async with asyncio.TaskGroup() as group:
        reads = [group.create_task(ctx.db.query(Item).count()) for _ in range(2)]
        if breaking:
            group.create_task(breaks())
    return [read.result() for read in reads]


@mutation
async def writes_in_a_group(ctx: MutationCtx, breaking: bool) -> list[int]:
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.db.insert(Item(list="a", rank=1)))
        if breaking:
            group.create_task(breaks())
    return [await ctx.db.query(Item).count()] * 2


@query
async def reads_for_a_while(ctx: QueryCtx, breaking: bool) -> list[int]:
    return [await asyncio.wait_for(forever(ctx) if breaking else ctx.db.query(Item).count(), 0.01 if breaking else None)] * 2


@query
async def reads_in_time(ctx: QueryCtx, breaking: bool) -> list[int]:
    async with asyncio.timeout(0.01 if breaking else None):
        if breaking:
            await forever(ctx)
        return [await ctx.db.query(Item).count()] * 2
