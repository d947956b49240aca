"""Functions to be scheduled, and functions that schedule them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from reactor import (
    ActionCtx,
    AppError,
    Id,
    MutationCtx,
    QueryCtx,
    ScheduledFunction,
    action,
    internal_action,
    internal_mutation,
    mutation,
    query,
)
from tests.services.app.schema import Counter, Trace

#: What the actions below did outside the database, and what the tests have them wait for.
effects: list[str] = []
gates: dict[str, asyncio.Event] = {}
#: Called by ``calls`` inside its run.
hook: list[Callable[[], None]] = []


@internal_mutation
async def trace(ctx: MutationCtx, key: str) -> None:
    await ctx.db.insert(Trace(key=key, at=ctx.now))


@mutation
async def later(ctx: MutationCtx, key: str, seconds: float = 0) -> Id[ScheduledFunction]:
    return await ctx.scheduler.run_after(timedelta(seconds=seconds), trace, key=key)


@mutation
async def at(ctx: MutationCtx, key: str, time_ms: float) -> Id[ScheduledFunction]:
    return await ctx.scheduler.run_at(datetime.fromtimestamp(time_ms / 1000).astimezone(), "jobs:trace", key=key)


@mutation
async def many(ctx: MutationCtx, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        await ctx.scheduler.run_after(timedelta(), trace, key=f"{number:06d}")


@mutation
async def any_of(ctx: MutationCtx, path: str, args: dict[str, Any], seconds: float = 0) -> Id[ScheduledFunction]:
    return await ctx.scheduler.run_after(timedelta(seconds=seconds), path, **args)


@mutation
async def cancel(ctx: MutationCtx, id: Id[ScheduledFunction]) -> None:
    await ctx.scheduler.cancel(id)


@mutation
async def later_and_fail(ctx: MutationCtx, key: str) -> None:
    await ctx.scheduler.run_after(timedelta(), trace, key=key)
    raise AppError("no")


@mutation
async def nested_failure(ctx: MutationCtx) -> int:
    await ctx.run_mutation(later, key="kept")
    try:
        await ctx.run_mutation(later_and_fail, key="undone")
    except AppError:
        pass
    return await ctx.db.query(ScheduledFunction.by_state(state__kind="pending")).count()


@query
async def of_state(ctx: QueryCtx, kind: str) -> list[ScheduledFunction]:
    return await ctx.db.query(ScheduledFunction.by_state(state__kind=kind)).collect()


@query
async def one(ctx: QueryCtx, id: Id[ScheduledFunction]) -> ScheduledFunction | None:
    return await ctx.db.get(id)


@query
async def traces(ctx: QueryCtx) -> list[str]:
    return [trace.key async for trace in ctx.db.query(Trace.by_key())]


@query
async def times(ctx: QueryCtx) -> list[float]:
    return [trace.at async for trace in ctx.db.query(Trace)]


@internal_mutation
async def fails(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert(Trace(key="never", at=ctx.now))
    raise ValueError(text)


@internal_mutation
async def fails_on_purpose(ctx: MutationCtx) -> None:
    raise AppError("not today")


@internal_mutation
async def chain(ctx: MutationCtx, left: int, seconds: float) -> None:
    await ctx.db.insert(Trace(key=f"{left}", at=ctx.now))
    if left:
        await ctx.scheduler.run_after(timedelta(seconds=seconds), chain, left - 1, seconds)


@internal_mutation
async def who(ctx: MutationCtx) -> None:
    identity = await ctx.auth.identity()
    await ctx.db.insert(Trace(key="nobody" if identity is None else identity.subject, at=ctx.now))


@internal_mutation
async def cancels(ctx: MutationCtx, of: str) -> None:
    """Cancels the pending function with this name, which may be itself."""
    async for job in ctx.db.query(ScheduledFunction.by_state(state__kind="pending")):
        if job.name == of:
            await ctx.scheduler.cancel(job.id)


@internal_mutation
async def count(ctx: MutationCtx) -> None:
    counter = await ctx.db.query(Counter).first()
    if counter is None:
        await ctx.db.insert(Counter(count=1))
    else:
        await ctx.db.patch(counter.id, count=counter.count + 1)


@internal_mutation
async def writes(ctx: MutationCtx, documents: int) -> None:
    for _ in range(documents):
        await ctx.db.insert(Trace(key="written", at=ctx.now))


@internal_action
async def acts(ctx: ActionCtx, key: str) -> None:
    effects.append(f"began {key}")
    if key in gates:
        await gates[key].wait()
    await ctx.run_mutation(trace, key=key)
    effects.append(f"ended {key}")


@internal_action
async def acts_then_schedules(ctx: ActionCtx, key: str) -> None:
    effects.append(f"began {key}")
    await gates[key].wait()
    await ctx.scheduler.run_after(timedelta(), trace, key=f"{key} itself")
    await ctx.run_mutation(later, key=f"{key} by a mutation")


@action
async def schedules_and_fails(ctx: ActionCtx, key: str) -> None:
    await ctx.scheduler.run_after(timedelta(), trace, key=key)
    raise AppError("too late")


@action
async def schedules_many(ctx: ActionCtx, count: int) -> None:
    await asyncio.gather(*(ctx.scheduler.run_after(timedelta(), trace, key=str(number)) for number in range(count)))


@action
async def cancels_from_action(ctx: ActionCtx, id: Id[ScheduledFunction]) -> None:
    await ctx.scheduler.cancel(id)


@internal_action
async def fails_acting(ctx: ActionCtx) -> None:
    raise ValueError("boom \ud800")


@internal_mutation
async def calls(ctx: MutationCtx) -> None:
    for call in hook:
        call()
    await ctx.db.insert(Trace(key="called", at=ctx.now))
