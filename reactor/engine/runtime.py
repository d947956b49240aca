"""All that makes a run repeatable: time and randomness, as one Protocol."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Protocol

__all__ = ["Runtime", "SystemRuntime"]


class Runtime(Protocol):
    """Where the engine takes time and randomness from, so that tests and simulations can give it theirs."""

    def now_ns(self) -> int:
        """Wall clock, nanoseconds since the epoch. May repeat or go back; users of it must cope."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back, for deadlines and durations."""
        ...

    def random_bytes(self, n: int) -> bytes:
        """``n`` unpredictable bytes: ids, request ids, seeds of functions' generators."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait. Cancelling is safe."""
        ...


class SystemRuntime:
    """The machine's own clock and randomness."""

    now_ns = staticmethod(time.time_ns)
    monotonic_s = staticmethod(time.monotonic)

    def random_bytes(self, n: int) -> bytes:
        return os.urandom(n)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
