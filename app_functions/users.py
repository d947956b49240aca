"""People. There is no password: a browser's session, a secret it made up itself, is who it is."""

from __future__ import annotations

from app_functions import seed
from app_functions.checks import mistake, tidy
from reactor import Id, MutationCtx, QueryCtx, mutation, query
from schema import Channel, Member, Session, User

SESSION_CHARS = 24  # at least; a shorter secret could be guessed


@query
async def me(ctx: QueryCtx, session: str) -> User | None:
    known = await ctx.db.query(Session.by_token(token=session)).unique()
    return await ctx.db.get(known.user) if known else None


@query
async def everyone(ctx: QueryCtx) -> list[User]:
    return await ctx.db.query(User.by_name()).collect()


@mutation
async def join(ctx: MutationCtx, session: str, name: str) -> Id[User]:
    """Enter the chat under a name. A session that has entered before is renamed."""
    if len(session) < SESSION_CHARS:
        raise mistake("WeakSession", f"A session needs at least {SESSION_CHARS} characters.")
    name = tidy(name, what="Your name", longest=40)
    known = await ctx.db.query(Session.by_token(token=session)).unique()
    namesake = await ctx.db.query(User.by_name(name=name)).first()
    if namesake and not (known and known.user == namesake.id):
        raise mistake("NameTaken", f"{name} is here already. Please choose another name.")
    if known:
        await ctx.db.patch(known.user, name=name)
        return known.user

    user = await ctx.db.insert(User(name=name))
    await ctx.db.insert(Session(token=session, user=user))
    await ctx.run_mutation(seed.first_channels)
    async for channel in ctx.db.query(Channel):
        await ctx.db.insert(Member(channel=channel.id, user=user, read_until=0))
    return user
