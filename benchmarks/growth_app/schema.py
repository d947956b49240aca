"""Items of any number and size."""

from __future__ import annotations

from reactor import Document, Index


class Item(Document, table="items"):
    number: float
    count: float
    body: str

    by_number = Index("number")
