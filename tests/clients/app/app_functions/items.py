from __future__ import annotations

from reactor import Id, MutationCtx, PaginationOptions, PaginationResult, QueryCtx, mutation, query
from schema import Item


@query
async def page(ctx: QueryCtx, list: str, options: PaginationOptions) -> PaginationResult[Item]:
    return await ctx.db.query(Item.by_list(list=list)).paginate(options)


@mutation
async def insert(ctx: MutationCtx, list: str, position: float) -> Id[Item]:
    return await ctx.db.insert(Item(list=list, position=position))


@mutation
async def fill(ctx: MutationCtx, list: str, count: int) -> None:
    for position in range(count):
        await ctx.db.insert(Item(list=list, position=position))


@mutation
async def remove(ctx: MutationCtx, item: Id[Item]) -> None:
    await ctx.db.delete(item)
