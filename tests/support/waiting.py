"""Waiting for a condition, with a deadline. The only place in the tests that sleeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["eventually", "eventually_async"]

T = TypeVar("T")

POLL_S = 0.02


def eventually(condition: Callable[[], T], what: str, *, within_s: float = 20.0) -> T:
    """The first true value of `condition`; an AssertionError saying `what` was awaited when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within_s:g} s in vain for {what}; last seen: {value!r}")
        time.sleep(POLL_S)


async def eventually_async(condition: Callable[[], T], what: str, *, within_s: float = 20.0) -> T:
    """`eventually`, with the event loop going on meanwhile."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within_s:g} s in vain for {what}; last seen: {value!r}")
        await asyncio.sleep(POLL_S)
