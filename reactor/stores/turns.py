"""Taking turns, and going on to the end of one although the task is cancelled."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TypeVar

__all__ = ["Shield", "Turn", "Turns"]

T = TypeVar("T")


class Shield:
    """Waits that a cancellation of the task does not cut short. It is delivered by ``deliver``."""

    __slots__ = ("_cancellation",)

    def __init__(self) -> None:
        self._cancellation: asyncio.CancelledError | None = None

    async def wait(self, future: asyncio.Future[T]) -> T:
        """What ``future`` gives, however often the task is cancelled meanwhile."""
        while not future.done():
            try:
                await asyncio.wait((future,))
            except asyncio.CancelledError as cancellation:
                self._cancellation = cancellation
        return future.result()

    def deliver(self) -> None:
        """Have the task's next await raise the cancellation that came meanwhile, if one did."""
        if self._cancellation is not None:
            task = asyncio.current_task()
            assert task is not None
            # Not raised here: the caller has to learn what became of its transaction. One request in, one out.
            task.uncancel()
            task.cancel(*self._cancellation.args)
            self._cancellation = None


class Turns:
    """Whose turn it is to write: first come, first served.

    ``async with turns.next() as turn`` waits for its turn and has it until the end. Cancelling a task does not cut its turn
    short, nor its wait for it: ``turn.wait`` waits to the end, and the cancellation is delivered at the first await after.
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: asyncio.Future[None] | None = None

    @property
    def free(self) -> bool:
        """Whether nobody has a turn, or waits for one."""
        return self._last is None or self._last.done()

    def next(self) -> Turn:
        """A turn after every one asked for so far."""
        before, self._last = self._last, asyncio.get_running_loop().create_future()
        return Turn(before, self._last)


class Turn(Shield):
    __slots__ = ("_before", "_over")

    def __init__(self, before: asyncio.Future[None] | None, over: asyncio.Future[None]) -> None:
        super().__init__()
        self._before = before
        self._over = over

    async def __aenter__(self) -> Turn:
        if self._before is not None:
            await self.wait(self._before)
            self._before = None
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set_result(None)
        self.deliver()

    async def breathe(self) -> None:
        """Let the event loop run once."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await self.wait(future)
