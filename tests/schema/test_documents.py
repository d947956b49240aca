"""Documents: what each field type takes, how it stands on the wire, and what is absent."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired

import orjson
import pydantic.dataclasses
import pytest
from hypothesis import given
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from reactor.errors import ReactorError, SchemaError, ValueFormatError
from reactor.schema import ABSENT, Absent, Document, Index, gt
from reactor.schema.catalog import Catalog
from reactor.schema.document import plan_of, to_value, wire_fields
from reactor.schema.validators import reasons
from reactor.values.codec import Int64, to_json
from reactor.values.ids import Id
from reactor.values.order import MISSING, encode_key
from tests.schema.support import ID, OTHER_ID, catalog_of, document_of, fields_of, stored, text_of
from tests.values.strategies import values


class Thing(Document, table="things"):
    """What ``document_of`` makes has this name and table."""


class Address(BaseModel):
    city: str
    zip_code: str | None = Field(default=None, alias="zip")


@dataclass
class Size:
    width: float
    unit: str | None = None


@pydantic.dataclasses.dataclass(frozen=True)
class Weight:
    grams: Annotated[int, Field(alias="g")]


class Options(TypedDict):
    bold: bool
    level: NotRequired[int]


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


def thing(annotation: Any, **attributes: Any) -> tuple[type[Any], Catalog]:
    document = document_of({"a": annotation}, **attributes)
    return document, catalog_of(document)


INT64, BYTES, NAN, ZERO = {"$integer": "BQAAAAAAAAA="}, {"$bytes": "AQL/"}, {"$float": "AAAAAAAA+H8="}, {"$float": "AAAAAAAAAIA="}
TAKEN: list[tuple[Any, Any, Any]] = [
    (str, "é", "é"),
    (float, 1.5, 1.5),
    (float, 1, 1.0),
    (float, math.inf, {"$float": "AAAAAAAA8H8="}),
    (float, -0.0, ZERO),
    (int, 2**53, 2.0**53),
    (int, -(2**53), -(2.0**53)),
    (bool, True, True),
    (None, None, None),
    (bytes, b"\x01\x02\xff", BYTES),
    (Int64, Int64(5), INT64),
    (Id[Thing], ID, ID),
    (list[int], [1, 2], [1.0, 2.0]),
    (list[bytes], [b"\x01\x02\xff"], [BYTES]),
    (tuple[str, int], ("a", 1), ["a", 1.0]),
    (tuple[int, ...], (1, 2), [1.0, 2.0]),
    (dict[str, Int64], {"k": Int64(5), "": Int64(5)}, {"k": INT64, "": INT64}),
    (dict[Id[Thing], bool], {ID: True}, {ID: True}),
    (Literal["a", 1, True, None], "a", "a"),
    (Literal["a", 1, True, None], 1, 1.0),
    (Literal["a", 1, True, None], True, True),
    (Literal["a", 1, True, None], None, None),
    (int | str, 5, 5.0),
    (int | str, "5", "5"),
    (Int64 | float, Int64(5), INT64),
    (Int64 | float, 5.0, 5.0),
    (bool | float, True, True),
    (bytes | str, b"\x01\x02\xff", BYTES),
    (str | None, None, None),
    (Any, {"a": [Int64(5), b"\x01\x02\xff", None]}, {"a": [INT64, BYTES, None]}),
    (object, 1.5, 1.5),
    (Address, Address(city="Rome", zip="1"), {"city": "Rome", "zip": "1"}),
    (Address, Address(city="Rome"), {"city": "Rome"}),
    (list[Address], [Address(city="Rome")], [{"city": "Rome"}]),
    (dict[str, Address | None], {"x": Address(city="Rome"), "y": None}, {"x": {"city": "Rome"}, "y": None}),
    (Size, Size(1.5), {"width": 1.5}),
    (Size, Size(1.5, "m"), {"width": 1.5, "unit": "m"}),
    (Weight, Weight(**{"g": 5}), {"g": 5.0}),
    (Options, {"bold": True}, {"bold": True}),
    (Options, {"bold": True, "level": 2}, {"bold": True, "level": 2.0}),
    (Tree, Tree(name="r", children=[Tree(name="c")]), {"name": "r", "children": [{"name": "c", "children": []}]}),
    (Cat | Dog, Dog(kind="dog", name="Rex"), {"kind": "dog", "name": "Rex"}),
    (Annotated[Cat | Dog, Field(discriminator="kind")], Cat(kind="cat", lives=9), {"kind": "cat", "lives": 9.0}),
    (Annotated[str, Field(min_length=1)], "a", "a"),
    (Annotated[int, Field(ge=0)] | None, 0, 0.0),
]


@pytest.mark.parametrize(("annotation", "value", "wire"), TAKEN)
def test_a_field_takes_the_values_of_its_type(annotation: Any, value: Any, wire: Any) -> None:
    document, catalog = thing(annotation)
    made = document(a=value)
    assert fields_of(made) == {"a": wire}
    read = stored(made, catalog)
    assert (type(read.a), read.a) == (type(made.a), made.a)
    assert encode_key(to_value(read.a)) == encode_key(to_value(made.a))


NO_ID = "'x' is not an id. Ids come from the database: pass on what a query or insert returned"
NAMES = "names are printable ASCII, at most 1024 characters, and do not begin with '$'"
KINDS = "(those are $integer, $float and $bytes)"
EXACT = "expected a number within ±2^53, where it is exact; beyond that use Int64"
EXTRA = "Unexpected keyword argument (found 1)"
CLOSED = "Extra inputs are not permitted (found 1)"
WHOLE, NUMBER, TEXT = "Input should be a valid integer", "Input should be a valid number", "Input should be a valid string"
AN_INT64 = 'expected an Int64, on the wire {"$integer": base64}'
REFUSED: list[tuple[Any, Any, list[str]]] = [
    (str, 1, [f"a: {TEXT} (found 1)"]),
    (str, None, [f"a: {TEXT} (found None)"]),
    (str, BYTES, [f"a: {TEXT} (found {BYTES})"]),
    (float, True, [f"a: {NUMBER} (found True)"]),
    (float, "1", [f"a: {NUMBER} (found '1')"]),
    (float, INT64, [f"a: expected a number (found {INT64})"]),
    (float, {"$float": "AAAAAAAA8D8="}, ["a: $float holds 1.0, which is written as a plain number"]),
    (int, 1.5, [f"a: {WHOLE} (found 1.5)"]),
    (int, True, [f"a: {WHOLE} (found True)"]),
    (int, NAN, [f"a: {WHOLE} (found {NAN})"]),
    (int, INT64, [f"a: {WHOLE} (found {INT64})"]),
    (int, 2**53 + 1, [f"a: {EXACT} (found 9007199254740993)"]),
    (int, 1e300, [f"a: {EXACT} (found 1e+300)"]),
    (bool, 1, ["a: Input should be a valid boolean (found 1)"]),
    (bool, "true", ["a: Input should be a valid boolean (found 'true')"]),
    (None, 0, ["a: Input should be null (found 0)"]),
    (bytes, "AQL/", ["a: expected bytes, on the wire {\"$bytes\": base64} (found 'AQL/')"]),
    (bytes, INT64, [f"a: expected bytes (found {INT64})"]),
    (bytes, {"$bytes": "A"}, ["a: $bytes does not hold base64 text"]),
    (Int64, 5, [f"a: {AN_INT64} (found 5)"]),
    (Int64, 5.0, [f"a: {AN_INT64} (found 5.0)"]),
    (Int64, "5", [f"a: {AN_INT64} (found '5')"]),
    (Int64, {"$integer": "BQ=="}, ["a: $integer holds 1 bytes, expected 8"]),
    (Id[Thing], "x", [f"a: {NO_ID}"]),
    (Id[Thing], OTHER_ID, ["a: expected an id of table 'things', got an id of an unknown table"]),
    (Id[Thing], 5, [f"a: {TEXT} (found 5)"]),
    (list[int], {}, ["a: Input should be a valid array (found {})"]),
    (list[int], [1, "2", 3, True], [f"a[1]: {WHOLE} (found '2')", f"a[3]: {WHOLE} (found True)"]),
    (tuple[str, int], ["a"], ["a[1]: Field required"]),
    (dict[str, int], {"x": 1, "y": {"z": 1}}, [f"a.y: {WHOLE} (found {{'z': 1}})"]),
    (dict[str, str], BYTES, [f"a.$bytes: the field name '$bytes' cannot be used: {NAMES}"]),
    (dict[Id[Thing], bool], {"x": True}, [f"a.x: {NO_ID}"]),
    (dict[str, list[dict[str, int]]], {"x": [{}, {"any": "str"}]}, [f"a.x[1].any: {WHOLE} (found 'str')"]),
    (Literal["a", "b"], "c", ["a: Input should be 'a' or 'b' (found 'c')"]),
    (Literal[1], True, ["a: Input should be 1 (found True)"]),
    (Literal[True], 1, ["a: Input should be True (found 1)"]),
    (int | str, True, [f"a: {WHOLE} (found True)", f"a: {TEXT} (found True)"]),
    (list[int | None], [None, "x"], [f"a[1]: {WHOLE} (found 'x')"]),
    (Int64 | None, 5, [f"a: {AN_INT64} (found 5)"]),
    (Any, [{"x": {"$set": []}}], [f"a: '$set' is not a type of the wire {KINDS}; field names do not begin with '$' (at [0].x)"]),
    (Address, {"city": "Rome", "x": 1}, [f"a.x: {CLOSED}"]),
    (Address, {"city": "Rome", "zip_code": 1}, [f"a.zip_code: {CLOSED}"]),
    (Address, {}, ["a.city: Field required"]),
    (Address, {"city": 5}, [f"a.city: {TEXT} (found 5)"]),
    (dict[str, list[Address]], {"x": [{"city": "Rome"}, {"city": 5}]}, [f"a.x[1].city: {TEXT} (found 5)"]),
    (Size, {"width": 1, "x": 1}, [f"a.x: {EXTRA}"]),
    (Size, {"width": True}, [f"a.width: {NUMBER} (found True)"]),
    (Weight, {"grams": 1}, ["a.g: Field required", f"a.grams: {EXTRA}"]),
    (Options, {"bold": True, "x": 1}, [f"a.x: {CLOSED}"]),
    (Options, {"level": 1}, ["a.bold: Field required"]),
    (Options, {"bold": True, "level": 1.5}, [f"a.level: {WHOLE} (found 1.5)"]),
    (Tree, {"name": "r", "children": [{"name": "c", "children": [{}]}]}, ["a.children[0].children[0].name: Field required"]),
    (Address | Size, {"city": 1, "width": 1}, [f"a.city: {TEXT} (found 1)", f"a.width: {CLOSED}", f"a.city: {EXTRA}"]),
    (Annotated[int, Field(ge=3)], 2, ["a: Input should be greater than or equal to 3 (found 2)"]),
    (Annotated[str, Field(pattern="^a")], "b", ["a: String should match pattern '^a' (found 'b')"]),
    (Annotated[list[int], Field(max_length=1)], [1, 2], ["a: List should have at most 1 item after validation, not 2 (found [1, 2])"]),
    (Annotated[Int64, Field(gt=5)], INT64, [f"a: Input should be greater than 5 (found {INT64})"]),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "wire", "expected"), REFUSED)
def test_a_field_takes_no_value_of_another_type(annotation: Any, wire: Any, expected: list[str]) -> None:
    document, catalog = thing(annotation)
    row = orjson.dumps({"a": wire, "_id": ID, "_creationTime": 1.5}).decode()
    with pytest.raises(ValidationError) as error:
        document.from_row(row, catalog)
    assert reasons(error.value) == expected
    with pytest.raises(
        SchemaError, match=rf"^Document {ID} in table 'things' does not fit the schema: a.* Change the schema, or the document"
    ):
        catalog.tables["things"].check_json(row)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        *((int, value) for value in (True, 1.5, "1", None, Int64(1), 2**53 + 1)),
        *((float, value) for value in (True, "1.5", None, Int64(1))),
        *((Int64, value) for value in (1, 1.0, True, "1")),
        *((bool, value) for value in (1, 0.0, "true")),
        *((str, value) for value in (1, b"a", None)),
        *((bytes, value) for value in ("a", bytearray(b"a"))),
        *((Literal[1], value) for value in (True, Int64(1), "1")),
        (Literal[True], 1),
        (list[int], [True]),
        (int | str, True),
        (Id[Thing], "x"),
        (dict[str, int], {1: 2}),
        (dict[str, int], {"$a": 2}),
        (Options, {"bold": True, "x": 1}),
    ],
)
def test_python_cannot_make_a_document_with_a_value_of_another_type(annotation: Any, value: Any) -> None:
    document, _ = thing(annotation)
    with pytest.raises(ValidationError):
        document(a=value)


@given(values)
def test_a_field_of_any_type_keeps_every_value(value: Any) -> None:
    read = stored(Loose(a=value), LOOSE)
    assert encode_key(read.a) == encode_key(value)


class Loose(Document, table="loose"):
    a: Any


LOOSE = catalog_of(Loose)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), ".a"),
        ([1.0, {"x": {1}}], ".a[1].x"),
        ({"x": [2**60]}, ".a.x[0]"),
        ({"x": {5: 1}}, ".a.x"),
        ([Size(1j)], ".a[0].width"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_value_is_named_by_its_path(value: Any, path: str) -> None:
    with pytest.raises(ValueFormatError) as error:
        wire_fields(Loose(a=value))
    assert error.value.path == path


class Note(Document, table="notes"):
    may_be_absent: str | None = None
    null: str | None
    both: str | None | Absent = ABSENT
    home: Address | None = None
    size: Size | None = None

    by_may_be_absent = Index("may_be_absent")
    by_null = Index("null")
    by_both = Index("both")
    by_zip = Index("home.zip_code")
    by_unit = Index("size.unit")


NOTES = catalog_of(Note)


@pytest.mark.parametrize(
    ("made", "wire"),
    [
        (Note(null=None), {"null": None}),
        (Note(null="x", may_be_absent=None, both=None), {"null": "x", "both": None}),
        (Note(null="x", may_be_absent="y", both="z"), {"null": "x", "may_be_absent": "y", "both": "z"}),
        (Note(null=None, both=ABSENT), {"null": None}),
        (Note(null=None, home=Address(city="Rome"), size=Size(1.0)), {"null": None, "home": {"city": "Rome"}, "size": {"width": 1.0}}),
    ],
)
def test_none_is_absent_or_null_as_the_field_is_declared(made: Note, wire: Any) -> None:
    assert fields_of(made) == wire
    read = stored(made, NOTES)
    assert (read.may_be_absent, read.null, read.both) == (made.may_be_absent, made.null, made.both)
    assert type(read.both) is type(made.both)


def test_a_field_without_default_is_required() -> None:
    with pytest.raises(ValidationError) as error:
        Note.from_row(f'{{"_id":"{ID}","_creationTime":1}}', NOTES)
    assert reasons(error.value) == ["null: Field required"]


def test_null_in_storage_reads_as_none_where_the_field_may_be_absent() -> None:
    assert Note.from_row('{"null":null,"may_be_absent":null}', NOTES).may_be_absent is None


@pytest.mark.parametrize(
    ("keyword", "none", "absent"),
    [
        ("may_be_absent", MISSING, MISSING),
        ("null", None, MISSING),
        ("both", None, MISSING),
        ("home__zip_code", MISSING, MISSING),
        ("home__city", None, MISSING),
        ("size__unit", MISSING, MISSING),
    ],
)
def test_a_bound_of_none_is_absence_where_a_stored_none_is(keyword: str, none: Any, absent: Any) -> None:
    plan = plan_of(Note)
    assert plan.bound_value(keyword, None) is none
    assert plan.bound_value(keyword, ABSENT) is absent


@pytest.mark.parametrize(
    ("made", "bounds"),
    [
        (Note(null=None), {"by_may_be_absent": {"may_be_absent": None}, "by_null": {"null": None}, "by_both": {"both": ABSENT}}),
        (Note(null=None, both=None), {"by_both": {"both": None}}),
        (Note(null=None), {"by_zip": {"home__zip_code": None}, "by_unit": {"size__unit": None}}),
        (Note(null=None, home=Address(city="x"), size=Size(1)), {"by_zip": {"home__zip_code": None}, "by_unit": {"size__unit": None}}),
        (Note(null=None, home=Address(city="x", zip="9")), {"by_zip": {"home__zip_code": gt(None)}}),
    ],
)
def test_a_document_is_in_the_range_of_its_own_none(made: Note, bounds: dict[str, dict[str, Any]]) -> None:
    table = NOTES.tables["notes"]
    keys = table.keys_of_json(text_of(made))
    for name, keywords in bounds.items():
        interval = getattr(Note, name)(**keywords).interval
        assert interval.lo <= keys[table.index(name).position] < interval.hi


class Person(Document, table="people"):
    model_config = ConfigDict(alias_generator=to_camel)

    first_name: str
    last_name: str = Field(alias="family")
    home_address: Address | None = None

    by_name = Index("last_name", "first_name")
    by_zip = Index("home_address.zip_code")


PEOPLE = catalog_of(Person)


def test_aliases_are_the_names_on_the_wire_and_python_takes_both() -> None:
    wire = {"firstName": "Ada", "family": "L", "homeAddress": {"city": "London", "zip": "1"}}
    by_name = Person(first_name="Ada", last_name="L", home_address=Address(city="London", zip="1"))  # type: ignore[call-arg]
    assert fields_of(by_name) == fields_of(Person(**wire)) == wire  # type: ignore[arg-type]
    assert stored(by_name, PEOPLE).first_name == "Ada"
    assert PEOPLE.tables["people"].index("by_name").fields == ("family", "firstName")
    assert PEOPLE.tables["people"].index("by_zip").fields == ("homeAddress.zip",)
    with pytest.raises(ValidationError) as error:
        Person.from_row('{"first_name":"Ada","family":"L"}', PEOPLE)
    assert reasons(error.value) == ["firstName: Field required", f"first_name: {CLOSED.replace('1', repr('Ada'))}"]


def test_a_document_has_its_system_fields_once_it_is_read() -> None:
    made = Note(null=None)
    for name in ("id", "creation_time"):
        with pytest.raises(ReactorError, match=r"This Note has not an? .* yet: it was made, not read"):
            getattr(made, name)
    read = stored(made, NOTES)
    assert (read.id, read.creation_time) == (ID, 1.5)
    assert orjson.loads(to_json(read)) == {"_id": ID, "_creationTime": 1.5, "null": None}
    assert to_value(read) == {"_id": ID, "_creationTime": 1.5, "null": None}


@pytest.mark.parametrize("name", ["_id", "_creationTime", "unknown"])
def test_a_document_is_made_of_its_declared_fields_only(name: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Note(**{"null": None, name: ID})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["null", "id", "creation_time", "new"])
def test_a_document_cannot_be_changed(name: str) -> None:
    for document in (Note(null=None), stored(Note(null=None), NOTES)):
        with pytest.raises((ValidationError, AttributeError)):
            setattr(document, name, "x")


def test_a_copy_with_another_value_is_written_with_it() -> None:
    read = stored(Note(null="old"), NOTES)
    assert orjson.loads(to_json(read.model_copy(update={"null": "new"})))["null"] == "new"
    for copied in (copy.copy(read), copy.deepcopy(read), pickle.loads(pickle.dumps(read))):
        assert copied == read
        assert (copied.id, to_json(copied)) == (read.id, to_json(read))


def test_documents_with_the_same_fields_hold_one_set_of_them_and_copies_their_own() -> None:
    def kept(made: Note) -> Note:
        read = stored(made, NOTES)
        assert Note.__plan__.shared(read, ID) is read and read.id is ID
        return read

    first, second, longer = kept(Note(null="x")), kept(Note(null="y")), kept(Note(null="x", may_be_absent="y"))
    assert first.model_fields_set is second.model_fields_set
    assert longer.model_fields_set - first.model_fields_set == {"may_be_absent"}
    for copied in (first.model_copy(update={"both": "z"}), copy.copy(first), copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert copied.model_fields_set is not first.model_fields_set
    assert "both" not in second.model_fields_set


class Computed(Document):
    x: float

    @functools.cached_property
    def twice(self) -> float:
        return 2 * self.x


def test_a_document_that_remembers_what_it_computes_is_its_readers_own_also_where_a_base_says_how() -> None:
    class Kept(Computed, table="kept"):
        pass

    catalog_of(Kept)
    assert not Kept.__plan__.shareable


@pytest.mark.parametrize(
    ("kind", "value"),
    [(float, 2.5), (float, -0.0), (float, math.inf), (str, "new"), (bool, False), (Annotated[str, Field(alias="named")], "new")],
)
def test_a_document_with_other_plain_values_is_what_reading_its_text_gives(kind: Any, value: Any) -> None:
    thing = document_of({"x": kind, "y": str, "z": float | None}, z=None)
    catalog = catalog_of(thing)
    before = stored(thing.model_validate({"x": type(value)(1), "y": "kept"}), catalog)
    after = thing.from_row(text_of(before.model_copy(update={"x": value})), catalog)
    changed = thing.__plan__.changed(before, {"x": value}, after.__dict__["_json"])
    assert thing.__plan__.plain["x"] is type(value)
    assert list(map(repr, changed.__dict__.items())) == list(map(repr, after.__dict__.items()))
    assert changed.__getstate__() == after.__getstate__()


def looked_at(**attributes: Any) -> type[Document]:
    return document_of({"x": float}, **attributes)


@pytest.mark.parametrize(
    "thing",
    [
        document_of({"x": Annotated[float, Field(gt=0)]}),
        document_of({"x": Annotated[float, BeforeValidator(abs)]}),
        document_of({"x": float | None}),
        document_of({"x": int}),
        document_of({"x": Literal["a", "b"]}),
        document_of({"x": Id[Any]}),
        document_of({"x": str}, model_config=ConfigDict(str_strip_whitespace=True)),
        looked_at(check=field_validator("x")(lambda x: abs(x))),
        looked_at(check=model_validator(mode="after")(lambda self: self)),
        looked_at(check=model_validator(mode="before")(classmethod(lambda cls, fields: fields))),  # type: ignore[arg-type]
        looked_at(model_post_init=lambda self, context: None),
    ],
)
def test_a_field_is_not_plain_where_anything_else_looks_at_its_value(thing: type[Document]) -> None:
    catalog_of(thing)
    assert "x" not in thing.__plan__.plain


def test_documents_are_equal_by_id_and_fields() -> None:
    read = stored(Note(null="x"), NOTES)
    assert read == stored(Note(null="x"), NOTES)
    assert hash(read) == hash(stored(Note(null="x"), NOTES))
    assert read != stored(Note(null="y"), NOTES)
    assert read != Note(null="x")
    assert read != "x"
    assert Note(null="x") == Note(null="x")


def test_an_id_of_another_table_of_the_schema_is_refused() -> None:
    document = document_of({"note": Id[Note], "any": list[Id[Any]]})
    catalog = catalog_of(Note, document)
    assert document.from_row(f'{{"note":"{ID}","any":["{ID}","{OTHER_ID}"]}}', catalog)
    with pytest.raises(ValidationError) as error:
        document.from_row(f'{{"note":"{OTHER_ID}","any":["x"]}}', catalog)
    assert reasons(error.value)[0] == "note: expected an id of table 'notes', got an id of table 'things'"
    assert reasons(error.value)[1].startswith("any[0]: 'x' is not an id.")


def test_absent_is_one_false_object() -> None:
    assert not ABSENT
    assert copy.copy(ABSENT) is copy.deepcopy(ABSENT) is ABSENT
    assert to_value({"a": ABSENT, "b": 1}) == {"b": 1.0}


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (str, str, True),
        (str, str | None, False),
        (int, float, False),
        (str, Annotated[str, Field(min_length=1)], False),
        (Literal["a"], Literal["a", "b"], False),
        (Id[Note], Id[Person], False),
        (list[Address], list[Size], False),
    ],
)
def test_the_shape_changes_with_what_fits(before: Any, after: Any, same: bool) -> None:
    shapes = [catalog_of(Note, Person, document_of({"a": annotation})).tables["things"].shape for annotation in (before, after)]
    assert (shapes[0] == shapes[1]) is same
