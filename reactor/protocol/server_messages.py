"""What the server sends: encoded by joining parts that are encoded already, and decoded for our own client.

A query's value is spliced in as the bytes it was encoded to once, however many clients get it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import orjson

from reactor.errors import ProtocolError
from reactor.protocol.version import IdentityVersion, QueryId, QuerySetVersion, RequestId, StateVersion, decode_ts, encode_ts

__all__ = [
    "PING",
    "AuthErrorMessage",
    "FatalErrorMessage",
    "Ping",
    "QueryResult",
    "Response",
    "ServerMessage",
    "Transition",
    "TransitionChunk",
    "action_response",
    "auth_error",
    "chunks",
    "decode_server_message",
    "failed_body",
    "failure_response",
    "fatal_error",
    "mutation_response",
    "query_failed",
    "query_removed",
    "query_updated",
    "tail",
    "text",
    "transition",
    "updated_body",
]

PING = b'{"type":"Ping"}'


def query_updated(query_id: QueryId, body: bytes) -> bytes:
    """A modification: the query has the result that ``updated_body`` gave ``body`` for."""
    return b'{"type":"QueryUpdated","queryId":%d,%s' % (query_id, body)


def updated_body(value: bytes, log_lines: Sequence[str], journal: str | None) -> bytes:
    """The part of ``query_updated`` that all who watch a query share."""
    return b'"value":%s,"logLines":%s,"journal":%s}' % (value, _lines(log_lines), orjson.dumps(journal))


def query_failed(query_id: QueryId, body: bytes) -> bytes:
    """A modification: the query failed as ``failed_body`` says."""
    return b'{"type":"QueryFailed","queryId":%d,%s' % (query_id, body)


def failed_body(message: str, data: bytes | None, log_lines: Sequence[str], journal: str | None) -> bytes:
    """The part of ``query_failed`` that all who watch a query share. ``data`` is there only for application errors."""
    error_data = b"" if data is None else b',"errorData":' + data
    return b'"errorMessage":%s,"logLines":%s,"journal":%s%s}' % (text(message), _lines(log_lines), orjson.dumps(journal), error_data)


def query_removed(query_id: QueryId) -> bytes:
    """A modification: the query is no longer in the query set."""
    return b'{"type":"QueryRemoved","queryId":%d}' % query_id


def transition(start: StateVersion, end: StateVersion, modifications: Sequence[bytes], server_ns: int) -> bytes:
    """The step from one state version to the next, but for its ``tail``."""
    return b'{"type":"Transition","startVersion":%s,"endVersion":%s,"modifications":[%s],"serverTs":%d' % (
        _version(start),
        _version(end),
        b",".join(modifications),
        server_ns,
    )


def tail(clock_skew_ms: int | None) -> bytes:
    """How a transition ends: with the client's clock minus ours, if it has told."""
    # A null makes the JavaScript client complain at every transition: left out instead.
    return b"}" if clock_skew_ms is None else b',"clientClockSkew":%d}' % clock_skew_ms


def mutation_response(request_id: RequestId, *, value: bytes, ts: int, log_lines: Sequence[str]) -> bytes:
    """A mutation committed."""
    return b'{"type":"MutationResponse","requestId":%d,"success":true,"result":%s,"ts":"%s","logLines":%s}' % (
        request_id,
        value,
        encode_ts(ts).encode(),
        _lines(log_lines),
    )


def action_response(request_id: RequestId, *, value: bytes, log_lines: Sequence[str]) -> bytes:
    """An action ended."""
    return b'{"type":"ActionResponse","requestId":%d,"success":true,"result":%s,"logLines":%s}' % (request_id, value, _lines(log_lines))


def failure_response(kind: str, request_id: RequestId, *, message: str, data: bytes | None, log_lines: Sequence[str]) -> bytes:
    """A mutation or action failed.

    Args:
        kind: ``Mutation`` or ``Action``.
    """
    ts = b',"ts":null' if kind == "Mutation" else b""
    error_data = b"" if data is None else b',"errorData":' + data
    return b'{"type":"%sResponse","requestId":%d,"success":false,"result":%s%s,"logLines":%s%s}' % (
        kind.encode(),
        request_id,
        text(message),
        ts,
        _lines(log_lines),
        error_data,
    )


def fatal_error(message: str) -> bytes:
    """The client broke the protocol; it does not reconnect."""
    return b'{"type":"FatalError","error":%s}' % text(message)


def auth_error(message: str, base_version: int, *, update_attempted: bool) -> bytes:
    """A credential does not verify, or the identity in force ceased to hold."""
    return orjson.dumps({"type": "AuthError", "error": message, "baseVersion": base_version, "authUpdateAttempted": update_attempted})


