"""Notes on topics; of each topic the newest is watched."""

from __future__ import annotations

from reactor import Document, Index


class Note(Document, table="notes"):
    topic: str
    seq: int
    body: str

    by_topic = Index("topic")
