"""A process that makes load: its life and its limits."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import uvloop

__all__ = ["Awake", "in_a_process", "most_sockets", "other_cores", "raise_file_limit"]

#: That a process has open besides.
OTHER_FILES = 200

L = TypeVar("L")
R = TypeVar("R")

Measure = Callable[[L], Coroutine[Any, Any, R]]


class Awake:
    """Keeps this process from sleeping while it waits for the server: to wake a core that sleeps costs the server a seventh of a delivery
    and more, for nearly each one if this process keeps up, and takes time. Clients on other machines cost it nothing of the kind.

    Args:
        received: how much has come so far, of whatever.
        owed: whether more is to come.

    Attributes:
        idle_s: of CPU, spent on nothing but staying awake.
    """

    def __init__(self, received: Callable[[], int], owed: Callable[[], bool]) -> None:
        self._received = received
        self._owed = owed
        self._turning = False
        self._turned_at = 0.0  # of CPU
        self._seen = 0
        self.idle_s = 0.0

    def stay(self) -> None:
        """Until nothing is owed any more."""
        if not self._turning:
            self._turned_at = time.process_time()
            self._turn()

    def _turn(self) -> None:
        received, now = self._received(), time.process_time()
        if received == self._seen:
            self.idle_s += now - self._turned_at
        self._seen, self._turned_at = received, now
        self._turning = self._owed()
        if self._turning:
            asyncio.get_running_loop().call_soon(self._turn)


def most_sockets() -> int:
    """That the system lets this process, and those it starts, have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1_000_000 if hard == resource.RLIM_INFINITY else hard - OTHER_FILES


def raise_file_limit(sockets: int) -> None:
    """Let this process, and those it starts, have so many sockets.

    Raises:
        SystemExit: the system does not allow it; says what to do.
    """
    if sockets > most_sockets():
        raise SystemExit(f"{sockets} sockets are needed, and {most_sockets()} are allowed: raise the limit (ulimit -Hn), or ask for fewer.")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < sockets + OTHER_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (sockets + OTHER_FILES, hard))


def other_cores() -> set[int] | None:
    """All but the one that a generator takes, for the server; None where that cannot be had."""
    cores = os.sched_getaffinity(0) if sys.platform == "linux" else set()
    return cores - {max(cores)} if len(cores) > 1 else None


def in_a_process(measure: Measure[L, R], load: L, *, sockets: int) -> R:
    """What ``measure`` returns, run in a process and an event loop of its own.

    Args:
        sockets: that it opens.

    Raises:
        RuntimeError: it failed, and has said why.
    """
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_main, args=(measure, load, sockets, there))
    process.start()
    there.close()  # so that the end of the process ends the wait for it
    try:
        result: R = here.recv()
    except EOFError:
        raise RuntimeError("The generator of load failed, see above.") from None
    finally:
        process.join()
    return result


def _main(measure: Measure[L, R], load: L, sockets: int, there: Connection) -> None:
    raise_file_limit(sockets)
    _take_a_core()
    there.send(uvloop.run(_ended_by_errors(measure, load)))


def _take_a_core() -> None:
    """Stay on one core. Else the scheduler now and then puts the two ends of the loopback on the same one, by turns."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


async def _ended_by_errors(measure: Measure[L, R], load: L) -> R:
    """Let an error in a connection end all: a load that lost a part of itself measures something else."""
    failed: asyncio.Future[R] = asyncio.get_running_loop().create_future()

    def fail(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not failed.done():
            failed.set_exception(context.get("exception") or RuntimeError(context["message"]))

    asyncio.get_running_loop().set_exception_handler(fail)
    measuring = asyncio.ensure_future(measure(load))
    done, _ = await asyncio.wait({measuring, failed}, return_when=asyncio.FIRST_COMPLETED)
    return done.pop().result()
