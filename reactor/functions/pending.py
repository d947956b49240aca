"""How many scheduled functions wait to begin: a limit that costs no read."""

from __future__ import annotations

import asyncio
import logging

from reactor.engine.engine import Engine
from reactor.engine.store import Ts, Write
from reactor.errors import LimitExceeded, StoreError
from reactor.schema.system import ScheduledFunction

__all__ = ["Pending"]

_log = logging.getLogger(__name__)


class Pending:
    """Counts what is pending, on all nodes: by the index once, and by the commits that are published from then on.

    It is no part of any transaction, so that those which schedule do not conflict. So what is not published yet is not counted, and
    a limit may be passed by what the nodes commit at one moment.

    Attributes:
        count: 0 until it is ``load``ed.
    """

    def __init__(self, engine: Engine, limit: int) -> None:
        self.count = 0
        self._engine = engine
        self._limit = limit
        self._range = ScheduledFunction.by_state(state__kind="pending")
        self._as_of = Ts(0)  # what was counted has all up to here, also what is published later
        self._changes: list[tuple[Ts, int]] | None = None  # published while it is being counted
        self._counting: asyncio.Task[None] | None = None
        engine.follow(engine.catalog.table(ScheduledFunction).name, self._follow, self._count_again)

    async def load(self) -> None:
        """Count, once the schema is in force.

        Raises:
            StoreError: the database does not answer.
        """
        self._changes = []
        counted, self._as_of = await self._engine.count(self._range)
        self.count = counted + sum(change for ts, change in self._changes if ts > self._as_of)
        self._changes = None

    def check(self, more: int) -> None:
        """Check that so many more can be scheduled.

        Raises:
            LimitExceeded: code ``TooManyFunctionsPending``.
        """
        if self.count + more > self._limit:
            raise LimitExceeded(
                f"{self.count} scheduled functions wait to begin, at most {self._limit} may. Nothing was scheduled. "
                "Let some of them run, or have one function do the work of several.",
                code="TooManyFunctionsPending",
            )

    def _count_again(self) -> None:
        self._counting = asyncio.ensure_future(self._load_again())

    async def _load_again(self) -> None:
        try:
            await self.load()
        except StoreError as error:
            _log.warning("How many scheduled functions wait could not be counted again, %d are taken to: %s", self.count, error)

    def _follow(self, ts: Ts, write: Write) -> None:
        if ts <= self._as_of:
            return
        at = write.table.index(self._range.index).position
        change = self._among(write.after_keys, at) - self._among(write.before_keys, at)
        self.count += change
        if self._changes is not None:
            self._changes.append((ts, change))

    def _among(self, keys: tuple[bytes, ...], at: int) -> bool:
        return bool(keys) and self._range.interval.lo <= keys[at] < self._range.interval.hi
