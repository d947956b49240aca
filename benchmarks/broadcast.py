"""The bound of a fan-out: on reactor's server stack, every text from the writer goes to all who listen, and nothing else happens.

    .venv/bin/python benchmarks/broadcast.py PORT

A connection at ``/writer`` writes, and is answered before its text is handed on, as with reactor; any other listens.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from reactor.server.uvicorn_socket import WebSocketProtocol

Message = MutableMapping[str, Any]
listeners: dict[Callable[[Message], Awaitable[None]], None] = {}


async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"] != "/writer":
        listeners[send] = None
    while (event := await receive())["type"] != "websocket.disconnect":
        message = {"type": "websocket.send", "text": event["text"]}
        await send({"type": "websocket.send", "text": "taken"})
        for listener in list(listeners):
            await listener(message)
    listeners.pop(send, None)


if __name__ == "__main__":
    # As reactor's own server is set up, see reactor/server/node.py.
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        interface="asgi3",
        lifespan="off",
        loop="uvloop",
        http="httptools",
        ws=WebSocketProtocol,
        ws_per_message_deflate=False,
        ws_ping_interval=15,
        ws_ping_timeout=120,
        backlog=2048,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
