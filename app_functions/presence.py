"""Who is here, and who is writing.

A query never sees time pass: it runs again only when what it read has changed. So rows say who is here *now*, and
it is the heartbeats of those who still are here that remove the rows of those who left without a word.
"""

from __future__ import annotations

from app_functions.checks import current_user
from reactor import Id, MutationCtx, QueryCtx, lt, mutation, query
from schema import Channel, Presence, Typing, User

PRESENT_MS = 75_000  # above one minute: browsers slow a hidden page's timers down to that
TYPING_MS = 8_000  # the page repeats itself every 3 s while keys are pressed


@query
async def here(ctx: QueryCtx) -> list[Id[User]]:
    """Heartbeats make this run again, but as long as nobody comes or leaves the result is the same and nothing is sent."""
    return [row.user async for row in ctx.db.query(Presence.by_user())]


@query
async def writing(ctx: QueryCtx, channel: Id[Channel]) -> list[Id[User]]:
    return [row.user async for row in ctx.db.query(Typing.by_channel(channel=channel))]


@mutation
async def heartbeat(ctx: MutationCtx, session: str) -> None:
    """The page calls this every 10 s."""
    user = await current_user(ctx, session)
    row = await ctx.db.query(Presence.by_user(user=user.id)).unique()
    if row:
        await ctx.db.patch(row.id, seen=ctx.now)
    else:
        await ctx.db.insert(Presence(user=user.id, seen=ctx.now))
    await sweep(ctx)


@mutation
async def leave(ctx: MutationCtx, session: str) -> None:
    """The page is being closed."""
    user = await current_user(ctx, session)
    row = await ctx.db.query(Presence.by_user(user=user.id)).unique()
    if row:
        await ctx.db.delete(row.id)


@mutation
async def set_typing(ctx: MutationCtx, session: str, channel: Id[Channel], typing: bool) -> None:
    user = await current_user(ctx, session)
    if not typing:
        return await stop_typing(ctx, channel, user.id)
    row = await ctx.db.query(Typing.by_channel(channel=channel, user=user.id)).unique()
    if row:
        await ctx.db.patch(row.id, seen=ctx.now)
    else:
        await ctx.db.insert(Typing(channel=channel, user=user.id, seen=ctx.now))


async def stop_typing(ctx: MutationCtx, channel: Id[Channel], user: Id[User]) -> None:
    row = await ctx.db.query(Typing.by_channel(channel=channel, user=user)).unique()
    if row:
        await ctx.db.delete(row.id)


async def sweep(ctx: MutationCtx) -> None:
    """Remove the rows of pages that fell silent."""
    for gone in await ctx.db.query(Presence.by_seen(seen=lt(ctx.now - PRESENT_MS))).take(100):
        await ctx.db.delete(gone.id)
    for stopped in await ctx.db.query(Typing.by_seen(seen=lt(ctx.now - TYPING_MS))).take(100):
        await ctx.db.delete(stopped.id)
