"""Channels: which there are, who is in them, and what each member has not read yet."""

from __future__ import annotations

import asyncio
import re

from pydantic import BaseModel

from app_functions.checks import current_user, mistake, tidy
from reactor import Id, MutationCtx, QueryCtx, gt, mutation, query
from schema import Channel, Member, Message, User

UNREAD_COUNTED = 100  # the page shows "99+" from here on
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,29}")


class ChannelSummary(BaseModel):
    """A channel as one user sees it."""

    id: Id[Channel]
    name: str
    topic: str
    joined: bool
    unread: int


@query
async def overview(ctx: QueryCtx, session: str) -> list[ChannelSummary]:
    """Every channel by name, with the caller's unread messages in those they joined."""
    user = await current_user(ctx, session)
    memberships = {member.channel: member async for member in ctx.db.query(Member.by_user(user=user.id))}

    async def summary(channel: Channel) -> ChannelSummary:
        member = memberships.get(channel.id)
        unread = await count_unread(ctx, member) if member else 0
        return ChannelSummary(id=channel.id, name=channel.name, topic=channel.topic, joined=member is not None, unread=unread)

    return await asyncio.gather(*[summary(channel) async for channel in ctx.db.query(Channel.by_name())])


async def count_unread(ctx: QueryCtx, member: Member) -> int:
    """Reads at most UNREAD_COUNTED messages, so that a member who is far behind neither costs more nor reruns for each new one."""
    unread = Message.by_channel(channel=member.channel, creation_time=gt(member.read_until))
    return len(await ctx.db.query(unread).take(UNREAD_COUNTED))


@query
async def members(ctx: QueryCtx, channel: Id[Channel]) -> list[User]:
    """Who is in the channel, by name."""
    found = [await ctx.db.get(member.user) async for member in ctx.db.query(Member.by_channel(channel=channel))]
    return sorted([user for user in found if user], key=lambda user: user.name.casefold())


@mutation
async def create(ctx: MutationCtx, session: str, name: str, topic: str = "") -> Id[Channel]:
    """Open a channel and join it."""
    user = await current_user(ctx, session)
    name = tidy(name, what="The name", longest=30).lower().replace(" ", "-")
    if not NAME.fullmatch(name):
        raise mistake("BadName", "A channel's name has letters, digits and dashes only.")
    if await ctx.db.query(Channel.by_name(name=name)).first():
        raise mistake("NameTaken", f"There is a channel #{name} already.")
    channel = await ctx.db.insert(Channel(name=name, topic=topic.strip()[:120]))
    await ctx.db.insert(Member(channel=channel, user=user.id, read_until=0))
    return channel


@mutation
async def join(ctx: MutationCtx, session: str, channel: Id[Channel]) -> None:
    user = await current_user(ctx, session)
    if await ctx.db.get(channel) is None:
        raise mistake("NoChannel", "This channel is gone.")
    if await find_member(ctx, channel, user.id) is None:
        await ctx.db.insert(Member(channel=channel, user=user.id, read_until=0))


@mutation
async def leave(ctx: MutationCtx, session: str, channel: Id[Channel]) -> None:
    user = await current_user(ctx, session)
    member = await find_member(ctx, channel, user.id)
    if member:
        await ctx.db.delete(member.id)


@mutation
async def mark_read(ctx: MutationCtx, session: str, channel: Id[Channel], until: float) -> None:
    """Everything up to the message with this creation time has been seen."""
    user = await current_user(ctx, session)
    member = await find_member(ctx, channel, user.id)
    if member and member.read_until < until:
        await ctx.db.patch(member.id, read_until=until)


async def find_member(ctx: QueryCtx, channel: Id[Channel], user: Id[User]) -> Member | None:
    return await ctx.db.query(Member.by_channel(channel=channel, user=user)).unique()
