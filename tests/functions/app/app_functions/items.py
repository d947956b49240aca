"""Reading and writing items."""

from __future__ import annotations

from reactor import Id, MutationCtx, PaginationOptions, PaginationResult, QueryCtx, gte, mutation, query
from tests.functions.app.schema import Item


@mutation
async def insert(ctx: MutationCtx, list: str, rank: float) -> Id[Item]:
    return await ctx.db.insert(Item(list=list, rank=rank))


@mutation
async def remove(ctx: MutationCtx, item: Id[Item]) -> None:
    await ctx.db.delete(item)


@mutation
async def touch(ctx: MutationCtx, item: Id[Item]) -> None:
    """Write what is there already."""
    found = await ctx.db.get(item)
    assert found is not None
    await ctx.db.patch(item, rank=found.rank)


@query
async def get(ctx: QueryCtx, item: Id[Item]) -> Item | None:
    return await ctx.db.get(item)


@query
async def ranks(ctx: QueryCtx, list: str, at_least: float = 0) -> list[float]:
    return [item.rank for item in await ctx.db.query(Item.by_list(list=list, rank=gte(at_least))).collect()]


@query
async def least(ctx: QueryCtx, list: str, count: int) -> list[float]:
    return [item.rank for item in await ctx.db.query(Item.by_list(list=list)).take(count)]


@query
async def page(ctx: QueryCtx, list: str, options: PaginationOptions, descending: bool = False) -> PaginationResult[Item]:
    return await ctx.db.query(Item.by_list(list=list)).order("desc" if descending else "asc").paginate(options)


@query
async def even_page(ctx: QueryCtx, options: PaginationOptions) -> PaginationResult[Item]:
    return await ctx.db.query(Item.by_list(list="a")).filter(lambda item: item.rank % 2 == 0).paginate(options)


@query
async def two_pages(ctx: QueryCtx, options: PaginationOptions) -> None:
    await ctx.db.query(Item).paginate(options)
    await ctx.db.query(Item).paginate(options)


@query
async def nested_pages(ctx: QueryCtx, options: PaginationOptions) -> int:
    first = await ctx.run_query(page, list="a", options=options)
    second = await ctx.run_query(page, list="b", options=options)
    own = await ctx.db.query(Item).paginate(options)
    return len(first.page) + len(second.page) + len(own.page)
