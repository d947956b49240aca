"""Functions that a test holds up."""

from __future__ import annotations

from reactor import ActionCtx, MutationCtx, QueryCtx, action, mutation, query
from schema import Note
from tests.server.gates import gate


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
