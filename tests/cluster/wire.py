"""TCP between two parties, to be cut, stalled, lost at a chosen moment, or listened to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Wire", "laid"]


class Wire:
    """Connections are passed on to the first of ``targets`` that takes them, beginning each time with the next.

    Attributes:
        flowing: while it is not set, nothing passes in either direction, and nobody is told.
        lose_answer_to: when a connection has passed these bytes on, what is answered is dropped, and the connection cut.
        lost: how often that has happened.
        asked: of each connection, in the order in which they were made, what was sent whenever the other side had spoken last.
    """

    def __init__(self, *targets: int) -> None:
        self.targets = list(targets)
        self.port = 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.lose_answer_to: bytes | None = None
        self.lost = 0
        self.asked: list[list[bytes]] = []
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Break every connection, without a word to either side."""
        for writer in list(self._open):
            writer.transport.abort()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in self.targets:
            self.targets.append(self.targets.pop(0))
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.targets[-1])
                break
            except OSError:
                continue
        else:
            writer.transport.abort()
            return
        losing = asyncio.Event()
        said = _Said()
        self.asked.append(said.asked)
        ends = {writer, far_writer}
        self._open |= ends
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, far_writer, losing, said, asks=True))
                tasks.create_task(self._pass(far_reader, writer, losing, said, asks=False))
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event, said: _Said, *, asks: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self.flowing.wait()
                if losing.is_set() and not asks:
                    self.lost += 1
                    break
                if asks and self.lose_answer_to is not None and self.lose_answer_to in data:
                    self.lose_answer_to = None
                    losing.set()
                said.add(data, asks=asks)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class _Said:
    """Who spoke last on a connection, and what was asked on it."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._asks = False

    def add(self, data: bytes, *, asks: bool) -> None:
        if asks and not self._asks:
            self.asked.append(data)
        elif asks:
            self.asked[-1] += data
        self._asks = asks


@asynccontextmanager
async def laid(*targets: int) -> AsyncIterator[Wire]:
    """A wire to these ports, at its ``port``."""
    wire = Wire(*targets)
    server = await asyncio.start_server(wire.join, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        wire.cut()
        await asyncio.sleep(0)
