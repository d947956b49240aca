"""The order of values is the order of their keys."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import ValueFormatError
from reactor.values.codec import Int64
from reactor.values.ids import Id
from reactor.values.order import MISSING, after, encode_key, prefix_end, split_key
from tests.values.strategies import compare, fields, floats, int64s, texts

NAN = math.nan
ASCENDING: list[Any] = [
    MISSING,
    None,
    *(Int64(n) for n in (-(2**63), -(2**53) - 1, -1, 0, 1, 255, 256, 2**53 + 1, 2**63 - 1)),
    *(-NAN, -math.inf, -1e308, -1.5, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, 1.5, 2.0**63, math.inf, NAN),
    *(False, True),
    *("", "\x00", "\x00\x00", "\x00a", "\x01", "A", "a", "a\x00", "a\x00b", "a\x01", "aa", "b", "\x7f", "é", "\ue000", "\uffff"),
    *("\U00010000", "\U0010ffff"),
    *(b"", b"\x00", b"\x00\x00", b"\x00\xff", b"\x01", b"\x7f", b"\x80", b"\xff", b"\xff\x00", b"\xff\xff"),
    *([], [None], [None, None], [Int64(9)], [0.0], [False], ["a"], ["a", None], ["a\x00"], [b"a"], [[]], [[[]]], [{}]),
    *({}, {"": None}, {"": 1.0}, {"a": None}, {"a": None, "b": None}, {"a": 1.0}, {"a": {}}, {"a": {"a": 1.0}}, {"a ": None}, {"b": None}),
]  # fmt: skip


def test_every_kind_of_value_has_its_place() -> None:
    keys = [encode_key(value) for value in ASCENDING]
    assert keys == sorted(set(keys))
    assert not any(following.startswith(key) for key, following in itertools.pairwise(keys))
    assert all(compare(a, b) == -1 for a, b in itertools.pairwise(ASCENDING))


@given(fields, fields)
def test_comparing_keys_compares_values(a: Any, b: Any) -> None:
    left, right = encode_key(a), encode_key(b)
    assert (left > right) - (left < right) == compare(a, b)
    if left != right:
        assert not left.startswith(right)
        assert not right.startswith(left)


@given(st.one_of(floats, int64s), st.one_of(floats, int64s))
def test_comparing_keys_compares_numbers(a: Any, b: Any) -> None:
    left, right = encode_key(a), encode_key(b)
    assert (left > right) - (left < right) == compare(a, b)


@given(st.lists(st.tuples(fields, fields), min_size=1, max_size=5))
def test_a_key_of_several_values_compares_them_one_after_another(rows: list[tuple[Any, Any]]) -> None:
    def order(a: tuple[Any, Any], b: tuple[Any, Any]) -> int:
        return compare(a[0], b[0]) or compare(a[1], b[1])

    expected = [encode_key(row[0]) + encode_key(row[1]) for row in sorted(rows, key=functools.cmp_to_key(order))]
    assert sorted(encode_key(row[0]) + encode_key(row[1]) for row in rows) == expected


@given(st.lists(fields, max_size=5), st.integers(0, 6))
def test_a_key_is_split_where_its_values_end(row: list[Any], count: int) -> None:
    parts = [encode_key(value) for value in row]
    assert split_key(b"".join(parts), count) == list(itertools.accumulate(map(len, parts)))[:count]


@given(texts, texts)
def test_a_prefix_ends_above_all_that_begins_with_it(a: str, b: str) -> None:
    key, other = encode_key(a), encode_key(b)
    assert key < prefix_end(key)
    assert key + b"\xff" * 9 < prefix_end(key)
    assert (key <= other < prefix_end(key)) == (a == b)
    assert key < after(key) <= key + b"\x00"


@pytest.mark.parametrize(("prefix", "end"), [(b"", b"\xff"), (b"a", b"b"), (b"a\xff", b"b"), (b"\xff\xff", b"\xff"), (b"a\x00", b"a\x01")])
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


@pytest.mark.parametrize(("value", "same"), [(5, 5.0), (0, 0.0), ((1.0, "a"), [1.0, "a"]), (Id("abc"), "abc")])
def test_python_spellings_of_one_value_have_one_key(value: Any, same: Any) -> None:
    assert encode_key(value) == encode_key(same)


@pytest.mark.parametrize("value", [True, 1.0, Int64(1), "1", b"1", [1.0]])
def test_no_value_of_another_type_equals_one(value: Any) -> None:
    others = [other for other in (True, 1.0, Int64(1), "1", b"1", [1.0]) if type(other) is not type(value)]
    assert encode_key(value) not in map(encode_key, others)


def test_keys_lie_between_the_end_of_a_sequence_and_the_end_of_an_index() -> None:
    assert {encode_key(value)[:1] for value in ASCENDING}.isdisjoint({b"\x00", b"\xff"})


@pytest.mark.parametrize("value", [object(), {1.0}, "\ud800", ["\udfff"], {"a": "\ud800"}])
def test_what_is_no_value_has_no_key(value: Any) -> None:
    with pytest.raises(ValueFormatError):
        encode_key(value)
