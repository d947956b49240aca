"""Functions that print and log."""

from __future__ import annotations

import logging

from reactor import ActionCtx, AppError, MutationCtx, QueryCtx, action, mutation, query
from schema import Counter

log = logging.getLogger(__name__)


@query
async def asks(ctx: QueryCtx, name: str) -> int:
    print("looking for", name)
    return await ctx.db.query(Counter.by_name(name=name)).count()


@mutation
async def writes(ctx: MutationCtx, name: str) -> None:
    log.info("writing %s", name)
    await ctx.db.insert(Counter(name=name, count=1))


@action
async def acts(ctx: ActionCtx, name: str) -> None:
    log.warning("acting on %s", name)


@mutation
async def refuses(ctx: MutationCtx, name: str) -> None:
    print("refusing", name)
    raise AppError("no")
