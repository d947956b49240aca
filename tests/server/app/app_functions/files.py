"""Files that clients send and get."""

from __future__ import annotations

from reactor import Id, MutationCtx, QueryCtx, StoredFile, mutation, query


@mutation
async def upload_url(ctx: MutationCtx) -> str:
    return await ctx.storage.generate_upload_url()


@mutation
async def remove(ctx: MutationCtx, id: Id[StoredFile]) -> None:
    await ctx.storage.delete(id)


@query
async def url(ctx: QueryCtx, id: Id[StoredFile]) -> str | None:
    return await ctx.storage.get_url(id)


@query
async def newest(ctx: QueryCtx) -> StoredFile | None:
    return await ctx.db.query(StoredFile).order("desc").first()
