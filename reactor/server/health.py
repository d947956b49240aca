"""What a proxy asks before it sends clients to a node: is it alive, is it ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson

from reactor.engine.engine import Engine
from reactor.server.http_api import Reply
from reactor.server.websocket import Connections

if TYPE_CHECKING:
    from reactor.stores.postgres_standby import StandbyHealth

__all__ = ["Health"]

LIVE, READY = "/livez", "/readyz"


class Health:
    """Answers ``/livez``: the process serves; and ``/readyz``: it can serve clients now, else 503 and why not.

    Args:
        standby: how it goes with the one that reads go to; None: there is none. A node is ready without it.
    """

    def __init__(self, engine: Engine, connections: Connections, standby: Callable[[], StandbyHealth | None]) -> None:
        self._standby = standby
        self._engine = engine
        self._connections = connections

    def serves(self, path: str) -> bool:
        return path in (LIVE, READY)

    def reply(self, path: str) -> Reply:
        if path == LIVE:
            return Reply(b'{"alive":true}')
        reason = "The server is stopping" if self._connections.stopping else self._engine.trouble
        said: dict[str, object] = {
            "ready": reason is None,
            "ts": str(self._engine.head_ts),
            "behindSeconds": round(self._engine.behind_s, 3),
        }
        if reason is not None:
            said["reason"] = reason
        standby = self._standby()
        if standby is not None:
            told: dict[str, object] = {"serves": standby.reason is None, "behindSeconds": round(standby.behind_s, 3)}
            said["standby"] = told if standby.reason is None else told | {"reason": standby.reason}
        return Reply(orjson.dumps(said), 200 if reason is None else 503)
