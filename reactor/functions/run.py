"""One run of a function, as the guards around it know it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from random import Random

from msgspec import Struct

from reactor.engine.transaction import Transaction
from reactor.functions.function import Kind
from reactor.limits import Limits

__all__ = ["Run", "current_run", "deterministic_run"]


class Run(Struct, eq=False):
    """One run of a query, mutation or action.

    Attributes:
        args: JSON text of the arguments of the call from outside.
        clock_read: whether it asked what time it is.
        transaction: of a query or mutation.
        log_lines: what it printed and logged.
        computed_s: how long it has computed in the steps that ended.
        timed_out: whether it was interrupted; then it has failed, whatever it does about that.
        ended: whether it has its result; what it left running is to end too.
        depth: of an action: how many stand above it, each of which called the next.
    """

    path: str
    args: bytes
    kind: Kind
    _now_ms: float
    _seed: Callable[[], bytes]
    limits: Limits
    clock_read: bool = False
    transaction: Transaction | None = None
    log_lines: list[str] = []
    unfinished_line: str = ""
    computed_s: float = 0.0
    timed_out: bool = False
    ended: bool = False
    tasks: set[asyncio.Task[object]] | None = None  # that it started; made by the first
    _random: Random | None = None
    depth: int = 0

    @property
    def now_ms(self) -> float:
        """When it began, ms since the epoch: what its clock shows, if it is a query or mutation. Asking is noted."""
        self.clock_read = True
        return self._now_ms

    @property
    def over_limit(self) -> bool:
        """Whether it was interrupted, or has computed too long in short steps."""
        if self.computed_s >= self.limits.function_time_s:
            self.timed_out = True
        return self.timed_out

    @property
    def random_used(self) -> bool:
        """Whether it asked for anything random."""
        return self._random is not None

    @property
    def random(self) -> Random:
        """The run's generator: made when first asked for, since seeding costs more than most runs."""
        if self._random is None:
            self._random = Random(self._seed())  # noqa: S311 - repeatable on purpose
        return self._random


#: The run whose code is executing, in tasks that it started too.
current_run: ContextVar[Run | None] = ContextVar("reactor_run", default=None)


def deterministic_run() -> Run | None:
    """The run whose code is executing, if it is a query or mutation."""
    run = current_run.get()
    return run if run is not None and run.kind != "action" else None
