"""The total order of values, as bytes that compare like them.

``encode_key`` maps a value to bytes so that comparing the bytes compares the values, whatever their types (the order across
types is fixed: absent, null, Int64, Float64, boolean, string, bytes, array, object). Every encoding is self-delimiting: none
is a prefix of another, so encodings can be concatenated into the key of an index, and whole leading elements of a key are an
equality prefix of it.
"""

from __future__ import annotations

import struct
from typing import Final, final

from reactor.errors import ValueFormatError
from reactor.values.codec import Int64

__all__ = ["MISSING", "Missing", "after", "encode_key", "prefix_end", "split_key"]


@final
class Missing:
    """The type of ``MISSING``: an absent field, smaller than every value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()

# One byte a type, in the order of types. None is 0x00 or 0xff: 0x00 ends sequences, 0xff is above every key.
_ABSENT, _NULL, _INT, _FLOAT, _FALSE, _TRUE, _STRING, _BYTES, _ARRAY, _OBJECT = (bytes((tag,)) for tag in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11))
_END = b"\x00"
_SIGN = 1 << 63
#: The byte above each byte.
_NEXT = tuple(bytes((byte + 1,)) for byte in range(255))
#: How the key of a number begins that is not negative, by the first byte of its IEEE 754 form.
_POSITIVE = tuple(_FLOAT + bytes((byte | 0x80,)) for byte in range(128))
_FLIPPED = bytes(byte ^ 0xFF for byte in range(256))

_pack_float = struct.Struct(">d").pack
_pack_u64 = struct.Struct(">Q").pack


def encode_key(value: object) -> bytes:
    """Order-preserving bytes of a value, or of ``MISSING``.

    A plain int counts as the Float64 of the same number.

    Raises:
        ValueFormatError: not a value, or a string with lone surrogates.
    """
    kind = type(value)
    if kind is float:
        raw = _pack_float(value)
        # IEEE 754 total order: negative numbers with all bits flipped, the others with the sign bit set.
        first = raw[0]
        return _POSITIVE[first] + raw[1:] if first < 0x80 else _FLOAT + raw.translate(_FLIPPED)
    if isinstance(value, str):
        return _STRING + _escaped(_utf8(value))
    if value is None:
        return _NULL
    if value is True:
        return _TRUE
    if value is False:
        return _FALSE
    if isinstance(value, Int64):
        return _INT + _pack_u64(value + _SIGN)
    if isinstance(value, int | float):
        return encode_key(float(value))
    if isinstance(value, bytes):
        return _BYTES + _escaped(value)
    if isinstance(value, list | tuple):
        return _ARRAY + b"".join(map(encode_key, value)) + _END
    if isinstance(value, dict):
        return _OBJECT + b"".join(_STRING + _escaped(_utf8(key)) + encode_key(value[key]) for key in sorted(value)) + _END
    if value is MISSING:
        return _ABSENT
    raise ValueFormatError(f"{kind.__name__} is not a value that can be compared or indexed")


def prefix_end(prefix: bytes) -> bytes:
    """The smallest bytes above everything that begins with ``prefix``; ``b"\\xff"``, above every key, for ``b""``."""
    if not prefix:
        return b"\xff"
    last = prefix[-1]
    return prefix[:-1] + _NEXT[last] if last < 0xFF else prefix_end(prefix.rstrip(b"\xff"))


def after(key: bytes) -> bytes:
    """The smallest bytes above ``key``."""
    return key + b"\x00"


def split_key(key: bytes, count: int) -> list[int]:
    """Where each of the first ``count`` encoded values in ``key`` ends; fewer when the key ends before."""
    ends: list[int] = []
    at = 0
    while at < len(key) and len(ends) < count:
        at = _end(key, at)
        ends.append(at)
    return ends


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueFormatError("a string holds a lone surrogate, which is no Unicode text") from None


def _escaped(raw: bytes) -> bytes:
    # 0x00 is the end and nothing else, so that a text does not lie in the range of the keys of a shorter one.
    if b"\x01" in raw:
        raw = raw.replace(b"\x01", b"\x01\x02")
    if b"\x00" in raw:
        raw = raw.replace(b"\x00", b"\x01\x01")
    return raw + _END


def _end(key: bytes, at: int) -> int:
    """The end of the encoded value that begins at ``at``."""
    tag = key[at : at + 1]
    at += 1
    if tag in (_INT, _FLOAT):
        return at + 8
    if tag in (_STRING, _BYTES):
        return key.index(_END, at) + 1
    if tag == _ARRAY:
        while key[at] != 0:
            at = _end(key, at)
        return at + 1
    if tag == _OBJECT:
        while key[at] != 0:
            at = _end(key, key.index(_END, at) + 1)
        return at + 1
    return at
