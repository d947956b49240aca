"""Hearing of other nodes' commits: the log is the truth, a notification only wakes whoever reads it.

One connection listens. Listening comes first, then the head is read, then it waits: a commit in between is in one or the other.
Notifications are lost while a connection is down, and a connection that is cut off stays silent; so the head is also read on a
timer, and after every reconnect. The same connection answers where the head is now, for those that must see all that was
committed before they asked.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any

from reactor.engine.store import Ts
from reactor.errors import StoreError, StoreUnavailable
from reactor.stores.postgres_connections import ANSWER_S, ERRORS, PATIENCE_S, RECONNECT_S, Connection, Server
from reactor.stores.postgres_group import CHANNEL
from reactor.stores.postgres_head import PostgresHead
from reactor.stores.postgres_snapshots import Snapshots

__all__ = ["Follower"]

logger = logging.getLogger(__name__)

#: How often the head is read when nothing is heard.
POLL_S = 1.0


class Follower:
    """See the module. ``wake`` is called whenever the log may have more than the node has applied."""

    def __init__(self, server: Server, snapshots: Snapshots, head: PostgresHead) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._server = server
        self._snapshots = snapshots
        self._head = head
        self._asked: list[tuple[float, asyncio.Future[Ts]]] = []  # until when they wait for a head read that begins after they asked
        self._go = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._seen = snapshots.ts  # a head that was read, and when that read began
        self._seen_at = self._sure_at = asyncio.get_running_loop().time()

    @property
    def behind_s(self) -> float:
        """How long ago, beyond the usual, the node last was sure to have applied all there was, in seconds."""
        if self._snapshots.ts >= self._seen:
            self._sure_at = self._seen_at
        return max(0.0, asyncio.get_running_loop().time() - self._sure_at - POLL_S)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="reactor-follower")

    async def newest(self) -> Ts:
        """The head at some moment after the call. Cancelling is safe.

        Raises:
            StoreError: the database has not answered for ``PATIENCE_S``.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ts] = loop.create_future()
        self._asked.append((loop.time() + PATIENCE_S, future))
        self._go.set()
        return await future

    async def close(self) -> None:
        """End it. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        self._refuse(StoreError(f"{self._server.name}: the store is closed"), waiting_until=math.inf)

    async def _run(self) -> None:
        while True:
            connection: Connection | None = None
            try:
                connection = await self._server.connect()
                await connection.add_listener(CHANNEL, self._heard)
                while True:
                    self._go.clear()
                    await self._look(connection)
                    if self._asked:
                        continue
                    try:
                        async with asyncio.timeout(POLL_S):
                            await self._go.wait()
                    except TimeoutError:
                        pass
            except Exception as error:
                # Also of a bug of ours: a node that hears nothing any more would show its clients the past for ever.
                translated = self._server.error(error)
                # A database that is away may be back soon; of anything else they are told at once.
                away = isinstance(translated, StoreUnavailable)
                self._refuse(translated, waiting_until=asyncio.get_running_loop().time() if away else math.inf)
                expected = isinstance(error, (*ERRORS, StoreError))
                logger.log(logging.DEBUG if expected else logging.ERROR, "listening failed: %s", error, exc_info=not expected)
                await asyncio.sleep(RECONNECT_S)
            finally:
                if connection is not None:
                    connection.terminate()

    async def _look(self, connection: Connection) -> None:
        asked, self._asked = self._asked, []
        began, applied = asyncio.get_running_loop().time(), self._snapshots.ts
        try:
            ts, version, schema = await connection.fetchrow("SELECT head_ts, tables_version, schema FROM _reactor_head", timeout=ANSWER_S)
        except BaseException:
            self._asked += asked
            raise
        try:
            self._head.check_went_back(ts, applied)
        except StoreError:
            self.wake()
            raise
        if self._snapshots.ts >= self._seen:
            # Else the one before is still to be reached; a head that always runs ahead would never be.
            self._sure_at = self._seen_at
            self._seen, self._seen_at = ts, began
        # Not of what was read before this node pushed its own.
        if version >= self._head.schema_since:
            self._head.outdated = self._head.schema not in (None, schema)
        for _, future in asked:
            if not future.done():
                future.set_result(ts)
        if ts > self._snapshots.ts:
            self.wake()

    def _heard(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        if pid != self._head.pid:  # not of this node's own commit
            self.wake()

    def _refuse(self, error: StoreError, *, waiting_until: float) -> None:
        """Tell those whose patience has ended by then."""
        asked, self._asked = self._asked, []
        for until, future in asked:
            if until > waiting_until:
                self._asked.append((until, future))
            elif not future.done():
                future.set_exception(error)
