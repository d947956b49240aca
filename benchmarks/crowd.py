"""Clients that subscribe and then only stay, in a process of their own."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import cast

import uvloop
from load import frame

__all__ = ["Crowd", "gathered"]

#: Connections that are opened at once: more would not fit the queue of the listening socket.
AT_ONCE = 50
HEADERS = (
    b"GET /api/1.48.0/sync HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass(frozen=True)
class Crowd:
    """Who to gather.

    Attributes:
        connections: how many.
        subscriptions: of each.
        path: of the query; its one argument is ``number``.
        first: number of the first subscription; each further one has the next below, so that none is of an item there is.
        shared: whether all connections watch the same numbers.
    """

    port: int
    connections: int
    subscriptions: int
    path: str = "items:get"
    first: int = -1
    shared: bool = False

    def numbers(self, connection: int) -> range:
        """What one connection watches."""
        first = self.first - (0 if self.shared else connection * self.subscriptions)
        return range(first, first - self.subscriptions, -1)


class _Member(asyncio.Protocol):
    """One connection. It answers pings, or the server would drop it."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.crowd = crowd
        self.number = number
        self.buffer = b""
        self.upgraded = False
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(HEADERS)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.upgraded:
            head, end, self.buffer = self.buffer.partition(b"\r\n\r\n")
            if not end:
                self.buffer = head
                return
            self.upgraded = True
            self.transport.write(b"".join(self.hello()))
        while (found := _frame(self.buffer)) is not None:
            first, payload, self.buffer = found
            if first == 0x89:
                self.transport.write(bytes((0x8A, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
            elif b'"type":"Transition"' in payload and not self.settled.done():
                self.settled.set_result(None)

    def hello(self) -> Iterator[bytes]:
        yield frame(
            json.dumps(
                {"type": "Connect", "sessionId": str(uuid.uuid4()), "connectionCount": 0, "lastCloseReason": "InitialConnect"}
            ).encode()
        )
        adds = [
            {"type": "Add", "queryId": id, "udfPath": self.crowd.path, "args": [{"number": float(number)}]}
            for id, number in enumerate(self.crowd.numbers(self.number))
        ]
        yield frame(json.dumps({"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": adds}).encode())

    def connection_lost(self, error: Exception | None) -> None:
        if not self.settled.done():
            self.settled.set_exception(RuntimeError(f"the server closed a connection: {error}"))


def _frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """The first byte and the payload of a server's frame, and what follows it; None while it is not whole."""
    if len(data) < 2:
        return None
    size, at = data[1], 2
    if size >= 126:
        at = 4 if size == 126 else 10
        size = int.from_bytes(data[2:at], "big")
    if len(data) < at + size:
        return None
    return data[0], data[at : at + size], data[at + size :]


async def _gather(crowd: Crowd, ready: Connection) -> None:
    loop = asyncio.get_running_loop()
    members: list[_Member] = []
    for start in range(0, crowd.connections, AT_ONCE):
        batch = [_Member(crowd, number) for number in range(start, min(start + AT_ONCE, crowd.connections))]
        await asyncio.gather(*(loop.create_connection(lambda each=each: each, "127.0.0.1", crowd.port) for each in batch))  # type: ignore[misc]
        await asyncio.gather(*(each.settled for each in batch))
        members += batch
    ready.send("gathered")
    await loop.run_in_executor(None, ready.recv)
    for member in members:
        member.transport.abort()


def _process(crowd: Crowd, ready: Connection) -> None:
    uvloop.run(_gather(crowd, ready))


@contextmanager
def gathered(crowd: Crowd) -> Iterator[None]:
    """Inside, every client of the crowd has the results of its subscriptions."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_process, args=(crowd, there))
    process.start()
    there.close()  # so that the end of the process ends the wait for it
    try:
        if here.recv() != "gathered":
            raise RuntimeError("the crowd did not gather")
        yield
        here.send("leave")
    finally:
        here.close()
        process.join()
