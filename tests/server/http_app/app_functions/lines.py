from __future__ import annotations

from reactor import MutationCtx, QueryCtx, internal_mutation, internal_query
from schema import Line


@internal_mutation
async def add(ctx: MutationCtx, text: str) -> float:
    await ctx.db.insert(Line(text=text))
    return await ctx.db.query(Line).count()


@internal_query
async def texts(ctx: QueryCtx) -> list[str]:
    return [line.text async for line in ctx.db.query(Line)]
