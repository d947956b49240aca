from __future__ import annotations

from typing import Any

from reactor import ActionCtx, AppError, MutationCtx, QueryCtx, action, mutation, query
from schema import Note


@query
async def asks(ctx: QueryCtx, data: Any) -> None:
    raise AppError(data)


@mutation
async def refuses(ctx: MutationCtx, data: Any) -> None:
    await ctx.db.insert(Note(list="refused", text="must not remain"))
    raise AppError(data)


@action
async def acts(ctx: ActionCtx, data: Any) -> None:
    raise AppError(data)


@mutation
async def crashes(ctx: MutationCtx) -> None:
    raise RuntimeError("the secret is 4711")


@mutation
async def first_time(ctx: MutationCtx, list: str) -> str:
    """Fails as long as the list is empty."""
    if await ctx.db.query(Note.by_list(list=list)).first() is None:
        raise AppError("empty")
    await ctx.db.insert(Note(list=list, text="second"))
    return "second"


@query
async def empty(ctx: QueryCtx, list: str) -> str:
    """Fails when the list is not empty: a live query's failure comes and goes."""
    notes = await ctx.db.query(Note.by_list(list=list)).collect()
    if notes:
        raise AppError({"text": notes[0].text})
    return "empty"


@query
async def says(ctx: QueryCtx, code: float, how: str) -> str:
    """A character by its code: half a surrogate pair has no text of its own, but Python makes it."""
    letter = chr(int(code))
    if how == "raise":
        raise ValueError(letter)
    if how == "refuse":
        raise AppError({"letter": letter})
    if how == "print":
        print(letter)
        return ""
    return letter


@mutation
async def writes_and_says(ctx: MutationCtx, code: float, list: str) -> str:
    print(chr(int(code)))
    await ctx.db.insert(Note(list=list, text="written"))
    return "written"
