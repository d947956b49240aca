"""Reading environment variables."""

from __future__ import annotations

import asyncio
from typing import Any

from reactor import ActionCtx, MutationCtx, QueryCtx, action, mutation, query
from tests.functions.app.schema import Blob
from tests.functions.settings import Settings

#: The names that were read, one entry for each run.
runs: list[str] = []


@query
async def read(ctx: QueryCtx, name: str) -> str | None:
    runs.append(name)
    return ctx.env.get(name)


@query
async def require(ctx: QueryCtx, name: str) -> str:
    return ctx.env[name]


@query
async def names(ctx: QueryCtx) -> list[str]:
    runs.append("*")
    return list(ctx.env)


@query
async def greeting(ctx: QueryCtx) -> str:
    runs.append("settings")
    return ctx.env.settings(Settings).greeting


@query
async def nested(ctx: QueryCtx, name: str) -> str | None:
    return await ctx.run_query(read, name=name)


@mutation
async def keep(ctx: MutationCtx, name: str) -> str | None:
    value = ctx.env.get(name)
    await ctx.db.insert(Blob(text=value or ""))
    return value


class Pause:
    """Where ``slowly`` stops until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()


pause: Pause = Pause()


@mutation
async def slowly(ctx: MutationCtx, name: str) -> str | None:
    value = ctx.env.get(name)
    pause.reached.set()
    await pause.open.wait()
    await ctx.db.insert(Blob(text=value or ""))
    return value


@action
async def act(ctx: ActionCtx, name: str) -> list[Any]:
    return [ctx.env.get(name), name in ctx.env, "CONVEX_CLOUD_URL" in ctx.env, len(ctx.env)]


@action
async def outlive(ctx: ActionCtx) -> None:
    await ctx.run_query(leave)


left: list[QueryCtx] = []


@query
async def leave(ctx: QueryCtx) -> None:
    left.append(ctx)