def chunks(frame: bytes, size_bytes: int, transition_id: str) -> list[bytes]:
    """A large transition in parts of at most ``size_bytes``, cut between characters."""
    whole = frame.decode()
    # A character is at most four bytes, and escaping at most doubles what JSON text holds.
    step = max(1, size_bytes // 4)
    parts = [whole[at : at + step] for at in range(0, len(whole), step)]
    return [
        orjson.dumps(
            {"type": "TransitionChunk", "chunk": part, "partNumber": number, "totalParts": len(parts), "transitionId": transition_id}
        )
        for number, part in enumerate(parts)
    ]


def text(message: str) -> bytes:
    """A string as JSON, whatever it holds."""
    try:
        return orjson.dumps(message)
    except orjson.JSONEncodeError:
        # A lone surrogate in an error's text: shown escaped rather than lost.
        return orjson.dumps(message.encode("utf-8", "backslashreplace").decode())


def _lines(lines: Sequence[str]) -> bytes:
    return b"[%s]" % b",".join(map(text, lines)) if lines else b"[]"


@lru_cache(maxsize=1024)
def _version(version: StateVersion) -> bytes:
    return b'{"querySet":%d,"identity":%d,"ts":"%s"}' % (version.query_set, version.identity, encode_ts(version.ts).encode())


# --- the client's side


@dataclass(frozen=True, slots=True)
class QueryResult:
    """One query's result, or its failure: then ``message`` is set, and ``data`` if ``has_data``."""

    query_id: QueryId
    value: Any = None
    message: str | None = None
    data: Any = None
    has_data: bool = False
    log_lines: tuple[str, ...] = ()
    journal: str | None = None
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Transition:
    """A step from one state version to the next."""

    start: StateVersion
    end: StateVersion
    results: tuple[QueryResult, ...]


@dataclass(frozen=True, slots=True)
class TransitionChunk:
    """A part of a transition."""

    chunk: str
    part: int
    total: int
    transition_id: str


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a mutation or action. ``ts`` is that of a mutation's commit."""

    kind: str  # "Mutation" or "Action"
    request_id: RequestId
    success: bool
    result: Any
    ts: int | None
    data: Any
    has_data: bool
    log_lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FatalErrorMessage:
    """The connection cannot go on, and neither can the client."""

    error: str


@dataclass(frozen=True, slots=True)
class AuthErrorMessage:
    """A credential does not verify."""

    error: str
    base_version: int | None
    update_attempted: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """The connection is alive."""


ServerMessage: TypeAlias = Transition | TransitionChunk | Response | FatalErrorMessage | AuthErrorMessage | Ping


def decode_server_message(frame: str | bytes) -> ServerMessage:
    """The message in a frame. Values are left in the wire's encoding.

    Raises:
        ProtocolError: it is none.
    """
    try:
        message = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"The server sent something that is not JSON: {error}") from None
    decode = _DECODERS.get(_typed(message, "type", str))
    if decode is None:
        raise ProtocolError(f"The server sent a message of the unknown type {message['type'][:50]!r}.")
    return decode(message)


def _typed(message: Any, name: str, kind: type) -> Any:
    """A field of the expected type."""
    if type(message) is not dict:
        raise ProtocolError("The server sent something else where an object was expected.")
    value = message.get(name)
    if type(value) is not kind:
        raise ProtocolError(f"The server sent {type(value).__name__} as {name!r}, expected {kind.__name__}.")
    return value


def _optional(message: dict[str, Any], name: str, kind: type) -> Any:
    return None if message.get(name) is None else _typed(message, name, kind)


def _log_lines(message: dict[str, Any]) -> tuple[str, ...]:
    lines = _typed(message, "logLines", list)
    if not all(type(line) is str for line in lines):
        raise ProtocolError("The server sent a log line that is not a text.")
    return tuple(lines)


def _decode_transition(message: dict[str, Any]) -> Transition:
    return Transition(
        _decode_version(_typed(message, "startVersion", dict)),
        _decode_version(_typed(message, "endVersion", dict)),
        tuple(map(_decode_modification, _typed(message, "modifications", list))),
    )


def _decode_version(version: dict[str, Any]) -> StateVersion:
    return StateVersion(
        QuerySetVersion(_typed(version, "querySet", int)), IdentityVersion(_typed(version, "identity", int)), decode_ts(version.get("ts"))
    )


def _decode_modification(item: Any) -> QueryResult:
    kind, query_id = _typed(item, "type", str), QueryId(_typed(item, "queryId", int))
    if kind == "QueryRemoved":
        return QueryResult(query_id, removed=True)
    lines, journal = _log_lines(item), _optional(item, "journal", str)
    if kind == "QueryFailed":
        error = _typed(item, "errorMessage", str)
        return QueryResult(query_id, None, error, item.get("errorData"), "errorData" in item, lines, journal)
    if kind != "QueryUpdated":
        raise ProtocolError(f"The server sent a modification of the unknown type {kind[:50]!r}.")
    return QueryResult(query_id, item.get("value"), log_lines=lines, journal=journal)


def _decode_response(message: dict[str, Any]) -> Response:
    kind = message["type"].removesuffix("Response")
    success = _typed(message, "success", bool)
    ts = message.get("ts")
    if kind == "Mutation" and success and ts is None:
        raise ProtocolError("The server sent no ts with a mutation's success.")
    return Response(
        kind,
        RequestId(_typed(message, "requestId", int)),
        success,
        message.get("result") if success else _typed(message, "result", str),
        None if ts is None else decode_ts(ts),
        message.get("errorData"),
        "errorData" in message,
        _log_lines(message),
    )


def _decode_chunk(message: dict[str, Any]) -> TransitionChunk:
    return TransitionChunk(
        _typed(message, "chunk", str),
        _typed(message, "partNumber", int),
        _typed(message, "totalParts", int),
        _typed(message, "transitionId", str),
    )


def _decode_auth_error(message: dict[str, Any]) -> AuthErrorMessage:
    return AuthErrorMessage(
        _typed(message, "error", str), _optional(message, "baseVersion", int), message.get("authUpdateAttempted") is True
    )


_DECODERS: dict[str, Callable[[dict[str, Any]], ServerMessage]] = {
    "Transition": _decode_transition,
    "TransitionChunk": _decode_chunk,
    "MutationResponse": _decode_response,
    "ActionResponse": _decode_response,
    "FatalError": lambda message: FatalErrorMessage(_typed(message, "error", str)),
    "AuthError": _decode_auth_error,
    "Ping": lambda message: Ping(),
}
