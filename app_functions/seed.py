"""What a new chat starts with."""

from __future__ import annotations

from reactor import MutationCtx, internal_mutation
from schema import Channel, Message, User

WELCOME = (
    "Welcome! Open this page in a second window: whatever happens in one shows in the other at once.",
    "The functions behind it are in app_functions/, the documents in schema.py. Save a change to either, and it is live.",
)


@internal_mutation
async def first_channels(ctx: MutationCtx) -> None:
    """Two channels and a word of welcome, unless there are channels already."""
    if await ctx.db.query(Channel).first():
        return
    guide = await ctx.db.insert(User(name="Reactor"))
    general = await ctx.db.insert(Channel(name="general", topic="Everything that concerns everyone"))
    await ctx.db.insert(Channel(name="random", topic="Everything else"))
    for body in WELCOME:
        await ctx.db.insert(Message(channel=general, author=guide, body=body, reactions=[]))
