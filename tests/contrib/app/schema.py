from __future__ import annotations

from reactor import Document
from reactor.contrib.idempotency import IdempotencyKey
from reactor.contrib.rate_limits import RateLimitBucket

__all__ = ["IdempotencyKey", "Payment", "RateLimitBucket"]


class Payment(Document, table="payments"):
    amount: float
