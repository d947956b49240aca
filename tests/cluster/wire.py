"""TCP between two parties, to be cut, stalled, or lost at a chosen moment."""

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
    """

    def __init__(self, *targets: int) -> None:
        self.targets = list(targets)
        self.port = 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.lose_answer_to: bytes | None = None
        self.lost = 0
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
        ends = {writer, far_writer}
        self._open |= ends
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, far_writer, losing, asks=True))
                tasks.create_task(self._pass(far_reader, writer, losing, asks=False))
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event, *, asks: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self.flowing.wait()
                if losing.is_set() and not asks:
                    self.lost += 1
                    break
                if asks and self.lose_answer_to is not None and self.lose_answer_to in data:
                    self.lose_answer_to = None
                    losing.set()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


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
