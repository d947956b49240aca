from __future__ import annotations

from reactor import Document, Index


class Account(Document, table="accounts"):
    number: float
    balance: float

    by_number = Index("number")


class Listing(Document, table="lists"):
    run: str  # whose lists they are: one run of a load knows nothing of another's
    key: str
    values: list[float]

    by_key = Index("run", "key")
