"""Values as the wire's JSON, both ways."""

from __future__ import annotations

import base64
import json
import math
import struct
import tracemalloc
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from pydantic import BaseModel

import reactor.schema  # noqa: F401  (has models encoded)
from reactor.errors import ValueFormatError
from reactor.values.codec import Int64, check_name, clean, decode, encode, from_json, size, tight, to_json
from reactor.values.ids import Id
from reactor.values.order import encode_key
from tests.values.strategies import values

NAN, INF = math.nan, math.inf


def plain(value: float) -> str:
    return base64.b64encode(struct.pack("<d", value)).decode()


def nested(depth: int, leaf: Any = None) -> Any:
    for level in range(depth):
        leaf = [leaf] if level % 2 else {"a": leaf}
    return leaf


FORMS: list[tuple[Any, str]] = [
    (None, "null"),
    (True, "true"),
    (False, "false"),
    (5.0, "5.0"),
    (-1.5, "-1.5"),
    (0.0, "0.0"),
    (1e300, "1e+300"),
    (-0.0, '{"$float":"AAAAAAAAAIA="}'),
    (NAN, '{"$float":"AAAAAAAA+H8="}'),
    (INF, '{"$float":"AAAAAAAA8H8="}'),
    (-INF, '{"$float":"AAAAAAAA8P8="}'),
    (Int64(5), '{"$integer":"BQAAAAAAAAA="}'),
    (Int64(-3), '{"$integer":"/f////////8="}'),
    (Int64(2**63 - 1), '{"$integer":"/////////38="}'),
    (Int64(-(2**63)), '{"$integer":"AAAAAAAAAIA="}'),
    ("", '""'),
    ("é\U00010000\uffff\x00", '"é\U00010000\uffff\\u0000"'),
    (b"", '{"$bytes":""}'),
    (b"\x01\x02\xff", '{"$bytes":"AQL/"}'),
    ([], "[]"),
    ([1.0, "a", None, [Int64(5)]], '[1.0,"a",null,[{"$integer":"BQAAAAAAAAA="}]]'),
    ({}, "{}"),
    ({"b": 1.0, "a": {"_c": True, "": b""}}, '{"a":{"":{"$bytes":""},"_c":true},"b":1.0}'),
    ({"$x"[1:]: 1.0, "a$": 2.0}, '{"a$":2.0,"x":1.0}'),
]


@pytest.mark.parametrize(("value", "text"), FORMS)
def test_each_value_has_one_form(value: Any, text: str) -> None:
    assert to_json(value).decode() == text
    found = from_json(text)
    assert type(found) is type(value)
    assert encode_key(found) == encode_key(value)


@given(values)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    found = from_json(to_json(value))
    assert encode_key(found) == encode_key(value)
    assert to_json(found) == to_json(value)


@given(values)
def test_clean_json_is_json_without_the_wires_types(value: Any) -> None:
    text = clean(to_json(value))
    assert b'"$integer"' not in text
    assert b'"$bytes"' not in text
    assert b'"$float"' not in text
    json.loads(text)


class Point(BaseModel):
    x: float
    label: str | None = None


@pytest.mark.parametrize(
    ("value", "same"),
    [(5, 5.0), (2**53, 2.0**53), (-(2**53), -(2.0**53)), ((1, "a"), [1.0, "a"]), (Id("abc"), "abc"), (Point(x=1), {"x": 1.0})],
)
def test_python_has_other_spellings_of_a_value(value: Any, same: Any) -> None:
    assert to_json([value]) == to_json([same])


@pytest.mark.parametrize("text", ["5", "5.0", "-0", "9007199254740993", "1E2", " 5 "])
def test_every_json_number_is_a_float(text: str) -> None:
    assert type(from_json(text)) is float


