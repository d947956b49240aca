"""Meetings that are transcribed while they go on, with a chat and with those who are present."""

from __future__ import annotations

from reactor import Document, Id, Index


class Meeting(Document, table="meetings"):
    title: str


class Segment(Document, table="segments"):
    """A piece of speech. ``at`` is when it was heard, in ms of the sender's clock."""

    meeting: Id[Meeting]
    speaker: str
    at: float
    text: str

    by_meeting = Index("meeting")


class Line(Document, table="lines"):
    """A line of the chat."""

    meeting: Id[Meeting]
    author: str
    at: float
    text: str

    by_meeting = Index("meeting")


class Presence(Document, table="presence"):
    """A person in a meeting, last seen ``at``."""

    meeting: Id[Meeting]
    person: str
    at: float

    by_meeting = Index("meeting", "person")
