"""A client's side of the sync protocol, without I/O and without a clock.

::

    subscribe, request, authenticate ──►┐          ┌──► take_frame      what to send
                                        │  State   │
       connected, receive, disconnected ┘          └──► events          what came of it

What a client object asked for outlives its connections: its session, its live queries with their journals, its token, its
unfinished requests. What was said on one connection does not: the versions start at zero on the next one, which is told
everything anew (``connected``). The server runs a mutation that is sent again once, because session and request id are the same;
it could not tell for an action, so that an action under way ends with ``ConnectionLost``.

A mutation is finished by the transition that shows its effects, not by its response: when ``await mutation()`` returns, live
queries have been updated by it. Whatever the server sends that is not the protocol is a ``ProtocolError``: the owner then drops the
connection and makes another.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

import orjson

from reactor.errors import AppError, AuthenticationError, ConnectionLost, ProtocolError, ReactorError, RemoteError
from reactor.limits import DEFAULT_LIMITS, MIB
from reactor.protocol.client_messages import (
    Action,
    Add,
    Authenticate,
    ClientMessage,
    Connect,
    ModifyQuerySet,
    Mutation,
    Remove,
    encode_client_message,
)
from reactor.protocol.server_messages import (
    AuthErrorMessage,
    FatalErrorMessage,
    QueryResult,
    Response,
    Transition,
    TransitionChunk,
    decode_server_message,
)
from reactor.protocol.version import IdentityVersion, QueryId, QuerySetVersion, RequestId, StateVersion
from reactor.values import codec

__all__ = ["MAX_MESSAGE_BYTES", "Event", "Failed", "Finished", "LiveQuery", "Request", "Result", "SignedIn", "State", "Updated"]

#: The largest transition that is accepted, whole or in chunks.
MAX_MESSAGE_BYTES = 256 * MIB

_START = StateVersion(QuerySetVersion(0), IdentityVersion(0), 0)


@dataclass(frozen=True, slots=True)
class Result:
    """How a function ended, in the wire's encoding."""

    value: object = None
    message: str | None = None  # of a failure
    data: object = None
    has_data: bool = False
    log_lines: tuple[str, ...] = ()

    def get(self) -> codec.Value:
        """The value, made anew at every call: its lists and dicts are the caller's own.

        Raises:
            AppError: the function raised one.
            RemoteError: the function failed otherwise.
            ValueFormatError: the server sent what is no value.
        """
        if self.message is None:
            return codec.decode(self.value)
        if self.has_data:
            raise AppError(codec.decode(self.data))
        raise RemoteError(self.message)

    def same_as(self, other: Result | None) -> bool:
        """Whether both are the same to who asked. As text: to Python, 1.0 equals True."""
        return other is not None and self._text() == other._text()

    def _text(self) -> bytes:
        return orjson.dumps([self.value, self.message, self.data, self.has_data], option=orjson.OPT_SORT_KEYS)


@dataclass(slots=True, eq=False)
class LiveQuery:
    """A query that is watched, once for all who asked for the same.

    Attributes:
        args: JSON text, keys sorted.
        watchers: how many asked. The last one to leave removes it.
        result: the newest; another object whenever it has changed.
        fresh: ``result`` is of this connection, not from before the last was lost.
    """

    query_id: QueryId
    path: str
    args: bytes
    watchers: int = 0
    journal: str | None = None
    result: Result | None = None
    fresh: bool = False

    def added(self) -> Add:
        return Add(self.query_id, self.path, self.args, self.journal)


@dataclass(slots=True, eq=False)
class Request:
    """A mutation or action without its result.

    Attributes:
        sent: on this connection.
        answer: a mutation's, which waits for the transition that covers ``ts``.
    """

    message: Mutation | Action
    frame: bytes
    sent: bool = False
    answer: Result | None = None
    ts: int = 0


@dataclass(frozen=True, slots=True)
class Updated:
    """A live query has a result: a new one, or after a reconnect the one it had."""

    query: LiveQuery


