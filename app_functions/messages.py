"""Messages: history page by page, sending, editing, removing, reacting."""

from __future__ import annotations

from app_functions.channels import find_member
from app_functions.checks import current_user, mistake, tidy
from app_functions.presence import stop_typing
from reactor import Id, MutationCtx, PaginationOptions, PaginationResult, QueryCtx, mutation, query
from schema import Channel, Emoji, Message, Reaction, User

LONGEST = 4000


@query
async def page(ctx: QueryCtx, channel: Id[Channel], options: PaginationOptions) -> PaginationResult[Message]:
    """The channel's history, newest first."""
    return await ctx.db.query(Message.by_channel(channel=channel)).order("desc").paginate(options)


@mutation
async def send(ctx: MutationCtx, session: str, channel: Id[Channel], body: str) -> Id[Message]:
    user = await current_user(ctx, session)
    member = await find_member(ctx, channel, user.id)
    if member is None:
        raise mistake("NotAMember", "Join the channel to write in it.")
    body = tidy(body, what="A message", longest=LONGEST)
    message = await ctx.db.insert(Message(channel=channel, author=user.id, body=body, reactions=[]))
    sent = await ctx.db.get(message)
    assert sent
    await ctx.db.patch(member.id, read_until=sent.creation_time)
    await stop_typing(ctx, channel, user.id)
    return message


@mutation
async def edit(ctx: MutationCtx, session: str, message: Id[Message], body: str) -> None:
    own = await own_message(ctx, session, message)
    body = tidy(body, what="A message", longest=LONGEST)
    if body != own.body:
        await ctx.db.patch(message, body=body, edited=ctx.now)


@mutation
async def remove(ctx: MutationCtx, session: str, message: Id[Message]) -> None:
    await own_message(ctx, session, message)
    await ctx.db.delete(message)


@mutation
async def react(ctx: MutationCtx, session: str, message: Id[Message], emoji: Emoji) -> None:
    """Add the caller's reaction, or take it back."""
    user = await current_user(ctx, session)
    found = await ctx.db.get(message)
    if found is None:
        raise mistake("NoMessage", "This message was removed.")
    await ctx.db.patch(message, reactions=toggled(found.reactions, emoji, user.id))


def toggled(reactions: list[Reaction], emoji: Emoji, user: Id[User]) -> list[Reaction]:
    by_emoji: dict[Emoji, list[Id[User]]] = {reaction.emoji: reaction.users for reaction in reactions}
    users = by_emoji.get(emoji, [])
    by_emoji[emoji] = [other for other in users if other != user] if user in users else [*users, user]
    return [Reaction(emoji=each, users=users) for each, users in by_emoji.items() if users]


async def own_message(ctx: MutationCtx, session: str, message: Id[Message]) -> Message:
    user = await current_user(ctx, session)
    found = await ctx.db.get(message)
    if found is None:
        raise mistake("NoMessage", "This message was removed.")
    if found.author != user.id:
        raise mistake("NotYours", "Only its author can change a message.")
    return found