def test_the_last_of_two_equal_keys_counts() -> None:
    assert from_json('{"a":1,"a":2}') == {"a": 2.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((text, "not JSON") for text in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "", "{", "[1,]", "{'a':1}", "01")),
        *((text, "not JSON") for text in ("+1", "undefined", "'a'")),
        *((text, "not JSON") for text in ('"\\ud800"', '"\\udc00\\ud800"', '{"\\ud800":1}', '["\\ud83d"]', "\ufeff1", "1 2")),
        ('{"$integer":5}', r"\$integer holds int, expected base64 text"),
        ('{"$integer":null}', r"\$integer holds NoneType, expected base64 text"),
        ('{"$integer":"5"}', "does not hold base64 text"),
        ('{"$integer":"BQAAAAAAAA="}', "does not hold base64 text"),
        ('{"$integer":"BQAAAAAAAAA"}', "does not hold base64 text"),
        ('{"$integer":"BQ AAAAAAAA="}', "does not hold base64 text"),
        ('{"$integer":""}', r"\$integer holds 0 bytes, expected 8"),
        ('{"$integer":"BQAAAA=="}', r"\$integer holds 4 bytes, expected 8"),
        ('{"$integer":"AAAAAAAAAAAA"}', r"\$integer holds 9 bytes, expected 8"),
        ('{"$float":1.5}', r"\$float holds float, expected base64 text"),
        ('{"$float":"AAAAAAAA"}', r"\$float holds 6 bytes, expected 8"),
        (f'{{"$float":"{plain(1.5)}"}}', r"\$float holds 1.5, which is written as a plain number"),
        (f'{{"$float":"{plain(0.0)}"}}', r"\$float holds 0.0, which is written as a plain number"),
        ('{"$bytes":[1]}', r"\$bytes holds list, expected base64 text"),
        ('{"$bytes":"AQL_"}', "does not hold base64 text"),
        ('{"$bytes":"é"}', "does not hold base64 text"),
        ('{"$bytes":"AQI"}', "does not hold base64 text"),
        ('{"$set":[]}', r"'\$set' is not a type of the wire"),
        ('{"$map":[]}', r"'\$map' is not a type of the wire"),
        ('{"$undefined":null}', r"'\$undefined' is not a type of the wire"),
        ('{"$":1}', "is not a type of the wire"),
        ('{"$integer":"BQAAAAAAAAA=","a":1}', r"the field name '\$integer' cannot be used"),
        ('{"a":1,"$b":2}', r"the field name '\$b' cannot be used"),
        ('{"é":1}', "the field name 'é' cannot be used"),
        ('{"a\\n":1}', "cannot be used"),
        ('{"a\\u007f":1}', "cannot be used"),
        ('{"%s":1}' % ("a" * 1025), "at most 1024 characters"),
    ],
)  # fmt: skip
def test_what_is_no_encoding_of_a_value_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueFormatError, match=reason):
        from_json(text)
    if reason != "not JSON":
        with pytest.raises(ValueFormatError, match=reason) as error:
            from_json(f'[0,{{"items":[{text}]}}]')
        assert error.value.path == "[1].items[0]"
        assert str(error.value).endswith("(at [1].items[0])")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "builtins.object is not a value"),
        ({1.0}, "builtins.set is not a value"),
        (1j, "builtins.complex is not a value"),
        (bytearray(b"a"), "builtins.bytearray is not a value"),
        (2**53 + 1, r"outside ±2\^53, where a Float64 is exact. Use Int64\(9007199254740993\)"),
        (-(2**53) - 1, r"outside ±2\^53"),
        (10**400, r"outside ±2\^53"),
        ({1: 2.0}, "a field name is int, expected str"),
        ({"$a": 2.0}, r"the field name '\$a' cannot be used"),
        ({"$integer": "BQAAAAAAAAA="}, r"the field name '\$integer' cannot be used"),
        ({"é": 2.0}, "the field name 'é' cannot be used"),
        ({"a" * 1025: 2.0}, "at most 1024 characters"),
        ("\ud800", "a string holds a lone surrogate"),
        ("é\udfff", "a string holds a lone surrogate"),
    ],
)
def test_what_is_no_value_cannot_be_sent(value: Any, reason: str) -> None:
    with pytest.raises(ValueFormatError, match=reason):
        to_json(value)
    with pytest.raises(ValueFormatError, match=reason) as error:
        to_json([0.0, {"a": "é", "items": (value,)}])
    assert error.value.path == "[1].items[0]"


