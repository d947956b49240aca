"""Files that clients send with fetch, and keep in documents."""

from __future__ import annotations

from reactor import ActionCtx, Id, MutationCtx, QueryCtx, StoredFile, action, mutation, query


@mutation
async def upload_url(ctx: MutationCtx) -> str:
    return await ctx.storage.generate_upload_url()


@query
async def url(ctx: QueryCtx, id: Id[StoredFile]) -> str | None:
    return await ctx.storage.get_url(id)


@query
async def described(ctx: QueryCtx, id: Id[StoredFile]) -> StoredFile | None:
    return await ctx.db.get(id)


@mutation
async def remove(ctx: MutationCtx, id: Id[StoredFile]) -> None:
    await ctx.storage.delete(id)


@action
async def upper(ctx: ActionCtx, id: Id[StoredFile]) -> Id[StoredFile]:
    content = await ctx.storage.get(id) or b""
    return await ctx.storage.store(content.upper(), content_type="text/plain")
