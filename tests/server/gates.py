"""Where functions of the tests' app stop until a test lets them go on."""

from __future__ import annotations

import asyncio

__all__ = ["Gate", "forget", "gate", "turns"]


class Gate:
    """Attributes:
    reached: set when a function stands before it.
    """

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.waiting = 0
        self._open = asyncio.Event()

    async def reach(self) -> None:
        self.waiting += 1
        self.reached.set()
        await self._open.wait()

    def open(self) -> None:
        self._open.set()


_gates: dict[str, Gate] = {}


def gate(name: str) -> Gate:
    """The gate of this name."""
    return _gates.setdefault(name, Gate())


def forget() -> None:
    """Have new gates from now on."""
    _gates.clear()


async def turns(count: int) -> None:
    """Let everybody else go on for so many turns of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)
