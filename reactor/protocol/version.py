"""The versions that a session's state moves through."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple, NewType

from reactor.errors import ProtocolError

__all__ = ["IdentityVersion", "QueryId", "QuerySetVersion", "RequestId", "StateVersion", "decode_ts", "encode_ts"]

QueryId = NewType("QueryId", int)
RequestId = NewType("RequestId", int)
QuerySetVersion = NewType("QuerySetVersion", int)
IdentityVersion = NewType("IdentityVersion", int)


class StateVersion(NamedTuple):
    """What a transition starts from and leads to. Each part never goes back; a new connection starts at zeros."""

    query_set: QuerySetVersion
    identity: IdentityVersion
    ts: int


def encode_ts(ts: int) -> str:
    """A ts on the wire: base64 of 8 bytes, little endian."""
    return binascii.b2a_base64(ts.to_bytes(8, "little"), newline=False).decode()


def decode_ts(text: object) -> int:
    """The ts of its wire form.

    Raises:
        ProtocolError: it is none.
    """
    try:
        raw = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 8:
        raise ProtocolError(f"{str(text)[:50]!r} is not a timestamp: base64 of 8 bytes was expected.")
    return int.from_bytes(raw, "little")
