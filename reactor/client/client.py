"""The asyncio client: one connection that is kept up, and calls that wait for what the state tells."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from reactor.client.state import MAX_MESSAGE_BYTES, Event, Failed, Finished, LiveQuery, Result, SignedIn, State, Updated
from reactor.errors import AuthenticationError, ConnectionLost, LimitExceeded, ProtocolError, ReactorError
from reactor.limits import DEFAULT_LIMITS
from reactor.protocol.client_messages import Action, Mutation
from reactor.protocol.version import RequestId
from reactor.values import codec
from reactor.values.codec import Value

__all__ = ["Client", "Subscription"]

_log = logging.getLogger("reactor.client")

#: The protocol is spoken as by the JavaScript client of this version, so that large transitions come in chunks.
PROTOCOL_VERSION = "1.48.0"

SILENT_SERVER_S = 60.0  # without any message; servers say something every 15 s
OPEN_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 1.0

LONGEST_BACKOFF_S = 16.0
OWN_BACKOFF_S = 0.1  # when it was this client that gave the connection up
FAILED_BACKOFF_S = 1.0
BUSY_BACKOFF_S = 3.0
_BUSY = (
    "SubscriptionsWorkerFullError",
    "TooManyConcurrentRequests",
    "CommitterFullError",
    "AwsTooManyRequestsException",
    "ExecuteFullError",
    "SystemTimeoutError",
    "ExpiredInQueue",
    "VectorIndexTooLarge",
    "SearchIndexTooLarge",
    "TooManyWritesInTimePeriod",
)
_SILENT = "InactiveServer"

#: The largest arguments that are sent: what surrounds them fits in a frame too.
_MAX_ARGS_BYTES = DEFAULT_LIMITS.frame_size_bytes - 64 * 1024


class Client:
    """A client of one server: ``async with Client("http://127.0.0.1:3210") as client: await client.query("messages:newest")``.

    Everything goes over one WebSocket, which is opened by the first call or by ``async with``, and opened again, with growing
    pauses, whenever it is lost. Calls wait as long as there is none. To be used within one event loop; ``close`` ends it.

    Functions are named by path, ``module:function``. Arguments are keywords, or a mapping where their names are no Python names.
    Values are None, bool, float, ``Int64``, str, bytes, lists and dicts; an int is sent as a float, a tuple as a list.

    Every call raises
        ``AppError`` with its data, if the function raised one;
        ``RemoteError``, if it failed otherwise;
        ``ValueFormatError`` or ``LimitExceeded``, if the arguments cannot be sent;
        ``AuthenticationError``, if the server refused the token, or no longer accepts it: until ``set_auth`` is called again;
        ``ConnectionLost``, if this client was closed;
        ``ProtocolError``, if the server refuses to talk to this client at all.

    Args:
        url: ``http(s)://host[:port][/prefix]``, or with ``ws(s)``.
        silent_server_s: a connection on which nothing arrives for this long is given up.
        sleep: waits for seconds; between attempts to connect.
        random: a number from 0 to 1, to spread the attempts of many clients.

    Raises:
        ReactorError: ``url`` is none.
    """

    def __init__(
        self,
        url: str,
        *,
        silent_server_s: float = SILENT_SERVER_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._address = sync_address(url)
        self._silent_server_s = silent_server_s
        self._sleep = sleep
        self._random = random
        self._state = State(str(uuid.uuid4()))
        self._error: ReactorError | None = None  # why calls are refused now; only set_auth clears it, and only an AuthenticationError
        self._calls: dict[RequestId, asyncio.Future[Result]] = {}
        self._changes: dict[LiveQuery, asyncio.Event] = {}  # somebody waits for a result
        self._signing_in: list[asyncio.Future[None]] = []
        self._to_send = asyncio.Event()
        self._welcome = asyncio.Event()  # cleared while the token stands refused
        self._welcome.set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, for good. What waits for it raises ``ConnectionLost``; a call that was sent may still have its effect."""
        self._refuse(ConnectionLost("The client was closed."))
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    # --- calls

    async def query(self, path: str, args: Mapping[str, object] | None = None, /, **kwargs: object) -> Value:
        """The query's result, from this connection: it shows every mutation that this client has awaited.

        Where the query is subscribed to, the result is what its subscribers have. Cancelling has no effect on anything else.
        """
        watched = self._watch(path, args, kwargs)
        try:
            while watched.result is None or not watched.fresh:
                await self._change(watched)
            return watched.result.get()
        finally:
            self._leave(watched)

    async def mutation(self, path: str, args: Mapping[str, object] | None = None, /, **kwargs: object) -> Value:
        """Run a mutation; its result, once the queries of this client show what it wrote.

        Mutations of one client run one after another, in the order of the calls. When the connection is lost they are sent again, and
        run exactly once. Cancelling gives up the result; the mutation runs all the same.
        """
        return await self._call(Mutation, path, args, kwargs)

    async def action(self, path: str, args: Mapping[str, object] | None = None, /, **kwargs: object) -> Value:
        """Run an action, beside whatever else runs; its result. Cancelling gives up the result; the action runs all the same.

        Raises:
            ConnectionLost: the connection went away while it ran. It is not known how far it came, and it is not sent again.
        """
        return await self._call(Action, path, args, kwargs)

    def subscribe(self, path: str, args: Mapping[str, object] | None = None, /, **kwargs: object) -> Subscription:
        """Watch a query from now on: ``async for value in client.subscribe(…)``. See ``Subscription``."""
        return Subscription(self, self._watch(path, args, kwargs))

    async def set_auth(self, token: str | None) -> None:
        """Be who the token says, or nobody for None; returns when the server has accepted that.

        Mutations and actions that are called after this run under the new identity, and so does every query once this has returned. A
        mutation that was called before and has to be sent again does too. Of several calls that wait, the last one's token counts
        for all. Cancelling does not bring the old one back.

        Raises:
            AuthenticationError: the server refuses the token. Every call raises this until ``set_auth`` is called again: nothing is
                done as nobody that was meant to be done as somebody. So it is when a token expires later: what waits at that moment
                raises this, and a mutation among it may have had its effect.
        """
        if isinstance(self._error, AuthenticationError):
            self._error = None
            self._welcome.set()
        self._start()
        self._state.authenticate(token)
        self._to_send.set()
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._signing_in.append(accepted)
        await accepted

    # --- what a Subscription is made of

    def _watch(self, path: str, args: Mapping[str, object] | None, kwargs: Mapping[str, object]) -> LiveQuery:
        text = _args_text(args, kwargs)
        self._start()
        watched = self._state.subscribe(path, text)
        self._to_send.set()
        return watched

    def _leave(self, watched: LiveQuery) -> None:
        self._state.unsubscribe(watched)
        if not watched.watchers:
            self._wake(watched)  # nothing wakes it any more: a wait that was cancelled would be kept for ever, with the result
        self._to_send.set()

    async def _change(self, watched: LiveQuery) -> None:
        """Wait until the query may have another result."""
        if self._error is not None:
            raise _again(self._error)
        await self._changes.setdefault(watched, asyncio.Event()).wait()

    # --- the connection

    async def _call(
        self, kind: type[Mutation] | type[Action], path: str, args: Mapping[str, object] | None, kwargs: Mapping[str, object]
    ) -> Value:
        text = _args_text(args, kwargs)
        self._start()
        request = self._state.request(kind, path, text)
        self._to_send.set()
        call: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._calls[request.message.request_id] = call
        return (await call).get()

    def _start(self) -> None:
        if self._error is not None:
            raise _again(self._error)
        if self._task is None:
            # Owned by the client: close() ends it.
            self._task = asyncio.get_running_loop().create_task(self._keep_connected(), name="reactor-client")

    async def _keep_connected(self) -> None:
        reason: str | None = "InitialConnect"
        failures = 0
        try:
            while True:
                reason = await self._connection(reason)
                if self._state.settled:
                    failures = 0
                self._take(self._state.disconnected())
                if isinstance(self._error, ProtocolError):
                    return
                if reason is None:
                    await self._welcome.wait()
                    continue
                delay_s = backoff_s(reason, failures, self._random)
                failures += 1
                _log.warning("No connection to %s (%s); the next attempt is in %.1f s", self._address, reason, delay_s)
                await self._sleep(delay_s)
        except Exception as bug:
            self._refuse(ReactorError(f"The client failed: {bug!r}"))
            _log.exception("The client failed")

    async def _connection(self, last_close_reason: str | None) -> str | None:
        """One connection, from its opening to its end; why it was lost, or None if this client ended it."""
        reason = None
        try:
            async with (
                connect(
                    self._address,
                    open_timeout=OPEN_TIMEOUT_S,
                    close_timeout=CLOSE_TIMEOUT_S,
                    ping_interval=None,  # silence is noticed by the server's own pings
                    max_size=MAX_MESSAGE_BYTES,
                ) as socket,
                asyncio.TaskGroup() as tasks,
            ):
                self._state.connected(last_close_reason, time.time_ns() // 1_000_000)
                writer = tasks.create_task(self._write(socket), name="reactor-client-writer")
                await self._read(socket)
                writer.cancel()
        except* ConnectionClosed as closed:
            reason = _close_reason(closed)
        except* TimeoutError:
            reason = _SILENT
        except* ProtocolError as error:
            reason = f"ProtocolError: {error.exceptions[0]}"
        except* (OSError, WebSocketException) as error:
            reason = str(error.exceptions[0])
        return reason

    async def _read(self, socket: ClientConnection) -> None:
        while self._error is None:
            async with asyncio.timeout(self._silent_server_s):
                frame = await socket.recv()
            self._take(self._state.receive(frame))
            self._to_send.set()  # an answer may let a request go that had to wait

    async def _write(self, socket: ClientConnection) -> None:
        while True:
            self._to_send.clear()
            while (frame := self._state.take_frame()) is not None:
                await socket.send(frame, text=True)
            await self._to_send.wait()

    # --- what comes of it

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Updated):
                self._wake(event.query)
                _log_lines("Q", event.query.path, event.query.result)
            elif isinstance(event, Finished):
                self._finish(event)
            elif isinstance(event, SignedIn):
                for accepted in self._signing_in:
                    if not accepted.done():
                        accepted.set_result(None)
                self._signing_in.clear()
            else:
                self._fail(event)

    def _finish(self, event: Finished) -> None:
        message = event.request.message
        call = self._calls.pop(message.request_id)
        if isinstance(event.result, Result):
            _log_lines("M" if isinstance(message, Mutation) else "A", message.path, event.result)
            if not call.done():
                call.set_result(event.result)
        elif not call.done():
            call.set_exception(event.result)

    def _fail(self, event: Failed) -> None:
        if isinstance(event.error, AuthenticationError):
            self._welcome.clear()
        self._refuse(event.error)

    def _refuse(self, error: ReactorError) -> None:
        """Have everything that waits raise this, and every later call."""
        if self._error is not None and not isinstance(self._error, AuthenticationError):
            return  # the first cause stays
        self._error = error
        waiting: list[asyncio.Future[Any]] = [*self._calls.values(), *self._signing_in]
        self._calls.clear()
        self._signing_in.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(_again(error))
        for watched in list(self._changes):
            self._wake(watched)

    def _wake(self, watched: LiveQuery) -> None:
        changed = self._changes.pop(watched, None)
        if changed is not None:
            changed.set()


