from __future__ import annotations

import asyncio

from reactor import ActionCtx, Id, MutationCtx, QueryCtx, action, internal_mutation, mutation, query
from schema import Counter


@query
async def get(ctx: QueryCtx, name: str) -> float:
    counter = await ctx.db.query(Counter.by_name(name=name)).unique()
    return counter.count if counter else 0


@query
async def id_of(ctx: QueryCtx, name: str) -> Id[Counter] | None:
    counter = await ctx.db.query(Counter.by_name(name=name)).unique()
    return counter.id if counter else None


@mutation
async def add(ctx: MutationCtx, name: str, by: float = 1) -> float:
    print("adding", by)
    counter = await ctx.db.query(Counter.by_name(name=name)).unique()
    if counter is None:
        await ctx.db.insert(Counter(name=name, count=by))
        return by
    await ctx.db.patch(counter.id, count=counter.count + by)
    return counter.count + by


@internal_mutation
async def reset(ctx: MutationCtx, name: str) -> None:
    counter = await ctx.db.query(Counter.by_name(name=name)).unique()
    if counter:
        await ctx.db.delete(counter.id)


@action
async def add_twice(ctx: ActionCtx, name: str) -> float:
    """Two transactions, each seen by the clients."""
    await ctx.run_mutation(add, name=name)
    await ctx.run_mutation(add, name=name)
    return await ctx.run_query(get, name=name)


@action
async def hang(ctx: ActionCtx, name: str) -> None:
    """Shows that it runs, and never ends."""
    await ctx.run_mutation(add, name=name)
    await asyncio.Event().wait()
