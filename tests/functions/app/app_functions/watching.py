"""Queries to watch."""

from __future__ import annotations

from reactor import AppError, Id, MutationCtx, QueryCtx, gte, lt, mutation, query
from tests.functions.app.app_functions import items
from tests.functions.app.schema import Item

#: The lists that were read, one entry for each run.
runs: list[str] = []


@query
async def counted(ctx: QueryCtx, list: str) -> list[float]:
    runs.append(list)
    return [item.rank for item in await ctx.db.query(Item.by_list(list=list)).collect()]


@query
async def many(ctx: QueryCtx, list: str) -> bool:
    """Often the same, though what it reads changes."""
    runs.append(list)
    return await ctx.db.query(Item.by_list(list=list)).count() > 2


@query
async def nested(ctx: QueryCtx, list: str) -> float:
    return sum(await ctx.run_query(items.ranks, list=list))


@query
async def until(ctx: QueryCtx, list: str, rank: float) -> float | None:
    """Reads no further than this rank."""
    async for item in ctx.db.query(Item.by_list(list=list)):
        if item.rank >= rank:
            return item.rank
    return None


@query
async def odd(ctx: QueryCtx) -> int:
    return await ctx.db.query(Item).filter(lambda item: item.rank % 2 == 1).count()


@query
async def failing(ctx: QueryCtx, list: str) -> int:
    found = await ctx.db.query(Item.by_list(list=list)).count()
    if found < 4:
        raise AppError(f"only {found}")
    return found


@query
async def constant(ctx: QueryCtx) -> int:
    return 7


@query
async def exists(ctx: QueryCtx, item: Id[Item]) -> bool:
    runs.append(item)
    return await ctx.db.get(item) is not None


@query
async def who(ctx: QueryCtx, looks: bool) -> str | None:
    runs.append("who")
    if not looks:
        return None
    identity = await ctx.auth.identity()
    return None if identity is None else identity.subject


@mutation
async def shift(ctx: MutationCtx, list: str, by: float) -> None:
    """Change many documents in one commit."""
    for item in await ctx.db.query(Item.by_list(list=list)).collect():
        await ctx.db.patch(item.id, rank=item.rank + by)


@query
async def window(ctx: QueryCtx, list: str, low: float, high: float, count: int, descending: bool) -> list[float]:
    """At most so many of the items whose rank is in [low, high)."""
    ranked = ctx.db.query(Item.by_list(list=list, rank=gte(low) & lt(high)))
    return [item.rank for item in await ranked.order("desc" if descending else "asc").take(count)]
