"""Where scheduled functions leave their traces."""

from __future__ import annotations

from reactor import Document, Index


class Trace(Document, table="traces"):
    """One run.

    Attributes:
        at: what its clock showed, ms since the epoch.
    """

    key: str
    at: float

    by_key = Index("key")


class Counter(Document, table="counters"):
    """One document that many scheduled functions change."""

    count: float
