"""Documents for the tests that drive the official clients."""

from __future__ import annotations

from typing import Any

from reactor import Document, Index


class Counter(Document, table="counters"):
    name: str
    count: float

    by_name = Index("name")


class Entry(Document, table="entries"):
    """Something that was written once. A mutation applied twice leaves two."""

    log: str
    key: str

    by_log = Index("log", "key")


class Item(Document, table="items"):
    list: str
    position: float

    by_list = Index("list", "position")


class Box(Document, table="boxes"):
    name: str
    content: Any

    by_name = Index("name")
