"""A hot standby that a node reads from while it is fresh enough.

A standby shows the database as of some commit before the newest. The node knows what was committed since, and keeps it as images
which snapshots lay over their readers: so a reader on the standby serves any snapshot, as one on the primary would that was opened
a moment earlier, and nothing that is read is older for it. How far back the images reach is bounded in time and bytes: a standby
that is further behind is not read from until it has come up to where images were begun anew.

One connection looks where the standby is. It is believed only after the primary was asked whether that is a commit of its own: one
that followed a primary which was given up may be ahead by commits that never were.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from reactor.engine.store import Ts
from reactor.errors import StoreError, StoreUnavailable
from reactor.stores.postgres_connections import ERRORS, Connection, Connections, Server

__all__ = ["IS_COMMIT", "STANDBY_ANSWER_S", "Standby", "StandbyHealth"]

logger = logging.getLogger(__name__)

#: How often it is looked where the standby is.
POLL_S = 0.25

#: A standby that takes longer to connect, or to say where it is, does not answer.
STANDBY_ANSWER_S = 1.0

#: How far behind it is read from: the age and the size of what is laid over it.
LAG_S = 5.0
LAG_BYTES = 32 << 20

#: What an image takes beside its text.
IMAGE_BYTES = 500

STATE = "SELECT h.head_ts, h.tables_version, m.instance_name, pg_is_in_recovery() FROM _reactor_head h CROSS JOIN _reactor_meta m"

#: Whether a ts is one of this database's commits. The newest is, also when the log has been trimmed up to it.
IS_COMMIT = """
SELECT EXISTS (SELECT FROM _reactor_head WHERE head_ts = $1) OR EXISTS (SELECT FROM _reactor_log WHERE ts = $1)
    OR EXISTS (SELECT FROM _reactor_requests WHERE ts = $1)
"""


class StandbyHealth(NamedTuple):
    """How it goes with the standby.

    Attributes:
        name: its address, without the password.
        behind_s: for how long the node has had a commit that the standby was not seen to have, in seconds.
        reason: why reads go to the primary instead; None: they go to the standby.
    """

    name: str
    behind_s: float
    reason: str | None


class _Kept(NamedTuple):
    ts: Ts
    size: int
    at: float


class Standby:
    """See the module. Begins with ``start_anew``.

    Args:
        instance_name: of the database that it must be a copy of.
        connections: at most, beside the one that looks.
        newest: gives the newest commit that the node has applied, and the version of the tables as it knows them.
        is_commit: asks the primary ``IS_COMMIT``.
        on_change: called when fewer images have to be kept, and with an error when readers on it are of no more use.

    Attributes:
        floor: images of all later commits are to be kept; None: of none. While it serves, it is at this ts or a later one.
        serves: readers may be opened on it.
    """

    def __init__(
        self,
        server: Server,
        instance_name: str,
        connections: int,
        *,
        newest: Callable[[], tuple[Ts, int]],
        is_commit: Callable[[Ts], Awaitable[bool]],
        on_change: Callable[[StoreError | None], None],
    ) -> None:
        self.server = server
        self.connections = Connections(server, connections)
        self.floor: Ts | None = None
        self.serves = False
        self._instance_name = instance_name
        self._newest = newest
        self._is_commit = is_commit
        self._on_change = on_change
        self._reason = ""  # why it does not serve, once that is more than that it has not been asked yet
        self._kept: deque[_Kept] = deque()  # what the images above the floor take, and since when the node has had them
        self._kept_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def health(self) -> StandbyHealth:
        behind_s = asyncio.get_running_loop().time() - self._kept[0].at if self._kept else 0.0
        return StandbyHealth(
            self.server.name, behind_s, None if self.serves else self._reason or f"{self.server.name} has not answered yet"
        )

    def start_anew(self) -> None:
        """The schema has changed, or is in force for the first time: images begin anew."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="reactor-standby")
        if self.floor is not None:
            self._begin()

    def applied(self, ts: Ts, size_bytes: int) -> None:
        """The node has one more commit, with images of this size."""
        if self.floor is None or ts <= self.floor:
            return
        self._kept.append(_Kept(ts, size_bytes, asyncio.get_running_loop().time()))
        self._kept_bytes += size_bytes
        if self._kept_bytes > LAG_BYTES:
            self._fall_behind()

    def opened(self, ts: Ts, tables_version: int, in_recovery: bool, floor: Ts) -> bool:
        """A reader was opened on it. Whether it does: it is at ``floor`` or later, and has the tables that the node knows."""
        if not in_recovery or ts < floor or tables_version < self._newest()[1]:
            return False
        self._advance(ts)
        return True

    def lose(self, error: StoreError) -> None:
        """It cannot be read from. The connection that looks finds out when it can again."""
        if self._closed:
            return
        self._stop(error.message)
        self.floor = None
        self._forget()
        self._on_change(StoreUnavailable(error.message))

    async def close(self) -> None:
        """End it. Idempotent."""
        self._closed = True
        self.serves = False
        self.connections.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        while True:
            connection: Connection | None = None
            try:
                connection = await self.server.connect()
                while True:
                    await self._look(connection)
                    await asyncio.sleep(POLL_S)
            except (*ERRORS, StoreError) as error:
                self.lose(self.server.error(error))
                await asyncio.sleep(POLL_S)
            finally:
                if connection is not None:
                    connection.terminate()

    async def _look(self, connection: Connection) -> None:
        ts, tables_version, instance_name, in_recovery = await connection.fetchrow(STATE, timeout=STANDBY_ANSWER_S)
        name = self.server.name
        if instance_name != self._instance_name:
            raise StoreError(f"{name}: a copy of the database {instance_name}, and not of {self._instance_name}. Correct the address")
        if not in_recovery:
            raise StoreError(f"{name}: the server takes writes, so it is no standby. Correct the address, or leave it out")
        if self.floor is None:
            self._begin()
        self._advance(ts)
        if self._kept and asyncio.get_running_loop().time() - self._kept[0].at > LAG_S:
            self._fall_behind()
        elif tables_version < self._newest()[1]:
            self._stop(f"{name}: the standby does not have the newest tables yet")
        elif not self.serves and self.floor == ts:
            try:
                known = await self._is_commit(ts)
            except StoreError as error:
                self._stop(f"{name}: whether the standby is a copy cannot be asked: {error.message}")
                return
            if not known:
                self._stop(f"{name}: the standby has commits that the primary does not have. Let it follow the primary")
            elif self.floor == ts:  # nothing came in between
                self.serves = True
                if self._reason:
                    # A warning, as the other one was: whoever was told of that is to be told of this.
                    logger.warning("Reads go to %s again", name)
                    self._reason = ""

    def _advance(self, ts: Ts) -> None:
        """It was seen at ``ts``."""
        if self.floor is None or ts <= self.floor:
            return
        self.floor = ts
        while self._kept and self._kept[0].ts <= ts:
            self._kept_bytes -= self._kept.popleft().size
        self._on_change(None)

    def _begin(self) -> None:
        """Keep images from now on. It serves when it is seen to have come so far."""
        self.serves = False
        self.floor = self._newest()[0]
        self._forget()
        self._on_change(None)

    def _fall_behind(self) -> None:
        self._stop(f"{self.server.name}: the standby is more than {LAG_S:g} s, or {LAG_BYTES >> 20} MiB, behind")
        self._begin()

    def _stop(self, reason: str) -> None:
        self.serves = False
        if self._reason != reason:
            self._reason = reason
            logger.warning("Reads go to the primary. %s", reason)

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0
