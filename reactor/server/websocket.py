"""The sync paths: accepting WebSocket connections, and closing them all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from reactor.engine.engine import Engine
from reactor.engine.runtime import Runtime
from reactor.errors import ProtocolError
from reactor.functions.runner import Runner
from reactor.limits import Limits
from reactor.protocol import server_messages as wire
from reactor.protocol.client_version import client_version
from reactor.server.admin import Authenticator
from reactor.server.connection import Connection
from reactor.server.passes import Shared
from reactor.server.uvicorn_socket import EXTENSION

__all__ = ["Connections"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_SYNC = re.compile(r"/api(?:/(?P<version>[^/]+))?/sync\Z")

#: The last reason that a connection is closed with at a shutdown: clients reconnect, and say nothing.
GOING_AWAY = (1001, "InternalServerError")
#: How long a shutdown waits for clients to take their last frames.
CLOSING_S = 2.0


class Connections:
    """All WebSocket connections of a node: an ASGI application for the sync paths."""

    def __init__(self, engine: Engine, runner: Runner, authenticator: Authenticator, runtime: Runtime, limits: Limits) -> None:
        self.stopping = False
        self._shared = Shared(engine, runner, authenticator, runtime, limits)
        self.work = self._shared.work
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def subscriptions(self) -> int:
        """How many queries the clients watch, each counted for each client."""
        return sum(len(connection.session.queries) for connection in self._open)

    @staticmethod
    def serves(path: str) -> bool:
        """Whether the sync protocol is spoken at this path."""
        return _SYNC.match(path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        found = _SYNC.match(scope["path"])
        headers = dict(scope["headers"])
        header = headers.get(b"convex-client")
        try:
            if self.stopping:
                raise ProtocolError("The server is stopping.", code="InternalServerError")
            client = client_version(found["version"] if found else None, header.decode("latin-1") if header else None)
        except ProtocolError as error:
            await _refuse(scope, send, error)
            return
        await send({"type": "websocket.accept"})
        connection = Connection(self._shared, client, send, scope.get("extensions", {}).get(EXTENSION))
        self._open.add(connection)
        try:
            await connection.serve(receive)
        finally:
            self._open.discard(connection)

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, finish what runs for at most ``grace_s`` seconds, then close every connection."""
        self.stopping = True
        for connection in list(self._open):
            connection.accept_nothing()
        if work := self.work.tasks():
            await asyncio.wait(work, timeout=grace_s)
        for task in self.work.tasks():
            task.cancel()
        closing = [ending for connection in list(self._open) if (ending := connection.finish(*GOING_AWAY)) is not None]
        if closing:
            await asyncio.wait(closing, timeout=min(grace_s, CLOSING_S))


async def _refuse(scope: Scope, send: Send, error: ProtocolError) -> None:
    """Answer an upgrade with HTTP 400, or where the server cannot, with its own refusal."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    body = b'{"code":%s,"message":%s}' % (wire.text(error.code), wire.text(error.message))
    await send({"type": "websocket.http.response.start", "status": 400, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "websocket.http.response.body", "body": body})
