from reactor import Id, MutationCtx, QueryCtx, mutation, query
from schema import Note


@query
async def me(ctx: QueryCtx) -> str | None:
    identity = await ctx.auth.identity()
    return identity.name or identity.subject if identity else None


@query
async def mine(ctx: QueryCtx) -> list[str]:
    identity = await ctx.auth.require()
    return [note.text async for note in ctx.db.query(Note.by_owner(owner=identity.token_identifier))]


@mutation
async def add(ctx: MutationCtx, text: str) -> Id[Note]:
    identity = await ctx.auth.require()
    return await ctx.db.insert(Note(owner=identity.token_identifier, text=text))
