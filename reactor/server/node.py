"""One process that serves: uvicorn, signals, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType

import uvicorn

from reactor.server.app import Backend
from reactor.server.uvicorn_http import HttpProtocol
from reactor.server.uvicorn_socket import WebSocketProtocol

__all__ = ["serve"]

#: Longer than clients and proxies keep an idle connection: who closes first must not be the server, or a request may meet it.
KEEP_ALIVE_S = 75
#: Asked to stop again after the loop has not turned for this long: code of the app's computes on and on, and is interrupted.
DEAF_S = 1.0


class _Server(uvicorn.Server):
    """uvicorn, with a stop of our own.

    Args:
        on_start: see ``serve``.
        signals: see ``serve``.
    """

    def __init__(
        self, config: uvicorn.Config, backend: Backend, stop_timeout_s: float, on_start: Callable[[Callable[[], None]], None], signals: bool
    ) -> None:
        super().__init__(config)
        self._signals = signals
        self._backend = backend
        self._stop_timeout_s = stop_timeout_s
        self._on_start = on_start
        self._loop: asyncio.AbstractEventLoop
        self._unheard_since: float | None = None  # asked to stop then, and the loop has not turned since

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        self._loop = asyncio.get_running_loop()
        with super().capture_signals() if self._signals else contextlib.nullcontext():
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Instead of uvicorn's own, which would raise the signal again after the stop."""
        now = time.monotonic()
        if self._unheard_since is None:
            self._unheard_since = now
            self._loop.call_soon_threadsafe(self._hear)
        elif now - self._unheard_since > DEAF_S:
            raise KeyboardInterrupt
        self._stop()

    def _hear(self) -> None:
        self._unheard_since = None

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start(self._stop)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, let what runs end, close sockets so that clients reconnect; each for a bounded time."""
        started = time.monotonic()
        for server in self.servers:
            server.close()
        # Those that are kept between two requests too: what came on them while all else ends would be cut off.
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpProtocol):
                connection.shutdown()
        await self._backend.connections.stop(0.0 if self.force_exit else self._stop_timeout_s)
        # What is left of the time is for requests; uvicorn knows whole seconds.
        self.config.timeout_graceful_shutdown = max(1, math.ceil(self._stop_timeout_s + started - time.monotonic()))
        await super().shutdown(sockets)


async def serve(
    backend: Backend,
    listening: Sequence[socket.socket],
    *,
    stop_timeout_s: float,
    on_start: Callable[[Callable[[], None]], None],
    signals: bool = True,
) -> None:
    """Serve until asked to stop: accept nothing more, let what runs end, close the sockets.

    Args:
        listening: for everything, and if there is a second one, for HTTP actions alone. Closed at the end.
        stop_timeout_s: how long what runs may go on then.
        on_start: called once requests are taken, with what asks to stop; asked a second time it waits for nothing.
        signals: SIGINT and SIGTERM ask to stop.
    """
    limits = backend.runner.limits
    if len(listening) > 1:
        backend.site_port = listening[1].getsockname()[1]
    config = uvicorn.Config(
        backend,
        interface="asgi3",
        lifespan="off",
        http=partial(  # type: ignore[arg-type]
            HttpProtocol,
            silent_s=limits.silent_request_s,
            head_bytes=limits.http_head_bytes,
            direct=backend.direct,
            work=backend.connections.work,
        ),
        timeout_keep_alive=KEEP_ALIVE_S,
        ws=WebSocketProtocol,
        ws_max_size=limits.frame_size_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=limits.ping_after_s,
        ws_ping_timeout=limits.silent_client_s,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    await _Server(config, backend, stop_timeout_s, on_start, signals).serve([*listening])
