"""uvicorn's HTTP with a short way for calls, an end for clients that are silent in a request, or do not take the answer, and bounds for
what is kept of a client that only sends.

A client sends the same head with each call, but for the length of the body. One that was parsed and led to something that answers
directly is remembered for its connection: from then on a request with that head goes from the transport to the function and back
without parser, scope, task, queue or messages. All others take uvicorn's way, whose parser stands between two requests whenever
the short way is taken.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, MutableMapping
from contextvars import Context, copy_context
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HEADER_VALUE_RE, STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from reactor.engine.eager import Kept

__all__ = ["EXTENSION", "Answer", "Answering", "Direct", "HttpProtocol"]

#: Where a request's scope has, under "extensions", what tells whether the client is gone.
EXTENSION = "reactor.gone"

#: Of an answer that waits to be taken, in each period.
LEAST_BYTES = 16 * 1024

#: Of the heads that a connection remembers, and of the bodies that may follow them: where uvicorn would begin to push back.
HEADS, HEAD_BYTES, BODY_BYTES = 4, 4096, 65536

#: More of a body is read in another turn of the event loop.
READ_BYTES = 65536

_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,5})\r\n", re.IGNORECASE)


class Answer(Protocol):
    """What is answered."""

    @property
    def status(self) -> int: ...
    @property
    def content_type(self) -> bytes: ...
    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]: ...
    @property
    def body(self) -> bytes: ...


#: Answers a body. Its first step may run in no task.
Answering: TypeAlias = Callable[[bytes], Coroutine[Any, Any, Answer]]

#: What answers all requests that have the head of this scope; None: the application does.
Direct: TypeAlias = Callable[[MutableMapping[str, Any]], Answering | None]


class _Known(NamedTuple):
    """A head that was parsed before. Between its two parts stands the length of the body."""

    before: bytes
    after: bytes
    answering: Answering


class _Nobody:
    """Who waits for messages: nobody."""

    __slots__ = ()

    def set(self) -> None:
        pass


class _DirectCycle:
    """What uvicorn looks at of the request that is being answered, for all of a connection's that take the short way."""

    __slots__ = ("disconnected", "keep_alive", "message_event", "response_complete", "waiting_for_100_continue")

    def __init__(self) -> None:
        self.disconnected = False
        self.keep_alive = True
        self.message_event = _Nobody()
        self.response_complete = False
        self.waiting_for_100_continue = False


