"""A wrong schema does not load; one message says where and what to do."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import pathlib
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, Field, Json, SecretStr

from reactor.errors import SchemaError
from reactor.schema import Document, Index
from reactor.schema.catalog import Catalog
from reactor.values.ids import Id
from tests.schema.support import catalog_of, document_of


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    first: str
    second: str


class Place(BaseModel):
    city: str


class Holder(BaseModel):
    when: list[datetime.datetime]


STR = {"a": str, "b": str}
FIVE: list[Any] = [5]
LONG = "a" * 65
MANY = [f"f{at}" for at in range(17)]
NAMED = "the field name {!r} is every document's own. Choose another"


@pytest.mark.filterwarnings("ignore:Field name .* shadows an attribute")
@pytest.mark.parametrize(
    ("annotations", "attributes", "message", "code"),
    [
        (STR, {"by_a": Index("a"), "by_x": Index("a")}, "'by_x' has the same fields as 'by_a'. Remove one of them.", "IndexNotUnique"),
        (STR, {"by_id": Index("a")}, "index 'by_id': this name is reserved. Choose another.", "IndexNameReserved"),
        (STR, {"by_creation_time": Index("a")}, "index 'by_creation_time': this name is reserved.", "IndexNameReserved"),
        (STR, {"_by_a": Index("a")}, "index '_by_a': this name is reserved. Choose another.", "IndexNameReserved"),
        (STR, {"é": Index("a")}, "the index name 'é' is not an identifier", None),
        (STR, {LONG: Index("a")}, "is not an identifier: ASCII letters, digits and '_'", None),
        (STR, {"by_c": Index("c")}, "index 'by_c': there is no field 'c'. The fields are: a, b.", "InvalidIndexField"),
        (STR, {"by_c": Index("")}, "index 'by_c': there is no field ''.", "InvalidIndexField"),
        ({"a": Any}, {"by_c": Index("a..b")}, "index 'by_c': there is no field 'a..b'.", "InvalidIndexField"),
        ({"a": Place | None}, {"by_c": Index("a.country")}, "index 'by_c': there is no field 'a.country'.", "InvalidIndexField"),
        (STR, {"by_a": Index(*FIVE)}, "index 'by_a': 5 is not a field name. Write Index(\"name\", …).", "InvalidIndexField"),
        (STR, {"by_a": Index()}, "index 'by_a' has no fields.", "EmptyIndex"),
        (STR, {"by_a": Index("a", "b", "a")}, "index 'by_a' names the field 'a' twice.", "FieldsNotUniqueWithinIndex"),
        ({"a": Any, "a__b": str}, {"by_a": Index("a.b", "a__b")}, "twice", "FieldsNotUniqueWithinIndex"),
        *(
            (STR, {"by_a": Index("a", name)}, f"names {name!r}, which is part of every index already.", "IndexFieldsContainCreationTime")
            for name in ("creation_time", "_creationTime", "id", "_id")
        ),
        (dict.fromkeys(MANY, str), {"by_all": Index(*MANY)}, "index 'by_all' has 17 fields, more than 16.", "IndexTooManyFields"),
        ({"a": dict[str, str]}, {f"by_{at}": Index(f"a.f{at}") for at in range(65)}, "has 65 indexes, more than 64.", "TooManyIndexes"),
        ({"a": str}, {"a": Index("a")}, "'a' is a field and an index.", None),
        *(({name: str}, {}, NAMED.format(name), None) for name in ("id", "creation_time", "by_id", "by_creation_time")),
        ({"_a": str}, {}, "the field name '_a' begins with '_', which is kept for system fields.", "SchemaDefinitionError"),
        ({"a": str}, {"a": Field(alias="_a")}, "the field name '_a' begins with '_'", "SchemaDefinitionError"),
        ({"a": str}, {"a": Field(alias="$a")}, "the field name '$a' is not an identifier", None),
        ({"a": str}, {"a": Field(alias="a b")}, "the field name 'a b' is not an identifier", None),
        ({"é": str}, {}, "the field name 'é' is not an identifier", None),
        ({LONG: str}, {}, "at most 64 characters.", None),
        (STR, {"a": Field(alias="b")}, "two fields have the name 'b' on the wire.", None),
        (STR, {"a": Field(alias="c"), "b": Field(alias="c")}, "two fields have the name 'c' on the wire.", None),
        ({"a": str}, {"a": Field(validation_alias=AliasChoices("x", "y"))}, "field 'a': a field has one name on the wire.", None),
        ({"a": str}, {"a": Field(validation_alias=AliasPath("x", 0))}, "field 'a': a field has one name on the wire.", None),
        ({"a": "list[Id['Nobody']]"}, {}, "the name 'Nobody' in an annotation is not defined. Import it in schema.py.", None),
        ({"a": "Id['Place']"}, {}, "Id[Place]: Place is not a document with a table in schema.py. Declare it there", None),
        ({"a": list[Id[Place]]}, {}, "Id[Place]: Place is not a document with a table in schema.py.", None),
        ({"a": "Nobody"}, {}, "the name 'Nobody' in an annotation is not defined. Import it in schema.py.", None),
    ],
)  # fmt: skip
def test_a_declaration_that_means_nothing(annotations: dict[str, Any], attributes: dict[str, Any], message: str, code: str | None) -> None:
    document = document_of(annotations, **attributes)
    with pytest.raises(SchemaError) as error:
        Catalog.of({"Thing": document, "Place": Place, "Id": Id})
    assert str(error.value).startswith("class Thing")
    assert message in str(error.value)
    assert code in (None, error.value.code)


@pytest.mark.parametrize(
    ("annotation", "advice"),
    [
        (datetime.datetime, "ms since the epoch as a float"),
        (datetime.date, "an ISO string"),
        (datetime.time, "a string"),
        (datetime.timedelta, "seconds as a float"),
        (decimal.Decimal, "a string"),
        (fractions.Fraction, "a string"),
        (complex, "two floats"),
        (set[str], "a list"),
        (frozenset[str], "a list"),
        (collections.deque[str], "a list"),
        (Iterable[str], "a list"),
        (collections.OrderedDict[str, str], "a dict"),
        (collections.Counter[str], "dict[str, int]"),
        (Pair, "a dataclass"),
        (Colour, "a Literal"),
        (Literal[Colour.RED], "Literal holds str, int, bool and None only"),
        (Literal[b"a"], "Literal holds str, int, bool and None only"),
        (uuid.UUID, "a string"),
        (pathlib.Path, "a string"),
        (SecretStr, "a string"),
        (Json, "Any"),
        (Callable[[], str], "a string"),
        (type[str], "a string"),
        (dict[int, str], "the keys of a dict are str, or an Id."),
        (dict[str | float, str], "the keys of a dict are str, or an Id."),
        (list[dict[str, datetime.datetime | None]], "ms since the epoch as a float"),
    ],
)
def test_a_type_that_the_wire_does_not_have(annotation: Any, advice: str) -> None:
    with pytest.raises(SchemaError) as error:
        catalog_of(document_of({"a": str, "b": annotation}))
    assert str(error.value).startswith("class Thing, field 'b': ")
    assert advice in str(error.value)
    assert error.value.code == "SchemaDefinitionError"


def test_a_type_inside_a_model_that_the_wire_does_not_have() -> None:
    with pytest.raises(SchemaError, match="class Thing, field 'a', field 'when': datetime is not a type of the wire"):
        catalog_of(document_of({"a": Holder}))


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a.b", "é", "__", LONG, "a\n"])
def test_a_table_name_that_is_no_identifier(name: str) -> None:
    document = document_of({}, table=name)
    with pytest.raises(SchemaError, match=r"class Thing: the table name .* is not an identifier"):
        Catalog.of({"Thing": document})


def test_a_table_name_of_the_systems_own() -> None:
    document = document_of({}, table="_things")
    with pytest.raises(SchemaError, match="class Thing: the table name '_things' begins with '_'") as error:
        Catalog.of({"Thing": document})
    assert error.value.code == "TableNameReserved"


class Unnamed(Document):
    a: str


class UnnamedWithIndex(Document):
    a: str

    by_a = Index("a")


class First(Document, table="same"):
    pass


class Second(Document, table="same"):
    pass


class Twice(Document, table="twice"):
    """The text alone tells: Python keeps the last."""

    a: str
    b: str

    by_a = Index("a")
    by_a = Index("b")


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([Unnamed], r'class Unnamed has no table\. Write class Unnamed\(Document, table="…"\)'),
        ([UnnamedWithIndex], r'class UnnamedWithIndex has indexes but no table\. Write class UnnamedWithIndex\(Document, table="…"\)'),
        ([First, Second], "class Second: table 'same' is declared a second time; first in .*class First"),
        ([Twice], r"class Twice: 'by_a' is declared twice\. Rename one of the indexes\."),
    ],
)
def test_the_message_names_file_line_and_class(documents: list[type[Document]], message: str) -> None:
    with pytest.raises(SchemaError, match=r"^tests/schema/test_wrong_schemas\.py:\d+, " + message):
        catalog_of(*documents)


class Base(Document):
    a: str


class Child(Base, table="children"):
    b: str

    by_both = Index("a", "b")


def test_a_base_of_tables_needs_none() -> None:
    catalog = Catalog.of({"Base": Base, "Child": Child, "again": Child, "Document": Document, "other": Place, "five": 5})
    assert list(catalog.tables) == ["children"]
    assert catalog.table(Child).index("by_both").fields == ("a", "b")


@pytest.mark.parametrize("of", [Unnamed, "nothing"])
def test_what_is_no_table_is_not_found(of: Any) -> None:
    with pytest.raises(SchemaError, match="The schema has no table for") as error:
        catalog_of(Child).table(of)
    assert error.value.code == "InvalidTableName"


def test_the_most_that_is_allowed_loads() -> None:
    names = ["f" + "x" * 62 + chr(97 + at) for at in range(16)]
    indexes: dict[str, Any] = {name.upper(): Index(*names[at:], *names[:at]) for at, name in enumerate(names)}
    document = document_of(dict.fromkeys(names, str), **indexes)
    assert len(catalog_of(document).tables["things"].indexes) == 17
