"""Accounts that money moves between."""

from __future__ import annotations

from reactor import Document, Index


class Account(Document, table="accounts"):
    number: float
    balance: float

    by_number = Index("number")
