from __future__ import annotations

from reactor import MutationCtx, QueryCtx, mutation, query
from schema import Note


@query
async def newest(ctx: QueryCtx, topic: str) -> Note | None:
    return await ctx.db.query(Note.by_topic(topic=topic)).order("desc").first()


@mutation
async def post(ctx: MutationCtx, topic: str, seq: int, body: str) -> None:
    await ctx.db.insert(Note(topic=topic, seq=seq, body=body))


@mutation
async def fill(ctx: MutationCtx, prefix: str, start: int, end: int) -> None:
    for number in range(start, end):
        await ctx.db.insert(Note(topic=f"{prefix}-{number}", seq=0, body=""))
