"""Several nodes over one engine, each with a clock of its own, that can be killed at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from typing import Any

from reactor.services.scheduler import ScheduledRuns
from reactor.testing import TestBackend, VirtualRuntime

__all__ = ["Node"]


class _SkewedRuntime(VirtualRuntime):
    """The clock of ``t``, shown early or late."""

    def __init__(self, of: VirtualRuntime, by_s: float) -> None:
        self._of = of
        self._by_ns = int(by_s * 1e9)

    def now_ns(self) -> int:
        return self._of.now_ns() + self._by_ns


class Node:
    """What runs scheduled functions on one node. Once killed it begins nothing more and never learns how what it began ended.

    Args:
        skew_s: how far its clock is ahead.
    """

    def __init__(self, t: TestBackend, *, skew_s: float = 0.0, alone: bool = False) -> None:
        self.killed = asyncio.get_running_loop().create_future()
        self._dead = False
        self._awake = asyncio.Event()
        self._awake.set()
        runner: Any = copy(t._runner)
        runner.runtime = _SkewedRuntime(t.runtime, skew_s)
        for name in ("transact", "query", "mutation", "action"):
            setattr(runner, name, self._mortal(getattr(runner, name)))
        self.runs = ScheduledRuns(runner, alone=alone)
        self.turning: asyncio.Task[float] | None = None

    def turn(self) -> None:
        """Begin a turn, unless one is under way."""
        if not self._dead and (self.turning is None or self.turning.done()):
            if self.turning is not None:
                self.turning.exception()
            self.turning = asyncio.create_task(self.runs.turn())

    def pause(self) -> None:
        """Have it stand still in its next step, as a process does that gets no processor, while its lease runs out."""
        self._awake.clear()

    def resume(self) -> None:
        self._awake.set()

    def kill(self) -> None:
        self._dead = True
        self._awake.set()

    def bury(self) -> None:
        """End the tasks of a node that was killed."""
        self.killed.cancel()
        for task in (self.turning, *self.runs._claimed.values()):
            if task is not None:
                task.cancel()

    async def _still(self) -> None:
        await self._awake.wait()
        if self._dead:
            await self.killed

    def _mortal(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            await self._still()
            try:
                return await call(*args, **kwargs)
            finally:
                await self._still()

        return wrapped
