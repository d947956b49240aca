from reactor import Document, Id, Index, StoredFile
from reactor.contrib.idempotency import IdempotencyKey  # noqa: F401 - a table
from reactor.contrib.rate_limits import RateLimitBucket  # noqa: F401 - a table


class Photo(Document, table="photos"):
    title: str
    file: Id[StoredFile]

    by_title = Index("title")


class Payment(Document, table="payments"):
    event: str


class Tick(Document, table="ticks"):
    cron: str
    at: float
    phase: str

    by_cron = Index("cron")
