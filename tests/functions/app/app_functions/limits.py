"""Functions that meet limits."""

from __future__ import annotations

from typing import Any

from reactor import LimitExceeded, MutationCtx, QueryCtx, mutation, query
from tests.functions.app.schema import Blob, Item


@query
async def scans(ctx: QueryCtx) -> int:
    return len(await ctx.db.query(Item).collect())


@query
async def filters(ctx: QueryCtx) -> int:
    return await ctx.db.query(Item).filter(lambda item: item.rank < 0).count()


@query
async def iterates(ctx: QueryCtx) -> int:
    return len([item async for item in ctx.db.query(Item)])


@query
async def counts(ctx: QueryCtx) -> int:
    return await ctx.db.query(Item).count()


@query
async def takes(ctx: QueryCtx) -> int:
    return len(await ctx.db.query(Item).take(100))


@query
async def asks(ctx: QueryCtx, times: int) -> None:
    for _ in range(times):
        await ctx.db.query(Item.by_rank(rank=-1)).first()


@query
async def goes_on(ctx: QueryCtx) -> list[str]:
    """Catches what it met, and tries again in every way."""
    met = []
    for read in (ctx.db.query(Item).collect, ctx.db.query(Item).count, ctx.db.query(Item).first, ctx.db.query(Item).collect):
        try:
            await read()
        except LimitExceeded as error:
            met.append(error.code)
    return met


@mutation
async def writes(ctx: MutationCtx, documents: int, size: int = 0) -> None:
    for _ in range(documents):
        await ctx.db.insert(Blob(text="x" * size))


@mutation
async def writes_nested(ctx: MutationCtx, each: int) -> list[str]:
    """What a nested mutation that failed has written does not count."""
    met = []
    for _ in range(3):
        try:
            await ctx.run_mutation(fails_after_writing, each)
        except ValueError as error:
            met.append(str(error))
    await ctx.run_mutation(writes, each)
    return met


@mutation
async def fails_after_writing(ctx: MutationCtx, documents: int) -> None:
    await ctx.run_mutation(writes, documents)
    raise ValueError("undone")


@mutation
async def nests(ctx: MutationCtx, depth: int) -> None:
    """Insert a document of which one field is this deep."""
    deep: Any = 1.0
    for _ in range(depth):
        deep = [deep]
    await ctx.db.insert(Blob(deep=deep))


@query
async def echo(ctx: QueryCtx, value: Any) -> Any:
    return value


@query
async def returns_deep(ctx: QueryCtx, depth: int) -> Any:
    deep: Any = 1.0
    for _ in range(depth):
        deep = [deep]
    return deep
