"""Values to test with, and the order of values written a second time: plainly, from its definition."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

from reactor.values.codec import Int64
from reactor.values.order import MISSING

AWKWARD_FLOATS = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), -float("nan"), 5e-324, -5e-324, 2.0**53, 1.0, -1.0]
AWKWARD_TEXTS = ["", "\x00", "\x00\x00", "a\x00", "a\x00\x01", "a\x00\xff", "a", "aa", "\x01", "\uffff", "\U00010000", "\U0010ffff", "é"]
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=4).filter(lambda name: not name.startswith("$"))

int64s = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1)).map(Int64)
floats = st.one_of(st.sampled_from(AWKWARD_FLOATS), st.floats(), st.integers(-3, 3).map(float))
texts = st.one_of(st.sampled_from(AWKWARD_TEXTS), st.text(max_size=6))
blobs = st.one_of(st.sampled_from([b"", b"\x00", b"\x00\x00", b"\x00\xff", b"\xff", b"\x01"]), st.binary(max_size=6))
scalars = st.one_of(st.none(), st.booleans(), int64s, floats, texts, blobs)
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)), max_leaves=8
)
fields: st.SearchStrategy[Any] = st.one_of(st.just(MISSING), values)


def _rank(value: Any) -> int:
    # bool is an int and Int64 is one, so they come before what they would be taken for.
    for rank, kind in ((4, bool), (2, Int64), (3, float), (5, str), (6, bytes), (7, list), (8, dict)):
        if isinstance(value, kind):
            return rank
    return 1 if value is None else 0


def _bits(value: float) -> int:
    (signed,) = struct.unpack(">q", struct.pack(">d", value))
    return int(signed) if signed >= 0 else -(2**63) - int(signed) - 1


def _sign(a: Any, b: Any) -> int:
    return int(a > b) - int(a < b)


def compare(a: Any, b: Any) -> int:
    """−1, 0 or 1: the order of any two values or absences."""
    rank = _rank(a)
    if rank != _rank(b):
        return _sign(rank, _rank(b))
    if rank == 3:
        return _sign(_bits(a), _bits(b))
    if rank == 5:
        return _sign([ord(character) for character in a], [ord(character) for character in b])
    if rank == 7:
        return next((order for x, y in zip(a, b, strict=False) if (order := compare(x, y))), _sign(len(a), len(b)))
    if rank == 8:
        left = [part for name in sorted(a) for part in (name, a[name])]
        return compare(left, [part for name in sorted(b) for part in (name, b[name])])
    return 0 if rank in (0, 1) else _sign(a, b)
