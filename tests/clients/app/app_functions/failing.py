from __future__ import annotations

from typing import Any

from reactor import ActionCtx, AppError, MutationCtx, QueryCtx, action, mutation, query
from schema import Counter


@query
async def query_refuses(ctx: QueryCtx, data: Any) -> None:
    raise AppError(data)


@mutation
async def mutation_refuses(ctx: MutationCtx, data: Any) -> None:
    await ctx.db.insert(Counter(name="must not remain", count=1))
    raise AppError(data)


@action
async def action_refuses(ctx: ActionCtx, data: Any) -> None:
    raise AppError(data)


@query
async def refuses_above(ctx: QueryCtx, name: str, limit: float) -> float:
    """Fails while the counter is above the limit: a live query's error comes and goes."""
    counter = await ctx.db.query(Counter.by_name(name=name)).unique()
    count = counter.count if counter else 0
    if count > limit:
        raise AppError({"count": count})
    return count


@mutation
async def crashes(ctx: MutationCtx) -> None:
    raise RuntimeError("the secret is 4711")
