"""Keeping SQLite's write-ahead log (WAL) bounded although a read transaction is always open.

SQLite begins the WAL anew when two things meet: every page in it has been copied into the database file, and no reader
reads from it. Left to itself that never happens here, for the newest commit is always pinned and is always in the WAL.
So, when the WAL has grown to ``CHECKPOINT_PAGES``:

1. Beside the commits, on a connection and thread of its own, a checkpoint copies all that the pins allow. This is nearly
   all of the work: done between two groups instead, it made one group in forty wait 75 ms.
2. Between two groups a second one copies what was committed meanwhile. The newest pin is at the last frame: nothing is left.
3. The pin is taken anew. As all is in the file it reads from there, not from the WAL, and the next transaction, finding
   nobody in the WAL, begins it anew.

A snapshot held at an older commit makes 1 or 2 stop short, and one held at the newest keeps step 3 from helping. All is
tried again some groups later, so that such a snapshot only delays it. Where there always is one, as under a load of
queries that take several turns of the event loop, that alone would delay it for ever: when the WAL is twice as large, and
again at three times, four …, steps 2 and 3 wait a moment for the snapshots that are in their way, and commits with them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import apsw

from reactor.engine.store import DURATION_S
from reactor.histogram import Histogram
from reactor.stores.sqlite_snapshots import Reader, Snapshots
from reactor.stores.sqlite_writer import Writer
from reactor.stores.turns import Turn

__all__ = ["Checkpoints"]

logger = logging.getLogger(__name__)

#: Of 4 KiB each. With a fifth of it, commits are a fifth slower.
CHECKPOINT_PAGES = 20_000
#: So many pages after one attempt the next one is made.
RETRY_PAGES = 1000
#: How long commits wait, at the longest, for snapshots that are in the way.
PATIENCE_S = 0.25


class Checkpoints:
    """See the module. ``finish`` is called before each transaction, ``begin`` after it, both by whoever has the turn.

    Args:
        publish: takes the newest pin anew.

    Attributes:
        durations: of copying, of either kind, in seconds.
    """

    def __init__(self, path: Path, writer: Writer, snapshots: Snapshots, publish: Callable[[], None]) -> None:
        self._path = path
        self._writer = writer
        self._snapshots = snapshots
        self._publish = publish
        self._due = CHECKPOINT_PAGES
        self._patient = 2 * CHECKPOINT_PAGES
        self._reader: Reader | None = None
        self._running: asyncio.Future[tuple[int, int]] | None = None
        self.durations = Histogram(DURATION_S)

    def begin(self) -> None:
        """Start copying, if the WAL is large. The newest commit has just been pinned. Does not wait."""
        pages = self._writer.wal_pages
        if pages < CHECKPOINT_PAGES:
            self._due = CHECKPOINT_PAGES
            self._patient = 2 * CHECKPOINT_PAGES
        elif pages >= self._due and self._running is None and (reader := self._snapshots.take()) is not None:
            self._reader = reader
            self._running = self._writer.submit(partial(self._copy, reader.connection))

    async def finish(self, turn: Turn) -> None:
        """Copy the rest, if the copying that ``begin`` started is done."""
        if self._running is None or not self._running.done():
            return
        pages = self._writer.wal_pages
        self._due = pages + RETRY_PAGES
        patient = pages >= self._patient
        try:
            found, copied = await self.wait(turn)
            if patient:
                self._patient = pages + CHECKPOINT_PAGES
                await self._clear(turn)
            elif copied < found:
                return  # much may be left: the next attempt copies it beside the commits
            await self._writer.in_thread(turn, partial(self._copy, self._writer.connection))
        except apsw.Error as error:
            # No commit is at risk: they are in the WAL. It grows until a later attempt succeeds.
            logger.warning("%s: the write-ahead log has %d pages and cannot be brought into the file: %s", self._path, pages, error)
            return
        self._publish()
        if patient:
            await self._clear(turn)

    async def wait(self, turn: Turn) -> tuple[int, int]:
        """Wait for the copying, if any: pages in the WAL, and how many of them are in the file."""
        if self._running is None or self._reader is None:
            return 0, 0
        try:
            return await turn.wait(self._running)
        finally:
            self._snapshots.give_back(self._reader)
            self._running = self._reader = None

    def _copy(self, connection: apsw.Connection) -> tuple[int, int]:
        """In a thread, one at a time."""
        started = time.perf_counter()
        copied = connection.wal_checkpoint()
        self.durations.add(time.perf_counter() - started)
        return copied

    async def _clear(self, turn: Turn) -> None:
        """Wait, but not for long, until no snapshot is held at an older commit."""
        cleared = self._snapshots.cleared()
        timeout = asyncio.get_running_loop().call_later(PATIENCE_S, self._snapshots.resolve_cleared)
        await turn.wait(cleared)
        timeout.cancel()
