"""Clients that transfer money and append to lists, and remember what they were told: official ones in processes, and our own.

The official clients wait a second or more before they reconnect. Our own, one to each node, wait 0.1 s: they show the nodes' recovery.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from reactor.client import Client
from reactor.errors import AppError, RemoteError
from tests.cluster.history import History, Operation
from tests.support.server import ROOT
from tests.support.waiting import eventually_async

__all__ = ["ACCOUNTS", "BALANCE", "PAUSE_S", "Load", "quick_client", "under_load"]

ACCOUNTS, BALANCE = 20, 100.0
KEYS = "abcdef"

JAVASCRIPT = ROOT / "tests" / "clients" / "load.mjs"
PYTHON = Path(__file__).with_name("official.py")
JAVASCRIPT_CLIENTS = 4

#: How long each client thinks between two calls. All together still make hundreds of calls a second. Without it they keep the machine busy
#: for as long as a fault lasts, and the lists, which each call and each update has as a whole, grow by as much.
PAUSE_S = 0.02

_runs = itertools.count(1)


def quick_client(url: str) -> Client:
    """Our own client, with short backoffs."""
    return Client(url, sleep=lambda seconds: asyncio.sleep(min(seconds, 0.1)))


class Load:
    """A number of clients, each with one call at a time. Made by ``under_load``.

    Args:
        front: where official clients connect; they meet any node.
        nodes: each has a client of its own, and official ones that watch.
        pause_s: how long a client waits from an answer to its next call.
        breaks: how often the test breaks the connections of the last node. With each the official Python client may give up the call that
            it is at.

    Attributes:
        run: names its lists.
        failed: what was answered otherwise than with a result, or was wrong.
        acknowledged: when each call was answered, by any node.
        by_node: when those of each node's own client were.
    """

    def __init__(self, front: str, nodes: Sequence[str], pause_s: float, breaks: int) -> None:
        self.run = f"run {next(_runs)}"
        self.history = History()
        self.acknowledged: list[float] = []
        self.by_node: list[list[float]] = [[] for _ in nodes]
        self.failed: list[str] = []
        self._front = front
        self._nodes = nodes
        self._pause_s = pause_s
        self._may_give_up = breaks
        self._stop = False
        self._own: list[asyncio.Task[None]] = []
        self._reading: list[asyncio.Task[None]] = []
        self._processes: list[asyncio.subprocess.Process] = []
        self._stopped = 0
        self._views: list[dict[str, Any]] = []

    async def start(self) -> None:
        settings = {"url": self._front, "run": self.run, "accounts": ACCOUNTS, "balance": BALANCE, "pause": self._pause_s}
        javascript = {"nodes": self._nodes, "clients": JAVASCRIPT_CLIENTS, "first": 100}
        await self._spawn("node", str(JAVASCRIPT), json.dumps(settings | javascript))
        # To the node whose connections no fault breaks, or few. This client calls its session by a new name each time that it connects, so
        # what it sends again is to any server another mutation.
        await self._spawn(sys.executable, str(PYTHON), json.dumps(settings | {"url": self._nodes[-1], "first": 200}))
        self._own = [asyncio.create_task(self._write(number)) for number in range(len(self._nodes))]
        # All of them are at it.
        await eventually_async(lambda: self._told() and all(self.by_node), "every kind of client to be answered", within_s=60)

    async def stop(self, within_s: float = 60.0) -> None:
        """Let every call that was made be answered, and make no more."""
        self._stop = True
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"stop\n")
        async with asyncio.timeout(within_s):
            await asyncio.gather(*self._own)
        await eventually_async(lambda: self._stopped == len(self._processes), "official clients to be answered", within_s=within_s)

    async def check(self, final: dict[str, list[float]]) -> None:
        """Once it has stopped: raise AssertionError unless all that clients were told fits ``final``, and watchers come to see that."""
        self.history.check(final)
        for at, node in enumerate(self._nodes):
            await eventually_async(
                lambda at=at: self._views[at]["lists"] == final, f"watchers on {node} to see the final lists", within_s=30
            )  # type: ignore[misc]
            assert self._views[at]["updates"] > 1 and self._views[at]["totals"] >= 1
        assert not self.failed, f"{len(self.failed)} failed: {self.failed[:3]}"

    async def end(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        for task in (*self._own, *self._reading):
            task.cancel()
        await asyncio.gather(*self._own, *self._reading, return_exceptions=True)

    async def more(self, count: int, within_s: float = 60.0) -> None:
        """Wait until so many more calls are answered."""
        wanted = len(self.acknowledged) + count
        await eventually_async(lambda: len(self.acknowledged) >= wanted, f"{count} more calls to be answered", within_s=within_s)

    async def every_node(self, since: float, within_s: float = 60.0) -> float:
        """Wait until every node has answered a call that was made after ``since``; how long the slowest took to answer its first."""
        # The first answer may be of a call made before: it was waiting.
        await eventually_async(
            lambda: all(sum(moment > since for moment in times) > 1 for times in self.by_node), "every node to answer", within_s=within_s
        )
        return max(next(moment for moment in times if moment > since) for times in self.by_node) - since

    def longest_silence_s(self, since: float, until: float) -> float:
        """How long nobody was answered, at the longest."""
        moments = [since, *sorted(moment for moment in self.acknowledged if since <= moment <= until), until]
        return max(b - a for a, b in itertools.pairwise(moments))

    def _told(self) -> bool:
        names = {
            int(operation.value // 1_000_000) for operation in self.history.operations if operation.value is not None and operation.ended
        }
        return any(100 <= name < 200 for name in names) and 200 in names

    async def _spawn(self, *command: str) -> None:
        # A line has a whole list in it.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT, limit=1 << 26
        )
        self._processes.append(process)
        self._reading.append(asyncio.create_task(self._read(process)))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            if not line.startswith(b"{"):
                continue  # what the client logs
            told = json.loads(line)
            if "views" in told:
                self._views = told["views"]
            elif "failed" in told:
                self.failed.append(told["failed"])
            elif "given_up" in told:
                self._may_give_up -= 1
                if self._may_give_up < 0:
                    self.failed.append("the official Python client gave up a call, and its connection should have lasted")
                if told["given_up"] is not None:
                    self.history.operations.append(Operation(told["given_up"], told["keys"], told["began"]))
            elif "stopped" in told:
                self._stopped += 1
            else:
                self.acknowledged.append(told["ended"])
                if "saw" in told:
                    self.history.operations.append(Operation(told["value"], told["keys"], told["began"], told["ended"], told["saw"]))

    async def _write(self, number: int) -> None:
        rng = random.Random(number)
        async with quick_client(self._nodes[number]) as client:
            count = 0
            while not self._stop:
                count += 1
                keys = rng.sample(KEYS, rng.choice((1, 1, 2)))
                try:
                    if rng.random() < 0.4:
                        operation = self.history.begin(number * 1_000_000.0 + count, keys)
                        given = await client.mutation("lists:append", run=self.run, keys=keys, value=operation.value)
                        self.history.end(operation, _lists(given))
                    elif rng.random() < 0.3:
                        operation = self.history.begin(None, keys)
                        self.history.end(operation, _lists(await client.mutation("lists:read", run=self.run, keys=keys)))
                    else:
                        source, target = rng.sample(range(ACCOUNTS), 2)
                        await client.mutation("bank:transfer", source=source, target=target, amount=float(rng.randint(1, 30)))
                except AppError:
                    pass  # not enough money
                except RemoteError as error:
                    self.failed.append(str(error))
                    continue
                self.by_node[number].append(time.monotonic())
                self.acknowledged.append(time.monotonic())
                await asyncio.sleep(self._pause_s)


def _lists(value: Any) -> dict[str, list[float]]:
    return dict(value)


@asynccontextmanager
async def under_load(front: str, nodes: Sequence[str], pause_s: float = PAUSE_S, breaks: int = 0) -> AsyncIterator[Load]:
    """Inside, the clients of a load are at work. Its arguments are those of ``Load``."""
    load = Load(front, nodes, pause_s, breaks)
    try:
        await load.start()
        yield load
    finally:
        await load.end()
