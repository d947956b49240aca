"""An index called with bounds: which documents lie in the range, and what is no range."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from reactor.errors import IndexRangeError
from reactor.schema import ABSENT, Document, Index, IndexRange, between, gt, gte, lt, lte
from reactor.schema.index import Bound
from reactor.values.codec import Int64
from reactor.values.ids import Id, encode_id
from reactor.values.interval import FULL
from reactor.values.order import MISSING, encode_key
from tests.schema.support import ID, OTHER_ID, catalog_of
from tests.values.strategies import compare, fields, values


class Address(BaseModel):
    city: str | None = None


class Row(Document, table="rows"):
    a: Any = None
    b: Any = ABSENT
    exact: Int64 | None = None
    address: Address | None = None
    by: Id[Row] | None = None

    by_ab = Index("a", "b")
    by_exact = Index("exact")
    by_city = Index("address.city")
    by_by = Index("by")


CATALOG = catalog_of(Row)
TABLE = CATALOG.tables["rows"]


@dataclass
class Kept:
    """A row of the table, by its values."""

    a: Any
    b: Any
    creation_time: float
    id: str = ID

    def in_range(self, found: IndexRange[Any]) -> bool:
        present = {name: value for name, value in (("a", self.a), ("b", self.b)) if value is not MISSING}
        if found.index == "by_id":
            key = self.id.encode()
        else:
            key = TABLE.keys(present, self.creation_time, self.id)[TABLE.index(found.index).position]
        inside = found.interval.lo <= key < found.interval.hi
        assert key.startswith(found.interval.prefix) or not inside
        return inside


times = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
rows = st.builds(Kept, fields, fields, times)
BOUNDS = {"gt": gt, "gte": gte, "lt": lt, "lte": lte}
HOLDS = {"gt": lambda order: order > 0, "gte": lambda order: order >= 0, "lt": lambda order: order < 0, "lte": lambda order: order <= 0}


def asked(value: Any) -> Any:
    return ABSENT if value is MISSING else value


@st.composite
def ranges(draw: st.DrawFn, kept: list[Kept]) -> tuple[dict[str, Any], list[tuple[str, str, Any]]]:
    """Bounds of ``by_ab``, and the same as conditions (field, kind, value). Often on values that there are."""
    bounds: dict[str, Any] = {}
    conditions: list[tuple[str, str, Any]] = []
    names = ["a", "b", "creation_time"][: draw(st.integers(0, 3))]
    for name in names:
        known = st.sampled_from([getattr(row, name) for row in kept])
        value = st.one_of(known, times if name == "creation_time" else fields)
        kind = draw(st.sampled_from(["eq", *BOUNDS, "both", "between"])) if name == names[-1] else "eq"
        if kind == "between":
            low, high = draw(value), draw(value)
            bounds[name] = between(asked(low), asked(high))
            conditions += [(name, "gte", low), (name, "lte", high)]
        elif kind == "both":
            parts = [(draw(st.sampled_from(pair)), draw(value)) for pair in (("gt", "gte"), ("lt", "lte"))]
            if draw(st.booleans()):
                parts.reverse()
            bounds[name] = functools.reduce(Bound.__and__, (BOUNDS[kind](asked(value)) for kind, value in parts))
            conditions += [(name, kind, value) for kind, value in parts]
        else:
            one = draw(value)
            bounds[name] = asked(one) if kind == "eq" else BOUNDS[kind](asked(one))
            conditions.append((name, kind, one))
    return bounds, conditions


@given(st.data(), st.lists(rows, min_size=1, max_size=4))
def test_a_range_holds_the_rows_that_its_bounds_describe(data: st.DataObject, kept: list[Kept]) -> None:
    bounds, conditions = data.draw(ranges(kept))
    # ``a`` may be absent, so None is absence there; ``b`` tells them apart.
    conditions = [(name, kind, MISSING if name == "a" and value is None else value) for name, kind, value in conditions]
    found = Row.by_ab(**bounds)
    for row in kept:
        orders = [(kind, compare(getattr(row, name), value)) for name, kind, value in conditions]
        expected = all(order == 0 if kind == "eq" else HOLDS[kind](order) for kind, order in orders)
        assert row.in_range(found) is expected


@given(values, values, times)
def test_equality_finds_exactly_the_equal(a: Any, other: Any, time: float) -> None:
    assert Kept("x", a, time).in_range(Row.by_ab(a="x", b=a))
    assert Kept("x", other, time).in_range(Row.by_ab(a="x", b=a)) is (compare(a, other) == 0)


EVERYTHING = [MISSING, None, Int64(5), 4.0, 5.0, 6.0, math.nan, False, "5", b"5", [5.0], {"a": 5.0}]


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (5.0, [5.0]),
        (5, [5.0]),
        (Int64(5), [Int64(5)]),
        (None, [None]),
        (ABSENT, [MISSING]),
        (gt(5), EVERYTHING[5:]),
        (gte(5), EVERYTHING[4:]),
        (lt(5), EVERYTHING[:4]),
        (lte(5), EVERYTHING[:5]),
        (gt(ABSENT), EVERYTHING[1:]),
        (gte(None), EVERYTHING[1:]),
        (gt(None), EVERYTHING[2:]),
        (lt(None), [MISSING]),
        (lt(ABSENT), []),
        (between(4, 5), [4.0, 5.0]),
        (between(5, 5), [5.0]),
        (between(6, 4), []),
        (gte(4) & lt(6), [4.0, 5.0]),
        (lt(6) & gte(4), [4.0, 5.0]),
        (gt(4) & lte(6), [5.0, 6.0]),
        (gt(4) & lt(4), []),
        (gt(5) & lte(5), []),
        (gt(6) & lt("6"), [math.nan, False, "5"]),
        (between("", b""), ["5"]),
        (gte([]) & lt({}), [[5.0]]),
    ],
)
def test_bounds_of_every_kind(bound: Any, expected: list[Any]) -> None:
    found = Row.by_ab(a="x", b=bound)
    inside = [value for value in EVERYTHING if Kept("x", value, 1.0).in_range(found)]
    assert [encode_key(value) for value in inside] == [encode_key(value) for value in expected]
    assert not any(Kept(other, value, 1.0).in_range(found) for other in ("w", "x\x00", "y", None) for value in EVERYTHING)


def test_bounds_that_exclude_each_other_are_an_empty_interval() -> None:
    assert Row.by_ab(a="x", b=between(6, 4)).interval.empty
    assert not Row.by_ab(a="x", b=between(4, 6)).interval.empty


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Row.by_creation_time(creation_time=2), [2.0]),
        (Row.by_creation_time(creation_time=gte(2) & lt(3)), [2.0]),
        (Row.by_creation_time(), [1.0, 2.0, 3.0]),
        (Row.by_ab(a="x", b="y", creation_time=gt(1)), [2.0, 3.0]),
        (Row.by_ab(a="x", b="y", creation_time=between(1, 2)), [1.0, 2.0]),
        (Row.by_ab(a="x", b="y", creation_time=3.0), [3.0]),
        (Row.by_ab(a="x", b="z", creation_time=3.0), []),
    ],
)
def test_the_creation_time_is_the_last_field(found: IndexRange[Row], expected: list[float]) -> None:
    assert [time for time in (1.0, 2.0, 3.0) if Kept("x", "y", time).in_range(found)] == expected


IDS = sorted([ID, OTHER_ID, encode_id(10001, bytes(15) + b"\x01")])


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Row.by_id(), IDS),
        (Row.by_id(id=IDS[1]), IDS[1:2]),
        (Row.by_id(id=Id(IDS[1])), IDS[1:2]),
        (Row.by_id(id=gt(IDS[0])), IDS[1:]),
        (Row.by_id(id=gte(IDS[1])), IDS[1:]),
        (Row.by_id(id=lt(IDS[1])), IDS[:1]),
        (Row.by_id(id=lte(IDS[1])), IDS[:2]),
        (Row.by_id(id=between(IDS[0], IDS[1])), IDS[:2]),
    ],
)
def test_ranges_of_ids(found: IndexRange[Row], expected: list[str]) -> None:
    assert [id for id in IDS if Kept("x", "y", 1.0, id).in_range(found)] == expected


def test_a_nested_field_is_called_with_two_underscores() -> None:
    position = TABLE.index("by_city").position
    keys = {name: TABLE.keys(fields, 1.0, ID)[position] for name, fields in {"Rome": {"address": {"city": "Rome"}}, "none": {}}.items()}
    keys |= {"no city": TABLE.keys({"address": {}}, 1.0, ID)[position], "no object": TABLE.keys({"address": "Rome"}, 1.0, ID)[position]}
    rome, absent = Row.by_city(address__city="Rome").interval, Row.by_city(address__city=None).interval
    assert [name for name, key in keys.items() if rome.lo <= key < rome.hi] == ["Rome"]
    assert [name for name, key in keys.items() if absent.lo <= key < absent.hi] == ["none", "no city", "no object"]


def test_the_prefix_is_that_of_the_fields_bound_to_one_value() -> None:
    x, y, one = encode_key("x"), encode_key("y"), encode_key(1.0)
    key = TABLE.keys({"a": "x", "b": "y"}, 1.0, ID)[TABLE.index("by_ab").position]
    prefixes = TABLE.prefixes(TABLE.index("by_ab").position, key)
    assert prefixes == (b"", x, x + y, x + y + one)
    calls: list[dict[str, Any]] = [{}, {"a": "x", "b": gt("w")}, {"a": "x", "b": "y", "creation_time": lt(5)}]
    assert [Row.by_ab(**bounds).interval.prefix for bounds in calls] == [b"", x, x + y]
    assert Row.by_ab(a="x", b="y", creation_time=1.0).interval.prefix == x + y + one
    assert Row.by_ab().interval == FULL
    assert Row.by_ab(a=gte(5)).interval.prefix == b""


def test_a_range_knows_its_index() -> None:
    found = Row.by_city(address__city="Rome")
    assert (found.document, found.index, found.fields) == (Row, "by_city", ("address.city",))
    assert repr(Row.by_city) == "Row.by_city"
    same = [Row.by_city(address__city="Rome"), Row.by_city(address__city="Rome")]
    assert len({item.fingerprint for item in same}) == 1
    other = [Row.by_city(), Row.by_ab(), Row.by_exact(), Row.by_city(address__city="Rom"), Row.by_city(address__city=gte("Rome"))]
    assert len({item.fingerprint for item in [*same, *other]}) == 6


WRONG: list[tuple[Any, dict[str, Any], str, str]] = [
    (Row.by_ab, {"c": 1}, "has no field 'c'. Its fields are, in order: a, b, creation_time.", "FieldNotInIndex"),
    (Row.by_ab, {"id": ID}, "has no field 'id'.", "FieldNotInIndex"),
    (Row.by_ab, {"_creationTime": 1.0}, "has no field '_creationTime'.", "FieldNotInIndex"),
    (Row.by_city, {"address": {}}, "has no field 'address'. Its fields are, in order: address__city, creation_time.", "FieldNotInIndex"),
    (Row.by_city, {"address.city": "x"}, "has no field 'address.city'.", "FieldNotInIndex"),
    (Row.by_id, {"creation_time": 1.0}, "has no field 'creation_time'. Its fields are, in order: id.", "FieldNotInIndex"),
    (Row.by_creation_time, {"a": 1}, "has no field 'a'. Its fields are, in order: creation_time.", "FieldNotInIndex"),
    (Row.by_ab, {"b": 1}, "leaves out 'a'. Bound its fields from the first on, in order: a, b, creation_time.", "InvalidIndexRange"),
    (Row.by_ab, {"a": 1, "creation_time": 1.0}, "leaves out 'b'.", "InvalidIndexRange"),
    (Row.by_ab, {"creation_time": gt(1)}, "leaves out 'a'.", "InvalidIndexRange"),
    (Row.by_ab, {"a": gt(1), "b": 1}, "only the last bounded field may have gt, gte, lt, lte or between; 'a'", "BoundsOnMultipleFields"),
    (Row.by_ab, {"a": gt(1), "b": lt(1)}, "only the last bounded field", "BoundsOnMultipleFields"),
    (Row.by_ab, {"a": 1, "b": between(1, 2), "creation_time": gt(1)}, "'b' has, and another follows it.", "BoundsOnMultipleFields"),
    (Row.by_ab, {"a": object()}, "cannot be bounded by this 'a': builtins.object is not a value.", "InvalidIndexRange"),
    (Row.by_ab, {"a": gt({1})}, "cannot be bounded by this 'a': builtins.set is not a value.", "InvalidIndexRange"),
    (Row.by_ab, {"a": 2**60}, "cannot be bounded by this 'a': the int 1152921504606846976 is outside ±2^53", "InvalidIndexRange"),
    (Row.by_ab, {"a": {5: 1}}, "cannot be bounded by this 'a': a field name is int, expected str", "InvalidIndexRange"),
    (Row.by_ab, {"a": "\ud800"}, "cannot be bounded by this 'a': a string holds a lone surrogate", "InvalidIndexRange"),
    (Row.by_exact, {"exact": 5}, "by this 'exact': the field is an Int64, which no float or int equals. Use Int64(5)", "InvalidIndexRange"),
    (Row.by_exact, {"exact": gte(5)}, "Use Int64(5)", "InvalidIndexRange"),
    (Row.by_creation_time, {"creation_time": "now"}, "expected ms since the epoch as a float, got str", "InvalidIndexRange"),
    (Row.by_creation_time, {"creation_time": gt(True)}, "expected ms since the epoch as a float, got bool", "InvalidIndexRange"),
    (Row.by_creation_time, {"creation_time": Int64(1)}, "expected ms since the epoch as a float, got Int64", "InvalidIndexRange"),
    (Row.by_creation_time, {"creation_time": None}, "expected ms since the epoch as a float, got NoneType", "InvalidIndexRange"),
    (Row.by_id, {"id": 5}, "cannot be bounded by this 'id': expected an id, got int", "InvalidIndexRange"),
    (Row.by_id, {"id": gt(None)}, "cannot be bounded by this 'id': expected an id, got NoneType", "InvalidIndexRange"),
    (Row.by_id, {"id": "\ud800"}, "cannot be bounded by this 'id'", "InvalidIndexRange"),
    (Row.by_creation_time, {"creation_time": 10**400}, "cannot be bounded by this 'creation_time'", "InvalidIndexRange"),
]  # fmt: skip


@pytest.mark.parametrize(("index", "bounds", "message", "code"), WRONG)
def test_what_is_no_range_names_the_index(index: Any, bounds: dict[str, Any], message: str, code: str) -> None:
    with pytest.raises(IndexRangeError) as error:
        index(**bounds)
    assert str(error.value).startswith(repr(index))
    assert message in str(error.value)
    assert error.value.code == code


@pytest.mark.parametrize(("first", "second"), [(gt(1), gte(2)), (lt(1), lt(2)), (between(1, 2), gt(0)), (lte(3), between(1, 2))])
def test_two_bounds_on_one_side_are_refused(first: Bound, second: Bound) -> None:
    with pytest.raises(IndexRangeError, match="Two lower or two upper bounds on one field") as error:
        first & second
    assert error.value.code == "AlreadyDefinedBound"
