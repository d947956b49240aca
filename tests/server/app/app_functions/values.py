from __future__ import annotations

from typing import Any

from reactor import ActionCtx, Int64, MutationCtx, QueryCtx, action, mutation, query


@query
async def echo(ctx: QueryCtx, value: Any) -> Any:
    return value


@query
async def whole(ctx: QueryCtx, n: Int64) -> Int64:
    return Int64(n + 1)


@query
async def who(ctx: QueryCtx) -> str | None:
    identity = await ctx.auth.identity()
    return identity.token_identifier if identity else None


@query
async def long(ctx: QueryCtx, letter: str, times: float) -> str:
    return letter * int(times)


@mutation
async def long_of_a_mutation(ctx: MutationCtx, letter: str, times: float) -> str:
    return letter * int(times)


@action
async def long_of_an_action(ctx: ActionCtx, letter: str, times: float) -> str:
    return letter * int(times)


@query
async def speaks(ctx: QueryCtx, text: str) -> None:
    print(text)


@query
async def variable(ctx: QueryCtx, name: str) -> str | None:
    return ctx.env.get(name)
