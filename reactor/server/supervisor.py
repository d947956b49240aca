"""Production's processes: nodes that serve, and a small supervisor that starts one again when it hangs or dies.

Python cannot interrupt a C call that holds the interpreter, nor code that swallows every exception. So the node's event loop
beats on a *board*, a page of memory that both processes share, on which it also notes the call whose code it enters. When the
beats stop the supervisor kills the node, names that call in the log, and starts a node that refuses the call for a while.

The listening sockets are the supervisor's: while no node runs, connections wait. The node takes its orders from a pipe and not
from signals, which a terminal or service manager sends to both.

The supervisor imports nothing of what serves: a node starts so much earlier, and less memory is held twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from reactor.server.logs import Logs
from reactor.server.siblings import Siblings

if TYPE_CHECKING:
    from reactor.functions.run import Run
    from reactor.functions.runner import Runner

__all__ = ["HANG_S", "Node", "supervise", "supervised"]

BEAT_S = 0.25
HANG_S = 5.0
REFUSE_S = 60.0
RESTART_S = 1.0  # at least between two starts of a node that did not come to serve

_HANDED = "REACTOR_SUPERVISED"
_STOP = b"s"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Board:
    """The memory shared between supervisor and node: beats, and the call that runs.

    Args:
        file: descriptor of the file that backs it.
    """

    SIZE = 1 << 16
    _HEAD = struct.Struct("<QQI")  # beats, size of the call, how much of it is here

    def __init__(self, file: int) -> None:
        self._memory = mmap.mmap(file, self.SIZE)
        self._beats = 0

    @property
    def beats(self) -> int:
        beats: int = self._HEAD.unpack_from(self._memory)[0]
        return beats

    def beat(self) -> None:
        self._beats += 1
        struct.pack_into("<Q", self._memory, 0, self._beats)

    def clear(self) -> None:
        self._memory[: self._HEAD.size] = bytes(self._HEAD.size)

    def note(self, run: Run | None) -> None:
        """Called around each step of a function: the node's code runs for ``run`` now."""
        if run is None:
            struct.pack_into("<QI", self._memory, 8, 0, 0)
            return
        call = b"%b %b" % (run.path.encode(), run.args)
        shown = call[: self.SIZE - self._HEAD.size]
        self._memory[self._HEAD.size : self._HEAD.size + len(shown)] = shown
        # A beat too: a node that runs one function after another is busy, and does not hang.
        self._beats += 1
        self._HEAD.pack_into(self._memory, 0, self._beats, len(call), len(shown))

    def noted(self) -> tuple[str, str] | None:
        """The call that runs, as text and as what a later node knows it by."""
        _, size, shown = self._HEAD.unpack_from(self._memory)
        if not size:
            return None
        call = self._memory[self._HEAD.size : self._HEAD.size + shown]
        return call[:2000].decode(errors="replace"), _mark(call, size)


def _mark(call: bytes, size: int) -> str:
    return sha256(b"%d %b" % (size, call)).hexdigest()


def supervise(listening: Sequence[socket.socket], logs: Logs, workers: int = 1) -> int:
    """Keep nodes serving until a signal asks to stop.

    Args:
        listening: handed to the nodes, which take its connections as they come; this command's own arguments are too.
        logs: for what the supervisor itself has to say.
        workers: how many nodes, each watched by itself.

    Returns:
        The exit status: of the worst.
    """
    if workers == 1:
        return _supervise([_Supervisor(listening, logs)])
    with tempfile.TemporaryDirectory(prefix="reactor-") as folder:
        return _supervise([_Supervisor(listening, logs, (folder, number, workers)) for number in range(workers)])


def _supervise(supervisors: Sequence[_Supervisor]) -> int:
    def stop(number: int, frame: FrameType | None) -> None:
        for supervisor in supervisors:
            supervisor.stop()

    for number in _SIGNALS:
        signal.signal(number, stop)

    if len(supervisors) == 1:
        return supervisors[0].run()

    def watch(supervisor: _Supervisor) -> int:
        status = supervisor.run()
        if status:
            # It could not start; neither would the others for long.
            for other in supervisors:
                other.stop()
        return status

    with ThreadPoolExecutor(len(supervisors), thread_name_prefix="reactor-supervisor") as threads:
        return max(threads.map(watch, supervisors))


