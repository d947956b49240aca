"""What a proxy asks before it sends clients to a node: is it alive, is it ready."""

from __future__ import annotations

import orjson

from reactor.engine.engine import Engine
from reactor.server.http_api import Reply
from reactor.server.websocket import Connections

__all__ = ["Health"]

LIVE, READY = "/livez", "/readyz"


class Health:
    """Answers ``/livez``: the process serves; and ``/readyz``: it can serve clients now, else 503 and why not."""

    def __init__(self, engine: Engine, connections: Connections) -> None:
        self._engine = engine
        self._connections = connections

    def serves(self, path: str) -> bool:
        return path in (LIVE, READY)

    def reply(self, path: str) -> Reply:
        if path == LIVE:
            return Reply(b'{"alive":true}')
        reason = "The server is stopping" if self._connections.stopping else self._engine.trouble
        said = {"ready": reason is None, "ts": str(self._engine.head_ts), "behindSeconds": round(self._engine.behind_s, 3)}
        return Reply(orjson.dumps(said if reason is None else said | {"reason": reason}), 200 if reason is None else 503)
