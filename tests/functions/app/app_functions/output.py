"""Functions that print and log."""

from __future__ import annotations

import logging
import sys

from reactor import ActionCtx, AppError, QueryCtx, action, query

log = logging.getLogger(__name__)
log.setLevel(logging.DEBUG)


@query
async def prints(ctx: QueryCtx, texts: list[str]) -> None:
    for text in texts:
        print(text)


@query
async def every_level(ctx: QueryCtx) -> None:
    print("one", 2)
    print("to stderr", file=sys.stderr)
    log.debug("debug")
    log.info("info of %s", "Ada")
    log.warning("warning")
    log.error("error")
    log.critical("critical")
    print("two\nlines")
    print("no end", end="")


@query
async def prints_and_fails(ctx: QueryCtx) -> None:
    await ctx.run_query(prints, texts=["before"])
    raise AppError("failed")


@query
async def logs_an_exception(ctx: QueryCtx) -> None:
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        log.exception("caught")


@action
async def acts(ctx: ActionCtx) -> None:
    print("acting")
    await ctx.run_query(prints, texts=["of the query"])
