"""The sync protocol by hand: for what an official client would never send, or hides."""

from __future__ import annotations

import json
import uuid
from types import TracebackType
from typing import Any

from websockets.sync.client import connect as open_socket

__all__ = ["Socket"]


class Socket:
    """One connection that has said Connect.

    Args:
        url: of the server.
        connect: fields of its Connect that are to be others than those of a client that comes for the first time.
    """

    def __init__(self, url: str, **connect: Any) -> None:
        self.opening = open_socket(f"ws{url.removeprefix('http')}/api/1.48.0/sync", proxy=None, max_size=None)
        self.connection = self.opening.__enter__()
        self.query_set = 0
        said = {"sessionId": str(uuid.uuid4()), "connectionCount": 0, "lastCloseReason": "InitialConnect", "clientTs": 0, **connect}
        self.send(type="Connect", **said)

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.opening.__exit__(kind, error, trace)

    def send(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def receive(self, type: str) -> dict[str, Any]:
        """The next message of this type."""
        while True:
            message: dict[str, Any] = json.loads(self.connection.recv(timeout=20))
            if message["type"] == type:
                return message

    def subscribe(self, path: str, **args: Any) -> None:
        add = {"type": "Add", "queryId": self.query_set, "udfPath": path, "args": [args]}
        self.send(type="ModifyQuerySet", baseVersion=self.query_set, newVersion=self.query_set + 1, modifications=[add])
        self.query_set += 1

    def updated(self) -> dict[str, Any]:
        """The next change of a query: its QueryUpdated or QueryFailed."""
        while True:
            modifications: list[dict[str, Any]] = self.receive("Transition")["modifications"]
            if modifications:
                return modifications[0]
