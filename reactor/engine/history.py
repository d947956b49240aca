"""Reading the past: today's snapshot with the log's later commits taken back."""

from __future__ import annotations

import asyncio

from reactor.engine.commit_log import hydrate
from reactor.engine.snapshot import Pin
from reactor.engine.store import Store, Ts
from reactor.engine.transaction import Base
from reactor.engine.write_set import Image, Overlay
from reactor.errors import LimitExceeded, QueryError
from reactor.schema.catalog import Catalog

__all__ = ["base_at"]

#: Documents changed since then, and bytes of their JSON text, that a read of the past will take back; above it the read is refused.
MAX_TAKEN_BACK = 200_000
MAX_TAKEN_BACK_BYTES = 64 * 1024 * 1024
#: Commits that are taken back between two turns of the event loop.
STEP = 200


async def base_at(store: Store, pin: Pin, catalog: Catalog, ts: Ts) -> Base:
    """What a transaction reads to see the database as of ``ts``.

    Raises:
        QueryError: ``ts`` lies in the future.
        StoreError: code ``LogTrimmed``: the log does not reach back to ``ts`` any more.
        LimitExceeded: too much was written since.
    """
    if ts > pin.ts:
        raise QueryError(
            f"The database is at ts {pin.ts}; it has no ts {ts} yet. Ask for a ts that the server has given out.", code="TimestampInFuture"
        )
    if ts == pin.ts:
        return pin.base
    undo = Overlay()
    seen: set[str] = set()
    size_bytes = 0
    after = ts
    while True:
        entries = await store.log_after(after, until=pin.ts, limit=STEP)
        if not entries:
            return Base(pin.snapshot, undo, 0, 1)
        for entry in entries:
            for write in hydrate(entry, catalog.tables):
                # The first change after ts has what was there at ts.
                if write.id not in seen:
                    seen.add(write.id)
                    size_bytes += len(write.before or "")
                    undo.put(Image(1, write.table, write.id, write.before, write.before_keys))
        after = entries[-1].ts
        if len(seen) > MAX_TAKEN_BACK or size_bytes > MAX_TAKEN_BACK_BYTES:
            raise LimitExceeded(
                f"More than {MAX_TAKEN_BACK} documents, or {MAX_TAKEN_BACK_BYTES} bytes of them, changed since ts {ts}. "
                "Ask for a later ts.",
                code="TooManyDocumentsRead",
            )
        await asyncio.sleep(0)  # the log of an embedded store is read without a wait
