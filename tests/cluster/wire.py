"""TCP between two parties, to be cut, reset, stalled, lost at a chosen moment, or listened to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Wire", "laid"]

#: Closing sends a reset instead of an end.
_LINGER = struct.pack("ii", 1, 0)


class _Pair:
    """One connection, passed on."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.ends = (near, far)
        self.losing = False
        self.silent = False
        self.over = asyncio.Event()

    def end(self, *, reset: bool = False) -> None:
        self.over.set()
        for end in self.ends:
            if reset and not end.transport.is_closing():
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            end.transport.abort()


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
        self._open: set[_Pair] = set()

    def cut(self) -> None:
        """End every connection."""
        for pair in list(self._open):
            pair.end()

    def reset(self) -> None:
        """End every connection as a host does that knows nothing of it."""
        for pair in list(self._open):
            pair.end(reset=True)

    def silence(self) -> None:
        """Pass nothing more over the connections that there are, for ever, and tell nobody. New ones are not affected."""
        for pair in self._open:
            pair.silent = True

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
        said = _Said()
        self.asked.append(said.asked)
        pair = _Pair(writer, far_writer)
        self._open.add(pair)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(pair, reader, far_writer, said, asks=True))
                tasks.create_task(self._pass(pair, far_reader, writer, said, asks=False))
        finally:
            self._open.discard(pair)
            pair.end()

    async def _pass(self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: _Said, *, asks: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self.flowing.wait()
                if pair.silent:
                    await pair.over.wait()
                    break
                if pair.losing and not asks:
                    self.lost += 1
                    break
                if asks and self.lose_answer_to is not None and self.lose_answer_to in data:
                    self.lose_answer_to = None
                    pair.losing = True
                said.add(data, asks=asks)
                writer.write(data)
                await writer.drain()
        pair.end()


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
        wire.flowing.set()
        wire.cut()
        await asyncio.sleep(0)