@dataclass(frozen=True, slots=True)
class Finished:
    """A request has its result, or will never have one."""

    request: Request
    result: Result | ReactorError


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The server has taken the newest token, or its absence."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The client cannot go on: until another token is set after an ``AuthenticationError``, never after a ``ProtocolError``.

    Every unfinished request is forgotten.
    """

    error: AuthenticationError | ProtocolError


Event: TypeAlias = Updated | Finished | SignedIn | Failed


@dataclass(slots=True, eq=False)
class State:
    """See the module.

    Args:
        session: names this client object, over all its connections.

    Attributes:
        online: between ``connected`` and ``disconnected``.
        settled: this connection has answered all that was asked before it.
        version: where the last transition led.
        query_set, identity: the versions that this connection has been told.
    """

    session: str
    online: bool = False
    settled: bool = False
    version: StateVersion = _START
    query_set: int = 0
    identity: int = 0
    max_observed_ts: int | None = None
    queries: dict[QueryId, LiveQuery] = field(default_factory=dict)
    requests: dict[RequestId, Request] = field(default_factory=dict)
    _by_call: dict[tuple[str, bytes], LiveQuery] = field(default_factory=dict)
    _outbox: deque[bytes | Request] = field(default_factory=deque)
    _unanswered: dict[type, int] = field(default_factory=dict)
    _chunks: list[TransitionChunk] = field(default_factory=list)
    _chunk_chars: int = 0
    _token: str | None = None
    _signing_in: bool = False
    _connections: int = 0
    _next_query: int = 0
    _next_request: int = 0
    _asked_before: int = 0  # requests below this id are older than the connection

    # --- what the user asks

    def subscribe(self, path: str, args: bytes) -> LiveQuery:
        """Watch a query. Each call is ended by one of ``unsubscribe``.

        Args:
            args: JSON text of one object, keys sorted.
        """
        query = self._by_call.get((path, args))
        if query is None:
            query = LiveQuery(QueryId(self._next_query), path, args)
            self._next_query += 1
            self.queries[query.query_id] = self._by_call[path, args] = query
            self._modify(query.added())
        query.watchers += 1
        return query

    def unsubscribe(self, query: LiveQuery) -> None:
        """One watcher less."""
        query.watchers -= 1
        if query.watchers == 0:
            del self.queries[query.query_id], self._by_call[query.path, query.args]
            self._modify(Remove(query.query_id))

    def request(self, kind: type[Mutation] | type[Action], path: str, args: bytes) -> Request:
        """Run a mutation or action. It is kept until it is ``Finished``."""
        message = kind(RequestId(self._next_request), path, args)
        request = Request(message, encode_client_message(message))
        self._next_request += 1
        self.requests[message.request_id] = request
        if self.online:
            self._outbox.append(request)
        return request

    def authenticate(self, token: str | None) -> None:
        """Be who the token says, or nobody; ``SignedIn`` or ``Failed`` follows."""
        self._token = token
        self._signing_in = True
        if self.online:
            self._authenticate()

    # --- the connection

    def connected(self, last_close_reason: str | None, now_ms: int) -> None:
        """A connection is open: tell it everything.

        Args:
            last_close_reason: why there was none before; None: this client had ended it.
            now_ms: what the clock shows, ms since the epoch.
        """
        assert not self.online
        self.online = True
        self.settled = False
        self._asked_before = self._next_request
        self._send(Connect(self.session, self._connections, last_close_reason, self.max_observed_ts, now_ms))
        self._connections += 1
        if self._token is not None:
            self._authenticate()
        self._modify(*(query.added() for query in self.queries.values()))
        self._outbox.extend(self.requests.values())

    def disconnected(self) -> list[Event]:
        """There is no connection, whoever ended it, or could not be made."""
        self.online = self.settled = False
        self.version = _START
        self.query_set = self.identity = 0
        self._outbox.clear()
        self._unanswered.clear()
        self._chunks.clear()
        self._chunk_chars = 0
        for query in self.queries.values():
            query.fresh = False
        lost = [request for request in self.requests.values() if request.sent and isinstance(request.message, Action)]
        for request in lost:
            del self.requests[request.message.request_id]
        for request in self.requests.values():
            request.sent, request.answer = False, None
        return [Finished(request, _lost(request)) for request in lost]

    def take_frame(self) -> bytes | None:
        """The next frame to send, in the order in which things were asked; None: there is none now.

        No more mutations and actions are under way than a server accepts from one connection; what follows them waits too, so that
        each runs under the identity that was in force when it was asked.
        """
        if not self._outbox:
            return None
        item = self._outbox[0]
        if isinstance(item, Request):
            kind = type(item.message)
            running = self._unanswered.get(kind, 0)
            if running >= _WINDOW[kind]:
                return None
            self._unanswered[kind] = running + 1
            item.sent = True
        self._outbox.popleft()
        return item.frame if isinstance(item, Request) else item

    def receive(self, frame: str | bytes) -> list[Event]:
        """Take a frame from the server.

        Raises:
            ProtocolError: it breaks the protocol. Nothing of it was taken; the connection cannot go on.
        """
        message = decode_server_message(frame)
        if isinstance(message, TransitionChunk):
            whole = self._collect(message)
            if whole is None:
                return []
            message = decode_server_message(whole)
            if not isinstance(message, Transition):
                raise ProtocolError("The server sent chunks of something that is not a transition.")
        elif isinstance(message, Transition | Response) and self._chunks:
            raise ProtocolError("The server sent a message between the chunks of a transition.")
        if isinstance(message, Transition):
            return self._transition(message)
        if isinstance(message, Response):
            return self._response(message)
        if isinstance(message, AuthErrorMessage):
            return self._auth_error(message)
        if isinstance(message, FatalErrorMessage):
            return self._fail(ProtocolError(f"The server refuses this client: {message.error}"))
        return []

    # --- out

    def _send(self, message: ClientMessage) -> None:
        self._outbox.append(encode_client_message(message))

    def _modify(self, *modifications: Add | Remove) -> None:
        if self.online:
            self._send(ModifyQuerySet(self.query_set, self.query_set + 1, modifications))
            self.query_set += 1

    def _authenticate(self) -> None:
        self._send(Authenticate(self.identity, "None" if self._token is None else "User", self._token))
        self.identity += 1

    # --- in

    def _transition(self, message: Transition) -> list[Event]:
        start, end = message.start, message.end
        if start != self.version:
            raise ProtocolError(f"The server sent a transition from {start}, but the last one led to {self.version}.")
        if any(after < before for before, after in zip(start, end, strict=True)):
            raise ProtocolError(f"The server sent a transition back from {start} to {end}.")
        self.version = end
        self._observe(end.ts)
        events: list[Event] = []
        if self._signing_in and end.identity == self.identity:
            self._signing_in = False
            events.append(SignedIn())
        for item in message.results:
            query = self.queries.get(item.query_id)
            if query is not None and not item.removed:
                _take_result(query, item)
                events.append(Updated(query))
        covered = [request for request in self.requests.values() if request.answer is not None and request.ts <= end.ts]
        events += [self._finish(request, request.answer) for request in covered if request.answer is not None]
        if not self.settled:
            self.settled = self._is_settled()
        return events

    def _response(self, message: Response) -> list[Event]:
        request = self.requests.get(message.request_id)
        if request is None or not request.sent or request.answer is not None:
            return []  # as little to us as to the official clients
        kind = type(request.message)
        if kind.__name__ != message.kind:
            raise ProtocolError(f"The server answered a {kind.__name__} as a {message.kind}.")
        self._unanswered[kind] -= 1
        if not message.success:
            return [self._finish(request, Result(None, message.result, message.data, message.has_data, message.log_lines))]
        result = Result(message.result, log_lines=message.log_lines)
        if message.ts is None:  # an action
            return [self._finish(request, result)]
        self._observe(message.ts)
        if message.ts <= self.version.ts:
            # Its effects have been seen already.
            return [self._finish(request, result)]
        request.answer, request.ts = result, message.ts
        return []

    def _auth_error(self, message: AuthErrorMessage) -> list[Event]:
        if self._token is None or (message.base_version is not None and message.base_version + 1 < self.identity):
            return []  # about a token that another has replaced since
        self._token = None
        self._signing_in = False
        return self._fail(AuthenticationError(message.error))

    def _fail(self, error: AuthenticationError | ProtocolError) -> list[Event]:
        self.requests.clear()
        self._outbox.clear()
        return [Failed(error)]

    def _finish(self, request: Request, result: Result) -> Finished:
        del self.requests[request.message.request_id]
        return Finished(request, result)

    def _observe(self, ts: int) -> None:
        self.max_observed_ts = max(ts, self.max_observed_ts or 0)

    def _is_settled(self) -> bool:
        oldest = next(iter(self.requests), self._asked_before)
        return (
            oldest >= self._asked_before and self.version.identity == self.identity and all(query.fresh for query in self.queries.values())
        )

    def _collect(self, chunk: TransitionChunk) -> str | None:
        """The whole text, when this is its last part."""
        expected = self._chunks[0] if self._chunks else chunk
        if (chunk.part, chunk.total, chunk.transition_id) != (len(self._chunks), expected.total, expected.transition_id):
            raise ProtocolError(f"The server sent chunk {chunk.part} of {chunk.total}, expected {len(self._chunks)} of {expected.total}.")
        if chunk.part >= chunk.total:
            raise ProtocolError(f"The server sent chunk {chunk.part} of only {chunk.total}.")
        self._chunks.append(chunk)
        self._chunk_chars += len(chunk.chunk)
        if self._chunk_chars > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"The server sent a transition of more than {MAX_MESSAGE_BYTES} bytes.")
        if len(self._chunks) < chunk.total:
            return None
        whole = "".join(part.chunk for part in self._chunks)
        self._chunks.clear()
        self._chunk_chars = 0
        return whole


#: How many of a kind may be without an answer.
_WINDOW: dict[type, int] = {
    Mutation: DEFAULT_LIMITS.mutations_queued_per_session,
    Action: DEFAULT_LIMITS.actions_running_per_session,
}


def _take_result(query: LiveQuery, item: QueryResult) -> None:
    result = Result(item.value, item.message, item.data, item.has_data, item.log_lines)
    # A new connection is told every result, also those that did not change.
    if query.fresh or not result.same_as(query.result):
        query.result = result
    query.journal = item.journal
    query.fresh = True


def _lost(request: Request) -> ConnectionLost:
    return ConnectionLost(f"The connection was lost while the action {request.message.path!r} ran. It may have had its effects.")
