from __future__ import annotations

from reactor import Document


class Payment(Document, table="payments"):
    event: str
    type: str
    amount: float
    note: str | None = None
