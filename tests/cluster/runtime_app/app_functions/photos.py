from reactor import Id, MutationCtx, QueryCtx, StoredFile, mutation, query
from schema import Photo


@mutation
async def upload_url(ctx: MutationCtx) -> str:
    return await ctx.storage.generate_upload_url()


@mutation
async def add(ctx: MutationCtx, title: str, file: Id[StoredFile]) -> Id[Photo]:
    return await ctx.db.insert(Photo(title=title, file=file))


@query
async def url(ctx: QueryCtx, title: str) -> str | None:
    photo = await ctx.db.query(Photo.by_title(title=title)).unique()
    return None if photo is None else await ctx.storage.get_url(photo.file)


@mutation
async def remove(ctx: MutationCtx, file: Id[StoredFile]) -> None:
    await ctx.storage.delete(file)
