"""Functions that a test holds up."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from reactor import ActionCtx, MutationCtx, QueryCtx, action, mutation, query
from schema import Note
from tests.server.gates import gate, turns


@mutation
async def add(ctx: MutationCtx, name: str, list: str, text: str) -> None:
    await gate(name).reach()
    await ctx.db.insert(Note(list=list, text=text))


@query
async def texts(ctx: QueryCtx, name: str, list: str) -> list[str]:
    found = [note.text async for note in ctx.db.query(Note.by_list(list=list))]
    await gate(name).reach()
    return found


@action
async def wait(ctx: ActionCtx, name: str) -> str:
    await gate(name).reach()
    return name


@query
async def at_once(ctx: QueryCtx, list: str, suspends: float = 0) -> dict[str, Any]:
    await turns(int(suspends))
    found = [note.text async for note in ctx.db.query(Note.by_list(list=list))]
    await turns(int(suspends))
    identity = await ctx.auth.identity()
    return {"texts": found, "who": identity.subject if identity else None}


@query
async def slowly(ctx: QueryCtx, list: str) -> dict[str, Any]:
    """Suspends between its reads: others commit meanwhile."""
    return await ctx.run_query(at_once, list=list, suspends=3)


@mutation
async def add_after_reading(ctx: MutationCtx, list: str, text: str) -> int:
    """Suspends between reading and writing: others commit meanwhile."""
    count = await ctx.db.query(Note.by_list(list=list)).count()
    await turns(3)
    await ctx.db.insert(Note(list=list, text=text))
    return count


_last: ContextVar[str | None] = ContextVar("last", default=None)


@mutation
async def left_in_context(ctx: MutationCtx, value: str) -> str | None:
    """What another call has left in the context that it ran in."""
    before = _last.get()
    _last.set(value)
    return before
