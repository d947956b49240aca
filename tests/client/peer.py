"""A client's state and, by hand, the server that it talks to."""

from __future__ import annotations

import json
from typing import Any

from reactor.client.state import Event, LiveQuery, State
from reactor.protocol.version import encode_ts

__all__ = ["Peer", "state_version", "updated"]


def state_version(query_set: int = 0, identity: int = 0, ts: int = 0) -> dict[str, Any]:
    return {"querySet": query_set, "identity": identity, "ts": encode_ts(ts)}


def updated(query: LiveQuery, value: Any, **more: Any) -> dict[str, Any]:
    return {"type": "QueryUpdated", "queryId": query.query_id, "value": value, "logLines": [], "journal": None, **more}


class Peer:
    """One state, and the version that its server is at on this connection."""

    def __init__(self) -> None:
        self.state = State("0bfe5125-8bbb-4938-9315-8fe38558da95")
        self.version = state_version()

    def connect(self, reason: str | None = "InitialConnect") -> list[dict[str, Any]]:
        """A new connection; what it is told."""
        self.version = state_version()
        self.state.connected(reason, 1000)
        return self.sent()

    def sent(self) -> list[dict[str, Any]]:
        """What the client has sent since it was last looked at."""
        return [json.loads(frame) for frame in iter(self.state.take_frame, None)]

    def receive(self, type: str, **message: Any) -> list[Event]:
        return self.state.receive(json.dumps({"type": type, **message}))

    def transition(self, ts: int, *modifications: dict[str, Any], query_set: int = 1, identity: int = 0) -> list[Event]:
        """From the version that the last one led to."""
        start, self.version = self.version, state_version(query_set, identity, ts)
        return self.receive("Transition", startVersion=start, endVersion=self.version, modifications=list(modifications))

    def respond(self, kind: str, request_id: int, result: Any, **more: Any) -> list[Event]:
        return self.receive(f"{kind}Response", **{"requestId": request_id, "success": True, "result": result, "logLines": [], **more})
