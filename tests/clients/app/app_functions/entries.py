from __future__ import annotations

from reactor import MutationCtx, QueryCtx, mutation, query
from schema import Entry


@mutation
async def append(ctx: MutationCtx, log: str, key: str) -> str:
    await ctx.db.insert(Entry(log=log, key=key))
    return key


@query
async def keys(ctx: QueryCtx, log: str) -> list[str]:
    return [entry.key async for entry in ctx.db.query(Entry.by_log(log=log))]


@query
async def count(ctx: QueryCtx, log: str) -> int:
    return await ctx.db.query(Entry.by_log(log=log)).count()
