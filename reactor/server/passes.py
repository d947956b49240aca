"""What connections that are owed something at the same time share: one pass over them, one snapshot, one run that they wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reactor.engine.eager import Kept
from reactor.engine.engine import Engine
from reactor.engine.runtime import Runtime
from reactor.engine.snapshot import Pin
from reactor.functions.outcome import Outcome
from reactor.functions.runner import Runner
from reactor.limits import Limits
from reactor.protocol.session import Steps
from reactor.server.admin import Authenticator

if TYPE_CHECKING:
    from reactor.server.connection import Connection

__all__ = ["BREATH_S", "Awaited", "Moment", "Shared"]

#: A node that may have missed other nodes' commits for so long looks before it shows a client anything.
STALE_S = 2.0
#: Connections are served this long, one after another, between two turns of the event loop. In a turn all that clients have sent is
#: taken, and a group written: with a quarter of this, who is owed something waits for several turns under load, and twice as long.
BREATH_S = 0.02


class Shared:
    """What all connections of a node have in common, and the passes in which they are served."""

    def __init__(self, engine: Engine, runner: Runner, authenticator: Authenticator, runtime: Runtime, limits: Limits) -> None:
        self.engine = engine
        self.runner = runner
        self.authenticator = authenticator
        self.runtime = runtime
        self.limits = limits
        self.work = Kept()  # mutations and actions, which outlive the connection that asked
        self.asking = asyncio.Lock()  # held for ``BREATH_S`` by who asks the many queries of one client, so that these too take turns
        self.due: dict[Connection, None] = {}  # whose clients may be owed something; a pass over them is scheduled unless it is empty

    def now(self) -> Moment:
        """The newest state. Its pin is the caller's to release."""
        return Moment(self.engine.pin(), self.engine.behind_s <= STALE_S, self.runtime.now_ns(), self.runtime.monotonic_s())

    def flush(self) -> None:
        """One pass over the connections that are due, at one snapshot."""
        due, self.due = self.due, {}
        until = time.perf_counter() + BREATH_S
        try:
            moment = self.now()
        except Exception as error:
            for connection in due:
                connection.fail(error)
            return
        todo = iter(due)
        try:
            for connection in todo:
                connection.flush(moment)
                if time.perf_counter() > until:
                    break
        finally:
            moment.pin.release()
            moment.awaited.clear()
        rest = dict.fromkeys(todo)
        if rest:
            if not self.due:
                asyncio.get_running_loop().call_soon(self.flush)
            self.due = rest | self.due


@dataclass(slots=True)
class Moment:
    """What the connections that are served in one pass are shown."""

    pin: Pin
    followed: bool  # whether this node has learned of other nodes' commits until lately
    server_ns: int
    monotonic_s: float
    steps: Steps[Outcome] = field(default_factory=dict)
    awaited: dict[asyncio.Future[Outcome], Awaited] = field(default_factory=dict)


class Awaited:
    """A run that suspends, and the connections that are owed nothing but what it gives. Holds ``pin`` until they have it."""

    __slots__ = ("_pin", "_rest", "_shared", "connections")

    def __init__(self, shared: Shared, pin: Pin) -> None:
        self._shared = shared
        self._pin = pin.retain()
        self._rest: Iterator[Connection] | None = None
        self.connections: list[Connection] = []

    def ended(self, running: asyncio.Future[Outcome]) -> None:
        """Serve them, for a while in each turn of the loop."""
        failed = running.cancelled() or running.exception() is not None
        runtime = self._shared.runtime
        moment = Moment(self._pin, True, runtime.now_ns(), runtime.monotonic_s())
        until = time.perf_counter() + BREATH_S
        self._rest = self._rest or iter(self.connections)
        for connection in self._rest:
            connection.resume(self, moment, failed=failed)
            if time.perf_counter() > until:
                asyncio.get_running_loop().call_soon(self.ended, running)
                return
        self._pin.release()
