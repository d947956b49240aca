"""Clients that transfer money and append to lists, and remember what they were told."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from reactor.client import Client
from reactor.errors import AppError, RemoteError
from tests.cluster.history import History

__all__ = ["ACCOUNTS", "BALANCE", "Load", "Viewer", "viewing"]

ACCOUNTS, BALANCE = 20, 100.0
KEYS = "abcdef"


class Load:
    """Some clients, each with one call at a time.

    Attributes:
        failed: what was answered otherwise than with a result.
        acknowledged: when each call was answered.
    """

    def __init__(self, url: str, clients: int, seed: int = 0) -> None:
        self.history = History()
        self.acknowledged: list[float] = []
        self.failed: list[str] = []
        self._url = url
        self._random = random.Random(seed)
        self._clients = clients
        self._stop = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(self._clients)]

    async def stop(self, within_s: float = 60.0) -> None:
        """Let every call that was made be answered, and make no more."""
        self._stop = True
        async with asyncio.timeout(within_s):
            await asyncio.gather(*self._tasks)

    def longest_silence_s(self, since: float) -> float:
        """How long nobody was answered, at the longest."""
        times = [since, *(moment for moment in self.acknowledged if moment >= since)]
        return max((b - a for a, b in itertools.pairwise(times)), default=float("inf"))

    async def _run(self, number: int) -> None:
        rng = self._random
        # Backoffs are a client's own business: here they are short, so that it is the nodes' recovery that is measured.
        async with Client(self._url, sleep=lambda seconds: asyncio.sleep(min(seconds, 0.1))) as client:
            count = 0
            while not self._stop:
                count += 1
                keys = rng.sample(KEYS, rng.choice((1, 1, 2)))
                try:
                    if rng.random() < 0.4:
                        operation = self.history.begin(number * 1_000_000.0 + count, keys)
                        self.history.end(operation, _lists(await client.mutation("lists:append", keys=keys, value=operation.value)))
                    elif rng.random() < 0.3:
                        operation = self.history.begin(None, keys)
                        self.history.end(operation, _lists(await client.mutation("lists:read", keys=keys)))
                    elif rng.random() < 0.2:
                        assert await client.mutation("bank:total_now") == ACCOUNTS * BALANCE, "money came or went"
                    else:
                        source, target = rng.sample(range(ACCOUNTS), 2)
                        await client.mutation("bank:transfer", source=source, target=target, amount=float(rng.randint(1, 30)))
                except AppError:
                    pass  # not enough money
                except RemoteError as error:
                    self.failed.append(str(error))
                    continue
                self.acknowledged.append(time.monotonic())


def _lists(value: Any) -> dict[str, list[float]]:
    return dict(value)


class Viewer:
    """Watches two live queries on one node. ``lists`` is the newest that it was shown."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.lists: Any = None
        self.totals = 0

    async def watch_lists(self) -> None:
        async for value in self.client.subscribe("lists:everything"):
            before, self.lists = self.lists or {}, value
            for key, values in before.items():
                assert value[key][: len(values)] == values, "a live query went back"

    async def watch_total(self) -> None:
        async for value in self.client.subscribe("bank:total"):
            self.totals += 1
            assert value == ACCOUNTS * BALANCE, "a live query saw half of a transfer"


@asynccontextmanager
async def viewing(url: str) -> AsyncIterator[Viewer]:
    async with Client(url, sleep=lambda seconds: asyncio.sleep(min(seconds, 0.1))) as client, asyncio.TaskGroup() as tasks:
        viewer = Viewer(client)
        watching = [tasks.create_task(viewer.watch_lists()), tasks.create_task(viewer.watch_total())]
        yield viewer
        for task in watching:
            task.cancel()
