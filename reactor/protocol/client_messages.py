"""What clients send: each message as a frozen class, decoded with its limits, and encoded for our own client.

Numbers and shapes are checked here; a breach is a ``ProtocolError`` and ends the connection. The arguments of one call are not:
whatever is wrong with them fails that call alone, so they are passed on as JSON text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson
from msgspec import Struct

from reactor.errors import ProtocolError
from reactor.protocol.version import QueryId, RequestId, decode_ts, encode_ts
from reactor.values.codec import tight

__all__ = [
    "Action",
    "Add",
    "Authenticate",
    "ClientMessage",
    "Connect",
    "Event",
    "ModifyQuerySet",
    "Mutation",
    "Remove",
    "decode_client_message",
    "encode_client_message",
]

_U32 = 2**32
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class Connect:
    """The first message of an ordinary connection.

    Attributes:
        session: names the client over all its connections.
        max_observed_ts: the newest ts it has seen; it must never see an older one.
        client_ms: its clock, ms since the epoch.
    """

    session: str
    connection_count: int
    last_close_reason: str | None
    max_observed_ts: int | None
    client_ms: int | None


@dataclass(frozen=True, slots=True)
class Add:
    """Subscribe to a query. ``args`` is the JSON text of one object, keys sorted, or of whatever was sent in its place."""

    query_id: QueryId
    path: str
    args: bytes
    journal: str | None


@dataclass(frozen=True, slots=True)
class Remove:
    """End a subscription."""

    query_id: QueryId


@dataclass(frozen=True, slots=True)
class ModifyQuerySet:
    """Changes to the query set."""

    base_version: int
    new_version: int
    modifications: tuple[Add | Remove, ...]


class Mutation(Struct, frozen=True, gc=False):
    """Run a mutation; once for each session and request id."""

    request_id: RequestId
    path: str
    args: bytes


class Action(Struct, frozen=True, gc=False):
    """Run an action."""

    request_id: RequestId
    path: str
    args: bytes


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Change the identity. ``token`` is None for nobody; ``acting_as`` goes with an admin key."""

    base_version: int
    kind: str  # "User", "Admin" or "None"
    token: str | None
    acting_as: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Telemetry, which is ignored."""


ClientMessage: TypeAlias = Connect | ModifyQuerySet | Mutation | Action | Authenticate | Event


def decode_client_message(frame: str | bytes) -> ClientMessage:
    """The message in a frame.

    Raises:
        ProtocolError: it is none.
    """
    try:
        message = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(f"WSMessageInvalidJson: a message is a JSON object; this is not JSON: {error}") from None
    if type(message) is not dict:
        raise ProtocolError("WSMessageInvalidJson: a message is a JSON object with a field 'type'.")
    kind = message.get("type")
    decode = _DECODERS.get(kind) if isinstance(kind, str) else None
    if decode is None:
        raise ProtocolError(f"WSMessageInvalidJson: unknown message type {str(kind)[:50]!r}. Known are: {', '.join(_DECODERS)}.")
    return decode(message)


def _field(message: dict[str, Any], name: str, kind: type, what: str) -> Any:
    value = message.get(name)
    if type(value) is not kind:
        raise ProtocolError(f"{message.get('type')}.{name} is {type(value).__name__}, expected {what}.")
    return value


def _counter(message: dict[str, Any], name: str) -> int:
    value = message.get(name)
    if type(value) is not int or not 0 <= value < _U32:
        raise ProtocolError(f"{message.get('type')}.{name} is {str(value)[:50]}, expected an integer from 0 to {_U32 - 1}.")
    return value


def _optional_text(message: dict[str, Any], name: str) -> str | None:
    value = message.get(name)
    if value is not None and type(value) is not str:
        raise ProtocolError(f"{message.get('type')}.{name} is {type(value).__name__}, expected a string or null.")
    return value


def _args(message: dict[str, Any]) -> bytes:
    args = message.get("args")
    # Something else than a list of one object fails the call, not the connection: the runner says what is wrong with it.
    one = args[0] if type(args) is list and len(args) == 1 else args
    try:
        return orjson.dumps(one, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        raise ProtocolError(f"{message.get('type')}.args is nested more than 250 deep.") from None


def _connect(message: dict[str, Any]) -> Connect:
    session = _field(message, "sessionId", str, "a UUID")
    # No other text: under those the server remembers requests of its own.
    if not _UUID.fullmatch(session):
        raise ProtocolError("Connect.sessionId is not a UUID.")
    ts = message.get("maxObservedTimestamp")
    client_ms = message.get("clientTs")
    return Connect(
        session,
        _counter(message, "connectionCount"),
        _optional_text(message, "lastCloseReason"),
        None if ts is None else decode_ts(ts),
        int(client_ms) if type(client_ms) in (int, float) and abs(client_ms) < 2**53 else None,  # type: ignore[arg-type]
    )


def _modify_query_set(message: dict[str, Any]) -> ModifyQuerySet:
    modifications = tuple(_modification(item) for item in _field(message, "modifications", list, "a list"))
    return ModifyQuerySet(_counter(message, "baseVersion"), _counter(message, "newVersion"), modifications)


def _modification(item: Any) -> Add | Remove:
    if type(item) is not dict:
        raise ProtocolError("A modification of the query set is an object.")
    query_id = QueryId(_counter(item, "queryId"))
    if item.get("type") == "Remove":
        return Remove(query_id)
    if item.get("type") != "Add":
        raise ProtocolError(f"Unknown modification {str(item.get('type'))[:50]!r} of the query set; known are Add and Remove.")
    return Add(query_id, _field(item, "udfPath", str, "a function path"), tight(_args(item)), _optional_text(item, "journal"))


def _mutation(message: dict[str, Any]) -> Mutation:
    return Mutation(RequestId(_counter(message, "requestId")), _field(message, "udfPath", str, "a function path"), _args(message))


def _action(message: dict[str, Any]) -> Action:
    return Action(RequestId(_counter(message, "requestId")), _field(message, "udfPath", str, "a function path"), _args(message))


def _authenticate(message: dict[str, Any]) -> Authenticate:
    version = _counter(message, "baseVersion")
    kind = message.get("tokenType")
    if kind == "None":
        return Authenticate(version, "None", None)
    if kind not in ("User", "Admin"):
        raise ProtocolError(f"Unknown token type {str(kind)[:50]!r}; known are User, Admin and None.")
    acting_as = message.get("impersonating", message.get("acting_as"))
    if acting_as is not None and type(acting_as) is not dict:
        raise ProtocolError("Authenticate.impersonating is an object.")
    return Authenticate(version, kind, _field(message, "value", str, "a token"), acting_as)


def _event(message: dict[str, Any]) -> Event:
    return Event()


_DECODERS: dict[str, Callable[[dict[str, Any]], ClientMessage]] = {
    "Connect": _connect,
    "ModifyQuerySet": _modify_query_set,
    "Mutation": _mutation,
    "Action": _action,
    "Authenticate": _authenticate,
    "Event": _event,
}


def encode_client_message(message: ClientMessage) -> bytes:
    """The frame of a message: what our own client sends."""
    if isinstance(message, Connect):
        body: dict[str, Any] = {
            "type": "Connect",
            "sessionId": message.session,
            "connectionCount": message.connection_count,
            "lastCloseReason": message.last_close_reason,
            "clientTs": message.client_ms,
        }
        if message.max_observed_ts is not None:
            body["maxObservedTimestamp"] = encode_ts(message.max_observed_ts)
    elif isinstance(message, ModifyQuerySet):
        body = {
            "type": "ModifyQuerySet",
            "baseVersion": message.base_version,
            "newVersion": message.new_version,
            "modifications": [_encode_modification(item) for item in message.modifications],
        }
    elif isinstance(message, Mutation | Action):
        body = {
            "type": type(message).__name__,
            "requestId": message.request_id,
            "udfPath": message.path,
            "args": [orjson.Fragment(message.args)],
        }
    elif isinstance(message, Authenticate):
        body = {"type": "Authenticate", "baseVersion": message.base_version, "tokenType": message.kind}
        if message.token is not None:
            body["value"] = message.token
        if message.acting_as is not None:
            body["impersonating"] = message.acting_as
    else:
        body = {"type": "Event", "eventType": "ClientConnect", "event": []}
    return orjson.dumps(body)


def _encode_modification(item: Add | Remove) -> dict[str, Any]:
    if isinstance(item, Remove):
        return {"type": "Remove", "queryId": item.query_id}
    added: dict[str, Any] = {"type": "Add", "queryId": item.query_id, "udfPath": item.path, "args": [orjson.Fragment(item.args)]}
    if item.journal is not None:
        added["journal"] = item.journal
    return added
