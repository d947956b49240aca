"""What the server sends: encoded by joining parts that are encoded already, and decoded for our own client.

A query's value is spliced in as the bytes it was encoded to once, however many clients get it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
    "text",
    "transition",
    "updated_body",
]

PING = b'{"type":"Ping"}'


def query_updated(query_id: QueryId, value: bytes, log_lines: Sequence[str], journal: str | None) -> bytes:
    """A modification: the query has this result."""
    return b'{"type":"QueryUpdated","queryId":%d,%s' % (query_id, updated_body(value, log_lines, journal))


def updated_body(value: bytes, log_lines: Sequence[str], journal: str | None) -> bytes:
    """The part of ``query_updated`` that all who watch a query share."""
    return b'"value":%s,"logLines":%s,"journal":%s}' % (value, _lines(log_lines), orjson.dumps(journal))


def query_failed(query_id: QueryId, message: str, data: bytes | None, log_lines: Sequence[str], journal: str | None) -> bytes:
    """A modification: the query failed. ``data`` is there only for application errors."""
    return b'{"type":"QueryFailed","queryId":%d,%s' % (query_id, failed_body(message, data, log_lines, journal))


def failed_body(message: str, data: bytes | None, log_lines: Sequence[str], journal: str | None) -> bytes:
    """The part of ``query_failed`` that all who watch a query share."""
    error_data = b"" if data is None else b',"errorData":' + data
    return b'"errorMessage":%s,"logLines":%s,"journal":%s%s}' % (text(message), _lines(log_lines), orjson.dumps(journal), error_data)


def query_removed(query_id: QueryId) -> bytes:
    """A modification: the query is no longer in the query set."""
    return b'{"type":"QueryRemoved","queryId":%d}' % query_id


def transition(
    start: StateVersion, end: StateVersion, modifications: Iterable[bytes], *, clock_skew_ms: int | None, server_ns: int
) -> bytes:
    """The step from one state version to the next."""
    # A null skew makes the JavaScript client complain at every transition: left out instead.
    skew = b"" if clock_skew_ms is None else b',"clientClockSkew":%d' % clock_skew_ms
    return b'{"type":"Transition","startVersion":%s,"endVersion":%s,"modifications":[%s]%s,"serverTs":%d}' % (
        _version(start),
        _version(end),
        b",".join(modifications),
        skew,
        server_ns,
    )


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
        return _decode(message)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"The server sent something that is not a message: {type(error).__name__}: {error}") from None


def _decode(message: dict[str, Any]) -> ServerMessage:
    kind = message["type"]
    if kind == "Transition":
        return Transition(
            _decode_version(message["startVersion"]),
            _decode_version(message["endVersion"]),
            tuple(map(_decode_modification, message["modifications"])),
        )
    if kind in ("MutationResponse", "ActionResponse"):
        ts = message.get("ts")
        return Response(
            kind.removesuffix("Response"),
            message["requestId"],
            message["success"],
            message["result"],
            None if ts is None else decode_ts(ts),
            message.get("errorData"),
            "errorData" in message,
            tuple(message["logLines"]),
        )
    if kind == "Ping":
        return Ping()
    if kind == "TransitionChunk":
        return TransitionChunk(message["chunk"], message["partNumber"], message["totalParts"], message["transitionId"])
    if kind == "FatalError":
        return FatalErrorMessage(message["error"])
    if kind == "AuthError":
        return AuthErrorMessage(message["error"], message.get("baseVersion"), bool(message.get("authUpdateAttempted")))
    raise ProtocolError(f"The server sent a message of the unknown type {kind!r}.")


def _decode_version(version: dict[str, Any]) -> StateVersion:
    return StateVersion(QuerySetVersion(version["querySet"]), IdentityVersion(version["identity"]), decode_ts(version["ts"]))


def _decode_modification(item: dict[str, Any]) -> QueryResult:
    query_id = item["queryId"]
    if item["type"] == "QueryRemoved":
        return QueryResult(query_id, removed=True)
    lines = tuple(item["logLines"])
    if item["type"] == "QueryFailed":
        return QueryResult(query_id, None, item["errorMessage"], item.get("errorData"), "errorData" in item, lines, item.get("journal"))
    if item["type"] != "QueryUpdated":
        raise ProtocolError(f"The server sent a modification of the unknown type {item['type']!r}.")
    return QueryResult(query_id, item.get("value"), log_lines=lines, journal=item.get("journal"))
