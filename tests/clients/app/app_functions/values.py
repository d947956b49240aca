from __future__ import annotations

from typing import Any

from reactor import Int64, MutationCtx, QueryCtx, mutation, query
from schema import Box


@query
async def echo(ctx: QueryCtx, value: Any) -> Any:
    return value


@query
async def repeat(ctx: QueryCtx, text: str, times: int) -> str:
    return text * times


@mutation
async def store(ctx: MutationCtx, name: str, content: Any) -> None:
    box = await ctx.db.query(Box.by_name(name=name)).unique()
    if box is None:
        await ctx.db.insert(Box(name=name, content=content))
    else:
        await ctx.db.patch(box.id, content=content)


@query
async def load(ctx: QueryCtx, name: str) -> Any:
    box = await ctx.db.query(Box.by_name(name=name)).unique()
    return box.content if box else None


@query
async def next_int64(ctx: QueryCtx, n: Int64) -> Int64:
    return Int64(n + 1)


@query
async def next_int(ctx: QueryCtx, n: int) -> int:
    return n + 1


@query
async def reverse_bytes(ctx: QueryCtx, data: bytes) -> bytes:
    return data[::-1]