class _Flow(FlowControl):
    """uvicorn's, which reads on for each request that is begun or answered: from a client that does not wait for answers it would take
    as many requests again as a read holds.

    Attributes:
        held: requests wait for their turn, and no more are to be read.
    """

    held = False

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    A connection is aborted when its client sends nothing for ``silent_s`` though a request is incomplete, needs longer than that for
    a request's head, or takes next to nothing of the answer for that long. The server's own slowness does not count.

    Args:
        silent_s: see above.
        head_bytes: how long what is not a body may be, in what comes after its first piece.
        direct: says which requests take the short way.
        work: what is done for those.
    """

    def __init__(self, *args: Any, silent_s: float, head_bytes: int, direct: Direct, work: Kept, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._silent_s = silent_s
        self._head_bytes = head_bytes
        self._direct = direct
        self._work = work
        self._known: list[_Known] = []
        self._answered = _DirectCycle()
        self._partial = bytearray()  # the beginning of a request with a known head
        self._size = 0  # of all of it
        self._messages = 0  # begun in what is being read
        self._used = float("-inf")  # when the short way was taken last
        self._defaults: list[tuple[bytes, bytes]] = []
        self._encoded_defaults = b""
        self._in_head = self._in_request = False
        self._bare_bytes = 0  # read since a request or its body began, or a piece of it came
        self._heard = 0.0
        self._watching: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = self._flow = _Flow(transport)
        self._extensions: dict[str, Any] = {EXTENSION: transport.is_closing}
        # As long as between two requests.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._partial:
            self._partial += data
            if len(self._partial) < self._size:
                self._heard = self.loop.time()
                return
            data = self._take_partial()
        if self._known and not self._in_request and self.cycle.response_complete and self._take(data):
            return
        fresh, self._messages = not self._in_request, 0
        self._bare_bytes += len(data)
        super().data_received(data)
        if self._in_request:
            if self._bare_bytes > self._head_bytes:
                self._refuse_head()
                return
            if not self._in_head:
                self._heard = self.loop.time()
            self._watch()
            if len(data) >= READ_BYTES and not self.flow.read_paused and not self.transport.is_closing():
                # The loop would read on at once, up to 32 times.
                self.transport.pause_reading()
                self.loop.call_soon(self._read_on)
        elif fresh and self._messages == 1:
            self._learn(data)

    def shutdown(self) -> None:
        if self._partial:
            # Like any other that has begun it is waited for.
            super().data_received(self._take_partial())
        super().shutdown()

    def handle_websocket_upgrade(self) -> None:
        self._in_request = False
        self._stop()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._messages += 1
        self.scope["extensions"] = self._extensions
        self._in_head = self._in_request = True
        self._bare_bytes = 0
        self._heard = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        # What follows a body in chunks is no header: a proxy in front has not looked at it, and nobody has asked for it.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._bare_bytes = 0
        super().on_headers_complete()
        self._flow.held = bool(self.pipeline)

    def on_body(self, body: bytes) -> None:
        self._bare_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_request = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._flow.held = len(self.pipeline) > 1  # but for the one that is next
        super().on_response_complete()

    def _start_asgi_task(self, *args: Any) -> None:
        # One that waited for its turn is begun where the answer before it was completed, which may be inside of an HTTP action. It is
        # no part of that, with which it would end.
        Context().run(super()._start_asgi_task, *args)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self._silent_s, self._look_unread, self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._forget_unread()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        left = self._used + self.timeout_keep_alive - self.loop.time()
        if self.cycle is not None and not self.cycle.response_complete:
            left = self.timeout_keep_alive
        if left > 0:
            # The short way leaves the timer as it is.
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    # --- the short way

    def _learn(self, data: bytes) -> None:
        """Remember the head of the request that ``data`` is, if there is a short way for its like.

        It recurs with another length only, in the same state of the parser: what it means then is known.
        """
        cycle, end = self.cycle, data.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(data, 0, end) if end <= HEAD_BYTES else None
        if length is None or cycle is None or self.parser.should_upgrade():
            return
        whole = len(cycle.body) == int(length[1]) == len(data) - end
        if not whole or not cycle.keep_alive or cycle.waiting_for_100_continue or self.scope["http_version"] != "1.1":
            return
        before, after = data[: length.start(1)], data[length.end(1) : end]
        if any(known.before == before and known.after == after for known in self._known):
            return
        answering = self._direct(cast(MutableMapping[str, Any], self.scope))
        if answering is not None:
            del self._known[: 1 - HEADS]
            self._known.append(_Known(before, after, answering))

    def _take(self, data: bytes) -> bool:
        """Begin to answer the request that ``data`` is, or the beginning of. False: there is no short way for it."""
        for known in self._known:
            if data.startswith(known.before):
                at = data.find(b"\r", len(known.before), len(known.before) + 6)
                length = data[len(known.before) : at]
                if at < 0 or not length.isdigit() or not data.startswith(known.after, at) or self.flow.write_paused:
                    continue
                body_at = at + len(known.after)
                size = body_at + int(length)
                if size == len(data):
                    self._answer_now(known.answering(data[body_at:]))
                elif size < len(data) or size - body_at > BODY_BYTES:
                    return False
                else:
                    self._partial += data
                    self._size = size
                    self._in_request = True
                    self._heard = self.loop.time()
                    self._watch()
                return True
        return False

    def _take_partial(self) -> bytes:
        data = bytes(self._partial)
        self._partial.clear()
        self._in_request = False
        return data

    def _answer_now(self, answer: Coroutine[Any, Any, Answer]) -> None:
        self._answered.response_complete = False
        self.cycle = cast(RequestResponseCycle, self._answered)
        # What a function sets of its context is not for the connection's next request, which may be another user's.
        copy_context().run(self._work.start, self._answer(answer))

    async def _answer(self, answer: Coroutine[Any, Any, Answer]) -> None:
        cycle, transport = self._answered, self.transport
        try:
            made = await answer
            if transport.is_closing():
                return
            if self._defaults is not self.server_state.default_headers:
                # Made anew every second, for the date.
                self._defaults = self.server_state.default_headers
                self._encoded_defaults = _lines(tuple(self._defaults))
            head = _head(made.status, made.content_type, made.headers)
            close = b"" if cycle.keep_alive else b"connection: close\r\n"
            transport.write(b"%b%b%bcontent-length: %d\r\n\r\n%b" % (head, self._encoded_defaults, close, len(made.body), made.body))
            cycle.response_complete = True
        finally:
            if not cycle.response_complete:
                transport.close()
        self._used = self.loop.time()
        if cycle.keep_alive and not self.pipeline and self.timeout_keep_alive_task is not None:
            self.server_state.total_requests += 1
        else:
            if not cycle.keep_alive:
                transport.close()
            self.on_response_complete()

    # --- bounds

    def _read_on(self) -> None:
        if not self.flow.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _refuse_head(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(b"%bcontent-length: 0\r\nconnection: close\r\n\r\n" % STATUS_LINE[431])
            self.transport.close()
        else:
            self.transport.abort()

    def _watch(self) -> None:
        if self._watching is None:
            self._watching = self.loop.call_later(self._silent_s, self._look)

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


@lru_cache(maxsize=64)
def _head(status: int, content_type: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return STATUS_LINE[status] + _lines(((b"content-type", content_type), *headers))


def _lines(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    if any(HEADER_VALUE_RE.search(value) for _, value in headers):
        raise RuntimeError("Invalid HTTP header value.")
    return b"".join(b"%b: %b\r\n" % header for header in headers)
