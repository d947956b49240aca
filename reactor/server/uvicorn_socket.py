"""uvicorn's WebSocket, with large messages in fragments and an end for clients that read nothing."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

__all__ = ["WebSocketProtocol"]

#: Some clients take no frame above 16 MiB, and put a message together from smaller ones.
FRAGMENT_BYTES = 4 * 1024 * 1024
#: What a client has not taken this long after the close is thrown away.
ABORT_S = 10.0


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection."""

    async def send(self, message: Any) -> None:
        """See ASGI's ``send``."""
        text = message.get("text")
        if text is not None and len(text) > FRAGMENT_BYTES:
            await self._send_in_fragments(text.encode())
            return
        await super().send(message)
        if message["type"] == "websocket.close":
            # uvicorn only closes, which waits for a client to take everything that was written.
            self.loop.call_later(ABORT_S, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """The client has answered no ping: nobody is there to wait for."""
        super().keepalive_timeout()
        self.transport.abort()

    async def _send_in_fragments(self, data: bytes) -> None:
        await self.writable.wait()
        if self.disconnected or self.close_sent:
            raise ClientDisconnected
        try:
            for at in range(0, len(data), FRAGMENT_BYTES):
                send = self.conn.send_continuation if at else self.conn.send_text
                send(data[at : at + FRAGMENT_BYTES], at + FRAGMENT_BYTES >= len(data))
                self.transport.write(b"".join(self.conn.data_to_send()))
        except InvalidState:
            raise ClientDisconnected from None
