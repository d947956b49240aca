from __future__ import annotations

from datetime import timedelta

from reactor import AppError, MutationCtx, QueryCtx, mutation, query
from reactor.contrib.rate_limits import Allowance, FixedWindow, RateLimited, TokenBucket

MINUTE = timedelta(minutes=1)
LIMITS = {
    limit.name: limit
    for limit in (
        TokenBucket("bucket", rate=6, per=MINUTE, capacity=10),
        TokenBucket("plain", rate=3, per=MINUTE),
        TokenBucket("sharded", rate=40, per=MINUTE, shards=4),
        FixedWindow("window", rate=5, per=MINUTE),
        FixedWindow("sharded window", rate=40, per=MINUTE, shards=4),
    )
}


@mutation
async def spend(ctx: MutationCtx, limit: str, key: str = "", count: float = 1, fail: bool = False) -> float:
    left = await LIMITS[limit].spend(ctx, key, count=count)
    if fail:
        raise AppError("afterwards")
    return left


@mutation
async def spend_while_it_goes(ctx: MutationCtx, limit: str) -> int:
    """How many could be spent one by one."""
    spent = 0
    while (await LIMITS[limit].try_spend(ctx)).ok:
        spent += 1
    return spent


@mutation
async def carries_on(ctx: MutationCtx) -> float:
    try:
        await LIMITS["plain"].spend(ctx, count=3)
        await LIMITS["plain"].spend(ctx, count=3)
    except RateLimited as error:
        return error.retry_after_s
    return 0.0


@query
async def check(ctx: QueryCtx, limit: str, key: str = "", count: float = 1) -> Allowance:
    return await LIMITS[limit].check(ctx, key, count=count)


@mutation
async def reset(ctx: MutationCtx, limit: str, key: str = "") -> None:
    await LIMITS[limit].reset(ctx, key)


@mutation
async def prune(ctx: MutationCtx, limit: str, most: int = 1000) -> int:
    return await LIMITS[limit].prune(ctx, limit=most)
