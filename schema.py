"""What the team chat stores: people, channels, messages, and who is here right now."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from reactor import Document, Id, Index

Emoji = Literal["👍", "❤️", "😂", "🎉", "👀"]


class User(Document, table="users"):
    name: str

    by_name = Index("name")


class Session(Document, table="sessions"):
    """Ties a browser to a user. The token is a secret of that browser: no query returns it."""

    token: str
    user: Id[User]

    by_token = Index("token")


class Channel(Document, table="channels"):
    name: str
    topic: str

    by_name = Index("name")


class Member(Document, table="members"):
    """A user in a channel, and how far they have read: the creation time of the last message seen."""

    channel: Id[Channel]
    user: Id[User]
    read_until: float

    by_channel = Index("channel", "user")
    by_user = Index("user")


class Reaction(BaseModel):
    emoji: Emoji
    users: list[Id[User]]


class Message(Document, table="messages"):
    channel: Id[Channel]
    author: Id[User]
    body: str
    reactions: list[Reaction]
    edited: float | None = None

    by_channel = Index("channel")


class Presence(Document, table="presence"):
    """One row for each user whose page is open. Refreshed by heartbeats, swept once they stop."""

    user: Id[User]
    seen: float

    by_user = Index("user")
    by_seen = Index("seen")


class Typing(Document, table="typing"):
    """One row for each user who is writing in a channel."""

    channel: Id[Channel]
    user: Id[User]
    seen: float

    by_channel = Index("channel", "user")
    by_seen = Index("seen")
