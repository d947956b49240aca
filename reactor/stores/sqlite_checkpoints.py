"""Keeping SQLite's write-ahead log (WAL) bounded although a read transaction is always open.

SQLite begins the WAL anew when two things meet: every page in it has been copied into the database file, and no reader
reads from it. Left to itself that never happens here, for the newest commit is always pinned and is always in the WAL.
So, when the WAL has grown to ``CHECKPOINT_PAGES``:

1. Beside the commits, on a connection and thread of its own, a checkpoint copies all that the newest pin allows. This is
   nearly all of the work: done between two groups instead, it made one group in forty wait 75 ms.
2. Between two groups a second one copies what was committed meanwhile. The newest pin is at the last frame: nothing is left.
3. The pin is taken anew. As all is in the file it reads from there, not from the WAL, and the next transaction, finding
   nobody in the WAL, begins it anew.

A snapshot held at an older commit makes 1 stop short, or, taken between 2 and 3, keeps the WAL from beginning anew: both are
tried again some groups later, so that such a snapshot only delays it.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import apsw

from reactor.stores.sqlite_snapshots import Reader, Snapshots
from reactor.stores.sqlite_writer import Turn, Writer

__all__ = ["Checkpoints"]

logger = logging.getLogger(__name__)

#: Of 4 KiB each. With a fifth of it, commits are a fifth slower.
CHECKPOINT_PAGES = 20_000
#: So many pages after one attempt the next one is made.
RETRY_PAGES = 1000


class Checkpoints:
    """See the module. ``finish`` is called before each transaction, ``begin`` after it, both by whoever has the turn."""

    def __init__(self, path: Path, writer: Writer, snapshots: Snapshots) -> None:
        self._path = path
        self._writer = writer
        self._snapshots = snapshots
        self._due = CHECKPOINT_PAGES
        self._reader: Reader | None = None
        self._running: asyncio.Future[tuple[int, int]] | None = None

    def begin(self) -> None:
        """Start copying, if the WAL is large. The newest commit has just been pinned. Does not wait."""
        pages = self._writer.wal_pages
        if pages < CHECKPOINT_PAGES:
            self._due = CHECKPOINT_PAGES
        elif pages >= self._due and self._running is None and (reader := self._snapshots.take()) is not None:
            self._reader = reader
            self._running = self._writer.submit(reader.connection.wal_checkpoint)

    async def finish(self, turn: Turn) -> bool:
        """Copy the rest, if the copying that ``begin`` started is done. Whether the pin must be taken anew."""
        if self._running is None or not self._running.done():
            return False
        self._due = self._writer.wal_pages + RETRY_PAGES
        try:
            pages, copied = await self.wait(turn)
            if copied == pages:
                await self._writer.in_thread(turn, self._writer.connection.wal_checkpoint)
                return True
        except apsw.Error as error:
            # No commit is at risk: they are in the WAL. It grows until a later attempt succeeds.
            logger.warning(
                "%s: the write-ahead log has %d pages and cannot be brought into the file: %s", self._path, self._writer.wal_pages, error
            )
        return False

    async def wait(self, turn: Turn) -> tuple[int, int]:
        """Wait for the copying, if any: pages in the WAL, and how many of them are in the file."""
        if self._running is None or self._reader is None:
            return 0, 0
        try:
            return await turn.wait(self._running)
        finally:
            self._snapshots.give_back(self._reader)
            self._running = self._reader = None
