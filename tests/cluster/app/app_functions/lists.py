from __future__ import annotations

from reactor import MutationCtx, QueryCtx, mutation, query
from schema import Listing


@mutation
async def append(ctx: MutationCtx, run: str, keys: list[str], value: float) -> dict[str, list[float]]:
    """Append to each of the lists; what they are then."""
    found: dict[str, list[float]] = {}
    for key in keys:
        listing = await ctx.db.query(Listing.by_key(run=run, key=key)).unique()
        if listing is None:
            found[key] = [value]
            await ctx.db.insert(Listing(run=run, key=key, values=found[key]))
        else:
            found[key] = [*listing.values, value]
            await ctx.db.patch(listing.id, values=found[key])
    return found


@mutation
async def read(ctx: MutationCtx, run: str, keys: list[str]) -> dict[str, list[float]]:
    """What the lists are, in a mutation, so that it has its place among them."""
    return {listing.key: listing.values async for listing in ctx.db.query(Listing.by_key(run=run)) if listing.key in keys}


@query
async def everything(ctx: QueryCtx, run: str) -> dict[str, list[float]]:
    return {listing.key: listing.values async for listing in ctx.db.query(Listing.by_key(run=run))}