@dataclass
class Limit:
    allowed: Any
    refused: Any
    code: str
    depth: int = 64


LIMITS = [
    Limit(nested(64), nested(65), "TooNestedError"),
    Limit(nested(16), nested(17), "TooNestedError", 16),
    Limit(1.0, [], "TooNestedError", 0),
    Limit([None] * 8192, [None] * 8193, "ArrayTooLong"),
    Limit(dict.fromkeys(map(str, range(1024))), dict.fromkeys(map(str, range(1025))), "TooManyFieldsError"),
]


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{limit.code} {limit.depth}")
def test_limits_hold_both_ways(limit: Limit) -> None:
    assert decode(encode(limit.allowed, limit.depth), limit.depth) == limit.allowed
    for way in (encode, decode):
        with pytest.raises(ValueFormatError) as error:
            way(limit.refused, limit.depth)
        assert error.value.code == limit.code


@pytest.mark.parametrize("special", [Int64(5), NAN, b"a"])
def test_the_wires_types_count_no_depth(special: Any) -> None:
    text = to_json(nested(64, special))
    assert to_json(from_json(text)) == text


@pytest.mark.parametrize("name", ["", " ", "a b", "_a", "a$", "~", "0", "a" * 1024])
def test_printable_ascii_is_a_field_name(name: str) -> None:
    check_name(name)
    assert from_json(to_json({name: 1.0, "z": 2.0})) == {name: 1.0, "z": 2.0}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, 1),
        (True, 1),
        (1.0, 9),
        (5, 9),
        (Int64(5), 9),
        ("", 2),
        ("abc", 5),
        ("é\U00010000", 8),
        (b"", 2),
        (b"abc", 5),
        ([], 2),
        ([None, 1.0, "a"], 15),
        ((None,), 3),
        ({}, 2),
        ({"ab": 1.0, "c": {"": None}}, 2 + 12 + 2 + 4),
    ],
)
def test_sizes(value: Any, expected: int) -> None:
    assert size(encode(value)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        (5.0, "5.0"),
        (-0.0, "-0.0"),
        (NAN, '"NaN"'),
        (INF, '"Infinity"'),
        (-INF, '"-Infinity"'),
        (Int64(-5), '"-5"'),
        (b"\x01\x02\xff", '"AQL/"'),
        ([Int64(1), {"b": b"", "a": "$x"}], '["1",{"a":"$x","b":""}]'),
        ("$float", '"$float"'),
        ({"a": "$bytes", "b": 1.0}, '{"a":"$bytes","b":1.0}'),
    ],
)
def test_clean_json(value: Any, expected: str) -> None:
    assert clean(to_json(value)).decode() == expected


@pytest.mark.parametrize("outside", [2**63, -(2**63) - 1, "9223372036854775808"])
def test_an_int64_has_64_bits(outside: Any) -> None:
    with pytest.raises(ValueFormatError, match="does not fit in an Int64"):
        Int64(outside)


def test_an_int64_shows_its_type() -> None:
    assert repr([Int64("-7")]) == "[Int64(-7)]"


def test_a_text_that_is_kept_takes_little_more_memory_than_its_length() -> None:
    tracemalloc.start()
    try:
        kept = [to_json({"number": float(number)}) for number in range(1000)]
        in_use, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(map(len, kept)) < in_use < 200 * len(kept)


def test_a_text_is_the_same_whether_it_is_small_or_large() -> None:
    for length in (1, 4080, 4090, 10_000):
        assert tight(orjson.dumps("x" * length)) == b'"' + b"x" * length + b'"'
