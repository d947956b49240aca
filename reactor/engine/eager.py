"""Running a coroutine up to its first suspension without a task.

On an embedded store most runs never suspend: a task for each would cost more than the database does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context
from typing import Any, Generic, TypeVar

__all__ = ["detached", "start"]

T = TypeVar("T")


class _Rest(Generic[T]):
    """A coroutine that has yielded ``first``, to be awaited to its end."""

    __slots__ = ("_coro", "_first")

    def __init__(self, coro: Coroutine[Any, Any, T], first: Any) -> None:
        self._coro = coro
        self._first = first

    def __await__(self) -> Generator[Any, Any, T]:
        coro, waited = self._coro, self._first
        try:
            while True:
                try:
                    sent = yield waited
                except GeneratorExit:
                    coro.close()
                    raise
                except BaseException as error:
                    waited = coro.throw(error)
                else:
                    waited = coro.send(sent)
        except StopIteration as stop:
            result: T = stop.value
            return result


async def _finish(rest: _Rest[T]) -> T:
    return await rest


def start(coro: Coroutine[Any, Any, T]) -> T | asyncio.Task[T]:
    """Run ``coro`` now: its result if it does not suspend, else a task that runs the rest of it.

    Its first step may run in no task at all, or in the caller's: what it runs must not ask for the current task.

    Raises: what ``coro`` raises before it suspends.
    """
    try:
        first = coro.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    return asyncio.get_running_loop().create_task(_finish(_Rest(coro, first)))


def detached(coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task of its own, for work that is shared: no part of the run that happens to begin it, which would end it with itself."""
    return Context().run(asyncio.ensure_future, coro)
