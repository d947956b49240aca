from __future__ import annotations

from datetime import timedelta

from reactor import ActionCtx, Id, MutationCtx, PaginationOptions, PaginationResult, QueryCtx, action, internal_mutation, mutation, query
from schema import Note


@query
async def texts(ctx: QueryCtx, list: str) -> list[str]:
    return [note.text async for note in ctx.db.query(Note.by_list(list=list))]


@query
async def page(ctx: QueryCtx, list: str, options: PaginationOptions) -> PaginationResult[Note]:
    return await ctx.db.query(Note.by_list(list=list)).paginate(options)


@mutation
async def add(ctx: MutationCtx, list: str, text: str) -> Id[Note]:
    print("adding", text)
    return await ctx.db.insert(Note(list=list, text=text))


@mutation
async def add_later(ctx: MutationCtx, list: str, text: str, seconds: float) -> None:
    await ctx.scheduler.run_after(timedelta(seconds=seconds), add, list=list, text=text)


@mutation
async def add_to(ctx: MutationCtx, lists: list[str], text: str) -> str:
    for name in lists:
        await ctx.db.insert(Note(list=name, text=text))
    return text


@mutation
async def look(ctx: MutationCtx, list: str) -> int:
    """Writes nothing."""
    return await ctx.db.query(Note.by_list(list=list)).count()


@mutation
async def clear(ctx: MutationCtx, list: str) -> None:
    async for note in ctx.db.query(Note.by_list(list=list)):
        await ctx.db.delete(note.id)


@action
async def add_all(ctx: ActionCtx, list: str, texts: list[str]) -> int:
    for text in texts:
        await ctx.run_mutation(add, list=list, text=text)
    return len(texts)


@action
async def look_often(ctx: ActionCtx, list: str, times: float) -> None:
    for _ in range(int(times)):
        await ctx.run_query(texts, list=list)


@internal_mutation
async def hidden(ctx: MutationCtx, list: str) -> str:
    await ctx.db.insert(Note(list=list, text="hidden"))
    return "hidden"


@query
async def one(ctx: QueryCtx, note: Id[Note]) -> str | None:
    found = await ctx.db.get(note)
    return found.text if found else None
