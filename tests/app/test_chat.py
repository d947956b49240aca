"""The team chat's functions, on the real engine in memory."""

from __future__ import annotations

import pytest

from app_functions import channels, messages, presence, users
from app_functions.channels import UNREAD_COUNTED, ChannelSummary
from reactor import AppError, Id, PaginationOptions
from reactor.testing import TestBackend
from schema import Channel, Message

pytestmark = pytest.mark.anyio

ADA = "ada-" + "a" * 24
GRACE = "grace-" + "g" * 24


async def summary(backend: TestBackend, session: str, name: str = "general") -> ChannelSummary:
    found = await backend.query(channels.overview, session=session)
    return next(channel for channel in found if channel.name == name)


async def general(backend: TestBackend) -> Id[Channel]:
    return (await summary(backend, ADA)).id


async def history(backend: TestBackend, channel: Id[Channel]) -> list[Message]:
    """Newest first, without the words of welcome."""
    page = await backend.query(messages.page, channel=channel, options=PaginationOptions(num_items=100, cursor=None))
    return page.page[:-2]


async def refusal(code: str, call: object) -> None:
    with pytest.raises(AppError) as refused:
        await call  # type: ignore[misc]
    assert refused.value.data["code"] == code


async def test_the_first_to_join_finds_two_channels_and_a_welcome(backend: TestBackend) -> None:
    assert await backend.query(users.me, session=ADA) is None
    user = await backend.mutation(users.join, session=ADA, name="  Ada ")
    me = await backend.query(users.me, session=ADA)
    assert me is not None and (me.id, me.name) == (user, "Ada")
    found = await backend.query(channels.overview, session=ADA)
    assert [(channel.name, channel.joined, channel.unread) for channel in found] == [("general", True, 2), ("random", True, 0)]


async def test_joining_again_renames(backend: TestBackend) -> None:
    first = await backend.mutation(users.join, session=ADA, name="Ada")
    assert await backend.mutation(users.join, session=ADA, name="Ada") == first
    assert await backend.mutation(users.join, session=ADA, name="Countess") == first
    assert [user.name for user in await backend.query(users.everyone)] == ["Countess", "Reactor"]


async def test_a_name_is_given_once_and_a_session_must_be_hard_to_guess(backend: TestBackend) -> None:
    await backend.mutation(users.join, session=ADA, name="Ada")
    await refusal("NameTaken", backend.mutation(users.join, session=GRACE, name="Ada"))
    await refusal("Empty", backend.mutation(users.join, session=GRACE, name="   "))
    await refusal("TooLong", backend.mutation(users.join, session=GRACE, name="G" * 41))
    await refusal("WeakSession", backend.mutation(users.join, session="1234", name="Grace"))
    await refusal("SignedOut", backend.query(channels.overview, session=GRACE))


async def test_what_others_write_is_unread_until_marked(backend: TestBackend) -> None:
    await backend.mutation(users.join, session=ADA, name="Ada")
    await backend.mutation(users.join, session=GRACE, name="Grace")
    channel = await general(backend)
    for body in ("one", "two", "three"):
        await backend.mutation(messages.send, session=ADA, channel=channel, body=body)
    assert (await summary(backend, ADA)).unread == 0
    assert (await summary(backend, GRACE)).unread == 5

    _, two, _ = await history(backend, channel)
    await backend.mutation(channels.mark_read, session=GRACE, channel=channel, until=two.creation_time)
    assert (await summary(backend, GRACE)).unread == 1
    await backend.mutation(channels.mark_read, session=GRACE, channel=channel, until=0)
    assert (await summary(backend, GRACE)).unread == 1, "a read mark never goes back"


async def test_unread_messages_are_counted_up_to_a_bound(backend: TestBackend) -> None:
    await backend.mutation(users.join, session=ADA, name="Ada")
    await backend.mutation(users.join, session=GRACE, name="Grace")
    channel = await general(backend)
    for number in range(UNREAD_COUNTED + 1):
        await backend.mutation(messages.send, session=ADA, channel=channel, body=str(number))
    assert (await summary(backend, GRACE)).unread == UNREAD_COUNTED


async def test_channels_are_created_joined_and_left(backend: TestBackend) -> None:
    await backend.mutation(users.join, session=ADA, name="Ada")
    await backend.mutation(users.join, session=GRACE, name="Grace")
    channel = await backend.mutation(channels.create, session=ADA, name="Launch Week", topic="Soon")
    seen = await summary(backend, GRACE, "launch-week")
    assert (seen.id, seen.topic, seen.joined) == (channel, "Soon", False)

    await refusal("NotAMember", backend.mutation(messages.send, session=GRACE, channel=channel, body="hi"))
    await backend.mutation(channels.join, session=GRACE, channel=channel)
    await backend.mutation(channels.join, session=GRACE, channel=channel)
    assert [user.name for user in await backend.query(channels.members, channel=channel)] == ["Ada", "Grace"]
    await backend.mutation(messages.send, session=GRACE, channel=channel, body="hi")
    await backend.mutation(channels.leave, session=ADA, channel=channel)
    assert [user.name for user in await backend.query(channels.members, channel=channel)] == ["Grace"]

    await refusal("NameTaken", backend.mutation(channels.create, session=ADA, name="launch week"))
    await refusal("BadName", backend.mutation(channels.create, session=ADA, name="Café!"))