class Subscription(AsyncIterator[Value]):
    """A query's result now and whenever it is another: ``async for value in client.subscribe("messages:newest", channel="general")``.

    Only the newest result is kept, so that who takes them slowly skips to it. Each comes as the caller's own lists and dicts.

    A failure is a result too: it is raised, and the query goes on being watched. ``async for`` over the same subscription waits for the
    result after the failure; so it does after an ``AuthenticationError``, once ``Client.set_auth`` was called.

    It ends when it is garbage, as after a ``break`` out of the loop, or with ``aclose``. Cancelling a wait for the next value is safe.
    """

    def __init__(self, client: Client, watched: LiveQuery) -> None:
        self._client = client
        self._watched = watched
        self._seen: Result | None = None
        self._loop = asyncio.get_running_loop()
        self._open = True

    async def __anext__(self) -> Value:
        while self._open:
            result = self._watched.result
            if result is not None and result is not self._seen:
                self._seen = result
                return result.get()
            await self._client._change(self._watched)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop watching. Iterating over it ends, also where it waits at the moment."""
        if self._open:
            self._open = False
            self._client._leave(self._watched)
            self._client._wake(self._watched)

    def __del__(self) -> None:
        # Garbage may be collected in any thread, and after the loop's end.
        if self._open and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._client._leave, self._watched)


def sync_address(url: str) -> str:
    """Where the server at ``url`` speaks the sync protocol.

    Raises:
        ReactorError: it is no address of a server.
    """
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("ws", "wss") or not parts.hostname:
        raise ReactorError(f"{url!r} is no address of a server. Write it as http://127.0.0.1:3210", code="BadUrl")
    return urlunsplit((scheme, parts.netloc, f"{parts.path.rstrip('/')}/api/{PROTOCOL_VERSION}/sync", "", ""))


def backoff_s(reason: str, failures: int, random: Callable[[], float]) -> float:
    """How long to wait before the next attempt.

    Args:
        reason: why the last connection ended, as the server or this client put it.
        failures: connections that failed before, one after another.
    """
    if reason.startswith(_BUSY):
        base_s = BUSY_BACKOFF_S
    else:
        base_s = OWN_BACKOFF_S if reason == _SILENT else FAILED_BACKOFF_S
    return min(base_s * 2.0 ** min(failures, 30), LONGEST_BACKOFF_S) * (0.5 + random())


def _args_text(args: Mapping[str, object] | None, kwargs: Mapping[str, object]) -> bytes:
    text = codec.to_json({**(args or {}), **kwargs})
    if len(text) > _MAX_ARGS_BYTES:
        # The server would close the connection at each attempt to send it.
        raise LimitExceeded(f"the arguments are {len(text)} bytes of JSON, more than the {_MAX_ARGS_BYTES} that can be sent")
    return text


def _close_reason(closed: BaseExceptionGroup[ConnectionClosed]) -> str:
    frame = getattr(closed.exceptions[0], "rcvd", None)
    if frame is None:
        return "closed with code 1006"
    return frame.reason or f"closed with code {frame.code}"


def _again(error: ReactorError) -> ReactorError:
    """The same error, for each who raises it: an exception carries the traceback of one."""
    return type(error)(error.message, code=error.code)


def _log_lines(kind: str, path: str, result: Result | None) -> None:
    for line in result.log_lines if result is not None else ():
        _log.info("%s(%s) %s", kind, path, line)
