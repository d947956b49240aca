"""What is measured while everything around it grows."""

from __future__ import annotations

from reactor import AppError, MutationCtx, QueryCtx, mutation, query
from schema import Item


@mutation
async def touch(ctx: MutationCtx, number: float) -> None:
    """Read one item by an index, and write it."""
    item = await ctx.db.query(Item.by_number(number=number)).unique()
    if item is None:
        raise AppError("There is no such item.")
    await ctx.db.patch(item.id, count=item.count + 1)


@query
async def get(ctx: QueryCtx, number: float, asked: float = 0.0) -> float | None:
    """How often an item was written; what is asked once, and what is watched.

    Args:
        asked: another number each time, so that no answer is a known one.
    """
    item = await ctx.db.query(Item.by_number(number=number)).unique()
    return item.count if item else None