async def test_a_message_is_changed_by_its_author_only(backend: TestBackend) -> None:
    await backend.mutation(users.join, session=ADA, name="Ada")
    await backend.mutation(users.join, session=GRACE, name="Grace")
    channel = await general(backend)
    message = await backend.mutation(messages.send, session=ADA, channel=channel, body="draft")
    await refusal("NotYours", backend.mutation(messages.edit, session=GRACE, message=message, body="mine"))
    await refusal("NotYours", backend.mutation(messages.remove, session=GRACE, message=message))
    await refusal("Empty", backend.mutation(messages.edit, session=ADA, message=message, body=" "))

    await backend.mutation(messages.edit, session=ADA, message=message, body="draft")
    assert (await history(backend, channel))[0].edited is None, "the same text is no edit"
    await backend.mutation(messages.edit, session=ADA, message=message, body="final")
    (edited,) = await history(backend, channel)
    assert edited.body == "final" and edited.edited is not None
    await backend.mutation(messages.remove, session=ADA, message=message)
    assert await history(backend, channel) == []
    await refusal("NoMessage", backend.mutation(messages.remove, session=ADA, message=message))


async def test_a_reaction_is_given_and_taken_back(backend: TestBackend) -> None:
    ada = await backend.mutation(users.join, session=ADA, name="Ada")
    grace = await backend.mutation(users.join, session=GRACE, name="Grace")
    channel = await general(backend)
    message = await backend.mutation(messages.send, session=ADA, channel=channel, body="done!")

    async def reactions() -> dict[str, list[str]]:
        (found,) = await history(backend, channel)
        return {reaction.emoji: list(reaction.users) for reaction in found.reactions}

    await backend.mutation(messages.react, session=GRACE, message=message, emoji="🎉")
    await backend.mutation(messages.react, session=ADA, message=message, emoji="🎉")
    await backend.mutation(messages.react, session=ADA, message=message, emoji="👀")
    assert await reactions() == {"🎉": [grace, ada], "👀": [ada]}
    await backend.mutation(messages.react, session=ADA, message=message, emoji="👀")
    await backend.mutation(messages.react, session=GRACE, message=message, emoji="🎉")
    assert await reactions() == {"🎉": [ada]}


async def test_history_comes_newest_first_and_page_by_page(backend: TestBackend) -> None:
    await backend.mutation(users.join, session=ADA, name="Ada")
    channel = await general(backend)
    for body in ("one", "two", "three"):
        await backend.mutation(messages.send, session=ADA, channel=channel, body=body)
    first = await backend.query(messages.page, channel=channel, options=PaginationOptions(num_items=2, cursor=None))
    assert [message.body for message in first.page] == ["three", "two"]
    second = await backend.query(messages.page, channel=channel, options=PaginationOptions(num_items=9, cursor=first.continue_cursor))
    assert second.page[0].body == "one" and second.is_done


async def test_who_falls_silent_is_swept_by_the_heartbeats_of_the_others(backend: TestBackend) -> None:
    ada = await backend.mutation(users.join, session=ADA, name="Ada")
    grace = await backend.mutation(users.join, session=GRACE, name="Grace")
    channel = await general(backend)
    await backend.mutation(presence.heartbeat, session=ADA)
    await backend.mutation(presence.heartbeat, session=GRACE)
    await backend.mutation(presence.set_typing, session=GRACE, channel=channel, typing=True)
    assert set(await backend.query(presence.here)) == {ada, grace}
    assert await backend.query(presence.writing, channel=channel) == [grace]

    await backend.advance(seconds=10)
    await backend.mutation(presence.heartbeat, session=ADA)
    assert await backend.query(presence.writing, channel=channel) == []
    assert set(await backend.query(presence.here)) == {ada, grace}

    await backend.advance(seconds=70)
    await backend.mutation(presence.heartbeat, session=ADA)
    assert await backend.query(presence.here) == [ada]
    await backend.mutation(presence.leave, session=ADA)
    assert await backend.query(presence.here) == []


async def test_sending_or_clearing_ends_typing(backend: TestBackend) -> None:
    ada = await backend.mutation(users.join, session=ADA, name="Ada")
    channel = await general(backend)
    await backend.mutation(presence.set_typing, session=ADA, channel=channel, typing=True)
    await backend.mutation(presence.set_typing, session=ADA, channel=channel, typing=True)
    assert await backend.query(presence.writing, channel=channel) == [ada]
    await backend.mutation(messages.send, session=ADA, channel=channel, body="there")
    assert await backend.query(presence.writing, channel=channel) == []
    await backend.mutation(presence.set_typing, session=ADA, channel=channel, typing=True)
    await backend.mutation(presence.set_typing, session=ADA, channel=channel, typing=False)
    assert await backend.query(presence.writing, channel=channel) == []
