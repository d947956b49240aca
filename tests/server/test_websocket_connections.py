"""The sync protocol over real connections: clients that send what they like, and do not read."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

import reactor.server.uvicorn_socket
from reactor.server.uvicorn_socket import WebSocketProtocol
from tests.server.support import APP, SmallBackend
from tests.server.test_http_direct import Connection, connected, served
from tests.support.waiting import eventually_async

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("connections, whatever the store")]

UPGRADE = (
    b"GET /api/1.48.0/sync HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: " + base64.b64encode(bytes(16)) + b"\r\n"
)
GOES_ON, TEXT, CLOSE, PING = 0, 1, 8, 9


@pytest.fixture
async def url(anyio_backend: str) -> AsyncIterator[str]:
    async with SmallBackend(APP) as t, served(t) as (url, _):
        yield url


@pytest.fixture
def protocols(monkeypatch: pytest.MonkeyPatch) -> list[WebSocketProtocol]:
    """The server's ends of all connections that are upgraded."""
    made: list[WebSocketProtocol] = []
    connection_made = WebSocketProtocol.connection_made

    def kept(self: WebSocketProtocol, transport: Any) -> None:
        made.append(self)
        connection_made(self, transport)

    monkeypatch.setattr(WebSocketProtocol, "connection_made", kept)
    return made


def frame(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    """A client's frame. Masked by nothing."""
    length = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes((opcode | 0x80 * last,)) + length + bytes(4) + payload


def message(**fields: Any) -> bytes:
    return frame(TEXT, json.dumps(fields).encode())


async def unread(connection: Connection, protocols: list[WebSocketProtocol]) -> WebSocketProtocol:
    """The server's end, once it waits for its client to read a result."""
    connection.writer.write(UPGRADE + b"\r\n")
    await connection.reader.readuntil(b"\r\n\r\n")
    connect = {"sessionId": str(uuid.uuid4()), "connectionCount": 0, "lastCloseReason": None}
    add = {"type": "Add", "queryId": 0, "udfPath": "values:long", "args": [{"letter": "x", "times": 15_000_000}]}
    connection.writer.write(
        message(type="Connect", **connect) + message(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[add])
    )
    (protocol,) = protocols
    await eventually_async(lambda: not protocol.writable.is_set(), "the server to wait for its client")
    return protocol


@pytest.mark.parametrize(
    "header",
    [b"cookie: " + b"a" * 9000 + b"\r\n", b"".join(b"x-%d: a\r\n" % number for number in range(150)), b"content-length: 1\r\n"],
    ids=["a long line", "many headers", "a body"],
)
async def test_an_upgrade_that_cannot_be_read_is_refused(url: str, header: bytes) -> None:
    async with connected(url) as connection:
        connection.writer.write(UPGRADE + header + b"\r\n")
        assert (await connection.ended()).startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_a_client_that_closes_and_does_not_read_is_given_up(
    url: str, protocols: list[WebSocketProtocol], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reactor.server.uvicorn_socket, "ABORT_S", 0.1)
    async with connected(url, limit=4096) as connection:
        protocol = await unread(connection, protocols)
        connection.writer.write(frame(CLOSE, b""))
        await eventually_async(lambda: protocol.disconnected, "the connection to be given up")


async def test_pings_of_a_client_that_does_not_read_are_answered_by_one_pong(
    url: str, protocols: list[WebSocketProtocol], monkeypatch: pytest.MonkeyPatch
) -> None:
    pings = 0
    handle_ping = WebSocketProtocol.handle_ping

    def counted(self: WebSocketProtocol) -> None:
        nonlocal pings
        pings += 1
        handle_ping(self)

    monkeypatch.setattr(WebSocketProtocol, "handle_ping", counted)
    async with connected(url, limit=4096) as connection:
        await unread(connection, protocols)
        connection.writer.write(b"".join(frame(PING, b"ping %03d" % number) for number in range(1000)))
        await eventually_async(lambda: pings == 1000, "all pings to be taken")
        received = bytearray()
        async with asyncio.timeout(20):
            while not received.endswith(b"ping 999"):
                received += await connection.reader.read(65536)
        assert received.count(b"ping ") == 1


async def test_a_message_in_many_frames_is_taken_in_turns_and_kept_as_one(
    url: str, protocols: list[WebSocketProtocol], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reactor.server.uvicorn_socket, "FRAMES", 10)
    kept: list[int] = []
    turns: list[int] = []
    handle_cont, go_on = WebSocketProtocol.handle_cont, WebSocketProtocol._go_on

    def continued(self: WebSocketProtocol, event: Any) -> None:
        handle_cont(self, event)
        kept.append(len(self.frames))

    def turned(self: WebSocketProtocol) -> None:
        turns.append(len(kept))
        go_on(self)

    monkeypatch.setattr(WebSocketProtocol, "handle_cont", continued)
    monkeypatch.setattr(WebSocketProtocol, "_go_on", turned)
    async with connected(url) as connection:
        connection.writer.write(UPGRADE + b"\r\n")
        await connection.reader.readuntil(b"\r\n\r\n")
        text = [b'{"type":"Event","eventType":"', *[b"ab", b""] * 1000, b'"}']
        connection.writer.write(frame(TEXT, text[0], last=False))
        connection.writer.write(b"".join(frame(GOES_ON, part, last=False) for part in text[1:-1]) + frame(GOES_ON, text[-1]))
        connection.writer.write(message(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[]))
        await connection.reader.readuntil(b'"querySet":1')
    assert len(kept) == 2001 and set(kept) == {0, 1}
    assert all(after - before <= 10 for before, after in pairwise(turns)) and len(turns) >= 200


async def test_small_messages_are_taken_in_turns(url: str, protocols: list[WebSocketProtocol], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reactor.server.uvicorn_socket, "FRAMES", 10)
    turns = 0
    go_on = WebSocketProtocol._go_on

    def turned(self: WebSocketProtocol) -> None:
        nonlocal turns
        turns += 1
        go_on(self)

    monkeypatch.setattr(WebSocketProtocol, "_go_on", turned)
    async with connected(url) as connection:
        connection.writer.write(UPGRADE + b"\r\n")
        await connection.reader.readuntil(b"\r\n\r\n")
        changes = [message(type="ModifyQuerySet", baseVersion=n, newVersion=n + 1, modifications=[]) for n in range(1000)]
        connection.writer.write(b"".join(changes))
        await connection.reader.readuntil(b'"endVersion":{"querySet":1000')
    assert turns > 50  # but for those whose frames came apart
