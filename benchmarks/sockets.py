"""The client end of a WebSocket for generators of load: frame headers are read, messages are only searched."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Sequence
from typing import Any, cast

import orjson
from load import frame

__all__ = ["SYNC_PATH", "HttpConnection", "WebSocket", "connect_message", "open_all", "query_set"]

SYNC_PATH = "/api/1.48.0/sync"
#: Connections that are being opened at one time: a server's backlog is not what is measured.
OPENING = 100


class WebSocket(asyncio.Protocol):
    """One connection. What a message means is a subclass's matter.

    Attributes:
        ready: set by the subclass when the connection has what the measurement starts from.
    """

    path = SYNC_PATH

    def __init__(self) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open = False
        self._closing = False
        self._rest = b""

    def opened(self) -> None:
        """The server has upgraded the connection."""
        raise NotImplementedError

    def text(self, data: bytes, start: int, end: int) -> None:
        """A message stands in ``data[start:end]``."""
        raise NotImplementedError

    async def open(self, port: int) -> None:
        """Connect, and return when it is ready."""
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        await self.ready

    def send(self, message: bytes) -> None:
        self.transport.write(frame(message))

    def close(self) -> None:
        self._closing = True
        self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(
            b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % self.path.encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        if not self._open:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self._rest = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                raise RuntimeError(f"the server refused a connection: {data[:200]!r}")
            self._open = True
            self.opened()
        while size - at >= 2:
            start = at + 2
            length = data[at + 1]
            if length >= 126:
                start += 2 if length == 126 else 8
                if start > size:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            end = start + length
            if end > size:
                break
            code = data[at] & 0x0F
            if code == 1:
                self.text(data, start, end)
            elif code == 9:
                self.transport.write(bytes((0x8A, 0x80 | length, 0, 0, 0, 0)) + data[start:end])
            at = end
        self._rest = data[at:]

    def connection_lost(self, error: Exception | None) -> None:
        if not self._closing:
            raise RuntimeError(f"the server closed a connection: {error or self._rest!r}")


async def open_all(connections: Sequence[WebSocket], port: int) -> None:
    """Connect, and return when all are ready."""
    for start in range(0, len(connections), OPENING):
        async with asyncio.timeout(60):
            await asyncio.gather(*(connection.open(port) for connection in connections[start : start + OPENING]))


def connect_message() -> bytes:
    """The first message of a new session."""
    hello = {"type": "Connect", "sessionId": str(uuid.uuid4()), "connectionCount": 0, "lastCloseReason": "InitialConnect"}
    return json.dumps(hello).encode()


def query_set(queries: Sequence[tuple[str, dict[str, Any]]]) -> bytes:
    """The message that asks for these queries, by path and arguments; their ids count from 0."""
    added = [{"type": "Add", "queryId": number, "udfPath": path, "args": [args]} for number, (path, args) in enumerate(queries)]
    return json.dumps({"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": added}).encode()


class HttpConnection(asyncio.Protocol):
    """Keeps alive, and sends one request at a time."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[Any] | None = None
        self._received = b""

    async def open(self, port: int) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)

    async def post(self, path: str, body: Any) -> Any:
        """The JSON of the answer."""
        text = orjson.dumps(body)
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (path.encode(), len(text), text)
        )
        return await self._answer

    def close(self) -> None:
        self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if found and length is not None and len(body) >= int(length[1]):
            self._received = b""
            assert self._answer is not None
            self._answer.set_result(orjson.loads(body))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or RuntimeError("the server closed a connection"))
