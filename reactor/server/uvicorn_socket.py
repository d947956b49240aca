"""uvicorn's WebSocket with a short way for the messages that nearly all are, and an end for clients that read nothing.

A whole text message in one frame goes from the transport to the application, and back, as a call: no parser state, queue,
task or pause of the transport for each. All other frames take uvicorn's way, one whole frame at a time, so that its parser
stands between two frames whenever the short way is taken. An application that does not know the extension sees plain ASGI.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import OPEN

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without its wheel
    from websockets.utils import apply_mask

__all__ = ["EXTENSION", "FRAGMENT_BYTES", "WebSocketProtocol", "begin_text"]

#: Where a WebSocket's scope has, under "extensions", its ``WebSocketProtocol``.
EXTENSION = "reactor.direct"

#: Some clients take no frame above 16 MiB, and put a message together from smaller ones.
FRAGMENT_BYTES = 4 * 1024 * 1024
#: What a client has not taken this long after the application is done with it is thrown away.
ABORT_S = 10.0

#: Frames that are taken between two turns of the event loop. A read may hold thousands, and the loop makes many reads at once.
FRAMES = 500

_FIN, _TEXT, _CONTROL = 0x80, 0x01, 0x08


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection. What is public beside uvicorn's own is the extension."""

    # What is looked at for each message, uvicorn's own included: in the dictionary that has the 40 others, each would take cache lines
    # of its own, of every connection.
    __slots__ = ("_fragmented", "_partial", "_receiver", "_slow", "close_sent", "conn", "handshake_initiated", "transport")

    _held = False  # more was read than is taken in one turn: the rest is in ``_partial``
    _pong = b""  # the newest that a client which is slow to read is owed
    _aborting: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receiver: Callable[[str | bytes], None] | None = None
        self._partial = bytearray()  # the beginning of a frame
        self._fragmented = False  # inside a message of several frames
        self._slow = False  # the client, to read

    # --- for the application

    def deliver_to(self, receiver: Callable[[str | bytes], None]) -> None:
        """Call ``receiver`` with each message from now on, those that wait included. ASGI's ``receive`` tells of the end only.

        It is called while data is read: it takes what it can, never waits, and raises nothing.
        """
        self._receiver = receiver
        waiting = [self.queue.get_nowait() for _ in range(self.queue.qsize())]
        for event in waiting:
            if event["type"] == "websocket.receive":
                receiver(event.get("text") or event.get("bytes") or "")
            else:
                self.queue.put_nowait(event)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def send_begun(self, begun: bytes, tail: bytes) -> bool:
        """Send a text whose beginning ``begin_text`` made into ``begun``, as ``send_now`` does."""
        transport = self.transport
        if self._slow or self.close_sent or transport.is_closing():
            return False
        transport.write(begun + tail)
        return True

    def send_now(self, messages: Sequence[bytes]) -> bool:
        """Send texts in one write, unless the client is slow to read or the connection is closing: then nothing is sent."""
        # Whatever ends the protocol's state of being open closes the transport, or sends a close.
        if self._slow or self.close_sent or self.transport.is_closing():
            return False
        parts: list[bytes] = []
        for message in messages:
            length = len(message)
            if length < 65536:
                parts += (_small_header(length), message)
            else:
                parts += _frames(message)
        self.transport.write(b"".join(parts))
        return True

    # --- for uvicorn

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: dict[str, Any] = cast(dict[str, Any], self.scope["extensions"])
            extensions[EXTENSION] = self

    def pause_writing(self) -> None:
        self._slow = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self._slow = False
        if self._pong and not self.transport.is_closing():
            self.transport.write(self._pong)
        self._pong = b""
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._aborting is not None:
            self._aborting.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:
            # The request; a client may not send frames before it is answered.
            super().data_received(data)
            if not self.handshake_initiated:
                self._refuse()
            return
        partial = self._partial
        if self._held:
            partial += data
            return
        view: bytes | bytearray = data
        if partial:
            partial += data
            view = partial
        at = self._read_frames(view)
        if view is partial:
            del partial[:at]
        elif at < len(data):
            partial += data[at:]

    def _hold(self) -> None:
        self._held = True
        self.transport.pause_reading()
        self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._held = False
        if not self.transport.is_closing():
            del self._partial[: self._read_frames(self._partial)]
            if not self._held and not self.read_paused and not self.transport.is_closing():
                self.transport.resume_reading()

    async def send(self, message: Any) -> None:
        """See ASGI's ``send``."""
        text = message.get("text") if message["type"] == "websocket.send" else None
        if text is not None and self.handshake_complete and self.initial_response is None:
            await self.writable.wait()
            if not self.send_now((text.encode(),)):
                raise ClientDisconnected
            return
        await super().send(message)

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        if not self.disconnected:
            # Whoever closed: uvicorn only closes too, which waits for a client to take everything that was written.
            self._aborting = self.loop.call_later(ABORT_S, self.transport.abort)

    def send_receive_event_to_app(self) -> None:
        """Called by uvicorn's way, which the application is spared where it can be."""
        if self._receiver is None or self.close_sent:
            super().send_receive_event_to_app()
            return
        data = b"".join(self.frames)
        self.frames = []
        if self.curr_msg_data_type == "bytes":
            self._receiver(data)
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self.conn.send_close(1007)
            self.handle_parser_exception()
            return
        self._receiver(text)

    def handle_cont(self, event: Any) -> None:
        # Together: each apart takes many times what it holds, and an empty one counts for nothing in the size of a message.
        so_far: Any = self.frames[0]
        if not isinstance(so_far, bytearray):
            so_far = bytearray(so_far)
            self.frames = [so_far]
        so_far += event.data
        if event.fin:
            self.send_receive_event_to_app()

    def handle_ping(self) -> None:
        if self._slow:
            # One that only sends would be owed without bounds. Of several pings the newest may be answered for all.
            self._pong = b"".join(self.conn.data_to_send())
        else:
            super().handle_ping()

    def keepalive_timeout(self) -> None:
        """The client has answered no ping: nobody is there to wait for."""
        super().keepalive_timeout()
        self.transport.abort()

    def _refuse(self) -> None:
        """The request is whole, and its parser made nothing of it: a line of it is too long, or there are too many."""
        error = self.conn.handshake_exc
        text = b"The request cannot be read: %b.\n" % str((error and error.__cause__) or error).encode("latin-1", "replace")
        self.transport.write(b"%bcontent-length: %d\r\nconnection: close\r\n\r\n%b" % (STATUS_LINE[400], len(text), text))
        self.transport.close()

    def _read_frames(self, data: bytes | bytearray) -> int:
        """Take the whole frames at the beginning of ``data``; how much that was."""
        at, end, frames = 0, len(data), 0
        largest = self.config.ws_max_size
        while end - at >= 2:
            if frames == FRAMES:
                if not self.transport.is_closing():
                    self._hold()
                break
            frames += 1
            first, length = data[at], data[at + 1] & 0x7F
            header = at + (6 if data[at + 1] & 0x80 else 2)
            if length == 126:
                length, header = int.from_bytes(data[at + 2 : at + 4], "big"), header + 2
            elif length == 127:
                length, header = int.from_bytes(data[at + 2 : at + 10], "big"), header + 8
            stop = header + length
            if header > end or (stop > end and length <= largest):
                return at
            receiver = self._receiver
            if (
                first == _FIN | _TEXT
                and receiver is not None
                and data[at + 1] & 0x80
                and length <= largest
                and not self._fragmented
                and self.conn.state is OPEN
            ):
                try:
                    text = apply_mask(bytes(data[header:stop]), bytes(data[header - 4 : header])).decode()
                except UnicodeDecodeError:
                    pass
                else:
                    at = stop
                    receiver(text)
                    continue
            # One that is too large is refused for its header alone; the parser takes nothing after it.
            stop = min(stop, end)
            if not first & _CONTROL:
                self._fragmented = not first & _FIN
            super().data_received(bytes(data[at:stop]))
            at = stop
        return at


@lru_cache(maxsize=1024)
def _small_header(length: int) -> bytes:
    return _header(_FIN | _TEXT, length)


def begin_text(head: bytes, tail_bytes: int) -> bytes:
    """The frame of a text of at most ``FRAGMENT_BYTES``, but for the tail of the text.

    Args:
        head: the text, but for its tail.
        tail_bytes: how long that is.
    """
    return _header(_FIN | _TEXT, len(head) + tail_bytes) + head


def _frames(message: bytes) -> list[bytes]:
    """The frames of a large text message, headers and payloads apart."""
    length = len(message)
    parts: list[bytes] = []
    for at in range(0, length, FRAGMENT_BYTES):
        part = message[at : at + FRAGMENT_BYTES]
        parts += (_header((0 if at else _TEXT) | (_FIN if at + FRAGMENT_BYTES >= length else 0), len(part)), part)
    return parts


def _header(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")
