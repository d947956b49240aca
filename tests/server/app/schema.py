"""Documents for the tests of the server."""

from __future__ import annotations

from reactor import Document, Index


class Note(Document, table="notes"):
    list: str
    text: str

    by_list = Index("list")
