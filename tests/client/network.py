"""What may go wrong between a client and its server: connections that break, and servers that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection, serve

from tests.client.peer import state_version

__all__ = ["Cable", "misbehaving", "plugged"]


class Cable:
    """TCP between clients and a server, to be cut.

    Attributes:
        muted: nothing of what the server says arrives.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self.target = (parts.hostname, parts.port)
        self.url = ""
        self.muted = False
        self._open: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """Break every connection, without a word to either side."""
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()
        self.muted = False

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self.target)
        self._open += [writer, far_writer]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pass(reader, far_writer, lambda: False))
            tasks.create_task(self._pass(far_reader, writer, lambda: self.muted))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, muted: Callable[[], bool]) -> None:
        try:
            while data := await reader.read(65536):
                if not muted():
                    writer.write(data)
                    await writer.drain()
        except ConnectionError:
            pass  # cut
        finally:
            writer.close()


@asynccontextmanager
async def plugged(target: str) -> AsyncIterator[Cable]:
    """A cable to the server at ``target``, to be reached at its ``url``."""
    cable = Cable(target)
    server = await asyncio.start_server(cable.join, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    cable.url = f"http://{host}:{port}"
    try:
        yield cable
    finally:
        cable.cut()
        server.close()


GOOD = {
    "type": "Transition",
    "startVersion": state_version(),
    "endVersion": state_version(1, 0, 1),
    "modifications": [{"type": "QueryUpdated", "queryId": 0, "value": "good", "logLines": [], "journal": None}],
}


@asynccontextmanager
async def misbehaving(*first: str | None) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A server that says each of ``first`` on a connection of its own, nothing for None, and then knows one query's result.

    Its address, and the Connect of each connection so far.
    """
    connects: list[dict[str, Any]] = []

    async def converse(connection: ServerConnection) -> None:
        connects.append(json.loads(await connection.recv()))
        await connection.recv()
        words = first[len(connects) - 1] if len(connects) <= len(first) else json.dumps(GOOD)
        if words is not None:
            await connection.send(words)
        await connection.wait_closed()

    async with serve(converse, "127.0.0.1", 0) as server:
        host, port = next(iter(server.sockets)).getsockname()
        yield f"http://{host}:{port}", connects
