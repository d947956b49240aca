"""uvicorn's HTTP with an end for clients that are silent in the middle of a request, or do not take the answer."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["EXTENSION", "HttpProtocol"]

#: Where a request's scope has, under "extensions", what tells whether the client is gone.
EXTENSION = "reactor.gone"

#: Of an answer that waits to be taken, in each period.
LEAST_BYTES = 16 * 1024


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    A connection is aborted when its client sends nothing for ``silent_s`` though a request is incomplete, needs longer than that for
    a request's head, or takes next to nothing of the answer for that long. The server's own slowness does not count.

    Args:
        silent_s: see above.
    """

    def __init__(self, *args: Any, silent_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._silent_s = silent_s
        self._in_head = self._in_request = False
        self._heard = 0.0
        self._watching: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._extensions: dict[str, Any] = {EXTENSION: transport.is_closing}
        # As long as between two requests.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_request:
            if not self._in_head:
                self._heard = self.loop.time()
            if self._watching is None:
                self._watching = self.loop.call_later(self._silent_s, self._look)

    def handle_websocket_upgrade(self) -> None:
        self._in_request = False
        self._stop()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = self._extensions
        self._in_head = self._in_request = True
        self._heard = self.loop.time()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_request = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self._silent_s, self._look_unread, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._forget_unread()
        super().resume_writing()

    def _look(self) -> None:
        self._watching = None
        if not self._in_request or self.transport.is_closing():
            return  # the next request, if one comes, watches anew
        left = self._heard + self._silent_s - self.loop.time()
        if self.flow.read_paused or (not self._in_head and self.cycle is not None and self.cycle.waiting_for_100_continue):
            left = self._silent_s  # it is not the client's turn
            self._heard = self.loop.time()
        if left <= 0:
            self.transport.abort()
        else:
            self._watching = self.loop.call_later(left, self._look)

    def _look_unread(self, before: int) -> None:
        size = self.transport.get_write_buffer_size()
        if before - size < LEAST_BYTES:
            self.transport.abort()
        else:
            self._unread = self.loop.call_later(self._silent_s, self._look_unread, size)

    def _stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        self._forget_unread()

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