class _Supervisor:
    """Of one node.

    Args:
        place: of several nodes: the folder in which they find each other, the number of this one, and how many there are.
    """

    def __init__(self, listening: Sequence[socket.socket], logs: Logs, place: tuple[str, int, int] | None = None) -> None:
        self._listening = listening
        self._logs = logs
        self._place = place
        self._stopping = False
        self._orders: int | None = None
        self._refused: dict[str, float] = {}  # until when, in seconds since the epoch

    def run(self) -> int:
        """Keep a node serving until told to stop; the exit status."""
        with tempfile.TemporaryFile() as file:
            file.truncate(_Board.SIZE)
            board = _Board(file.fileno())
            ever_served = False
            while True:
                started = time.monotonic()
                served, status = self._node(file.fileno(), board)
                ever_served = ever_served or served
                if self._stopping or status == 0:
                    return max(status, 0)
                if not ever_served and status > 0:
                    # It could not start, and has said why. One that could before may find its database away, and other nodes serve on.
                    return status
                if not served:
                    time.sleep(max(0.0, started + RESTART_S - time.monotonic()))

    def _node(self, file: int, board: _Board) -> tuple[bool, int]:
        """Run one node to its end: whether it came to serve, and its exit status."""
        board.clear()
        reading, self._orders = os.pipe()
        with contextlib.closing(_Descriptor(self._orders)):
            with contextlib.closing(_Descriptor(reading)):
                process = self._spawn(reading, file)
            if self._stopping:
                self._order()
            beats, still = 0, 0.0
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(BEAT_S)
                # Counted in turns of this loop and not by the clock: the machine, and so both processes, may have slept.
                seen = board.beats
                still = 0.0 if seen != beats else still + BEAT_S
                beats = seen
                if beats and still >= HANG_S and process.poll() is None:
                    process.kill()
                    process.wait()
                    self._tell_hang(board)
                    return True, -signal.SIGKILL
            self._orders = None
        if process.returncode < 0 and not self._stopping:
            self._logs.say(f"The node died of {signal.Signals(-process.returncode).name} and is started again", "error")
        return bool(beats), process.returncode

    def _spawn(self, orders: int, file: int) -> subprocess.Popen[bytes]:
        now = time.time()
        self._refused = {mark: until for mark, until in self._refused.items() if until > now}
        descriptors = (orders, file, *(one.fileno() for one in self._listening))
        return subprocess.Popen(  # noqa: S603 - this very command
            [sys.executable, "-m", "reactor", *sys.argv[1:]],
            env={**os.environ, _HANDED: json.dumps([self._refused, self._place, *descriptors])},
            pass_fds=descriptors,
        )

    def _tell_hang(self, board: _Board) -> None:
        noted = board.noted()
        if self._stopping:
            during = "" if noted is None else f", in {noted[0]}"
            self._logs.say(f"The node did not answer for {HANG_S:g} s while it stopped{during}. It was killed", "error")
            return
        if noted is None:
            self._logs.say(f"The node did not answer for {HANG_S:g} s, outside of any function. It is started again", "error")
            return
        call, mark = noted
        self._refused[mark] = time.time() + REFUSE_S
        self._logs.say(
            f"The node did not answer for {HANG_S:g} s while it ran: {call}. It is started again, and refuses this call for {REFUSE_S:g} s",
            "error",
        )

    def stop(self) -> None:
        """Ask the node to stop; asked again, it waits for nothing."""
        self._stopping = True
        self._order()

    def _order(self) -> None:
        if self._orders is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._orders, _STOP)


class _Descriptor:
    def __init__(self, number: int) -> None:
        self._number = number

    def close(self) -> None:
        os.close(self._number)


def supervised() -> Node | None:
    """This process as a supervisor's node; None: no supervisor started it."""
    handed = os.environ.pop(_HANDED, None)
    if handed is None:
        return None
    refused, place, orders, board, *listening = json.loads(handed)
    siblings = None if place is None else Siblings(Path(place[0]), *place[1:])
    return Node([socket.socket(fileno=one) for one in listening], orders, _Board(board), refused, siblings)


class Node:
    """The node's side: it beats, notes what it runs, refuses what made one hang, and stops when ordered or orphaned.

    Args:
        listening: the sockets to serve.
        orders: descriptor of the pipe.
        refused: until when calls are refused, in seconds since the epoch.
        siblings: the other nodes of this supervisor.
    """

    def __init__(
        self, listening: Sequence[socket.socket], orders: int, board: _Board, refused: dict[str, float], siblings: Siblings | None
    ) -> None:
        self.listening = listening
        self.siblings = siblings
        self._orders = orders
        self._board = board
        self._refused = refused
        self._asked = 0
        self._stop: Callable[[], None] | None = None
        self._beating: asyncio.Task[None] | None = None
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    @contextlib.asynccontextmanager
    async def attend(self, runner: Runner) -> AsyncIterator[None]:
        """Inside, ``runner`` refuses what it must. The event loop beats from now to its end: after this is left, scheduled functions may
        still run for as long as a stop lets them.
        """
        from reactor.functions.watchdog import slot_of_this_thread

        loop = asyncio.get_running_loop()
        threading.Thread(target=self._obey, args=(loop,), name="reactor-orders", daemon=True).start()
        runner.refuses = self._refuses if self._refused else None
        slot_of_this_thread().note = self._board.note
        self._beating = asyncio.create_task(self._beat(), name="reactor-beat")
        yield

    def stop_with(self, stop: Callable[[], None]) -> None:
        """How to stop from now on: called once to stop, and again not to wait."""
        self._stop = stop
        for _ in range(self._asked):
            stop()

    async def _beat(self) -> None:
        while True:
            self._board.beat()
            await asyncio.sleep(BEAT_S)

    def _obey(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread that waits for orders."""
        while os.read(self._orders, 1):
            loop.call_soon_threadsafe(self._ask)
        # The supervisor is gone, and whoever starts another wants the database.
        os._exit(1)

    def _ask(self) -> None:
        self._asked += 1
        if self._stop is not None:
            self._stop()

    def _refuses(self, path: str, args: bytes) -> bool:
        call = b"%b %b" % (path.encode(), args)
        until = self._refused.get(_mark(call[: _Board.SIZE - _Board._HEAD.size], len(call)))
        return until is not None and time.time() < until
