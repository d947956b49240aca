"""Arguments and results of functions against signatures."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from reactor.errors import ArgumentError, ReturnsError, SchemaError
from reactor.schema import ABSENT, Absent, Document, PaginationOptions, PaginationResult
from reactor.schema.validators import ArgsValidator, ReturnsValidator
from reactor.values.codec import Int64, from_json, to_json
from reactor.values.ids import Id
from reactor.values.order import encode_key
from tests.schema.support import ID, OTHER_ID, catalog_of, stored
from tests.values.strategies import values


class Message(Document, table="messages"):
    body: str
    likes: int = 0


class Room(Document, table="rooms"):
    name: str


class Place(BaseModel):
    city: str
    zip_code: str | None = Field(default=None, alias="zip")


@dataclass
class Size:
    width: float
    unit: str | None = None


class Options(TypedDict):
    bold: bool


TABLES = catalog_of(Message, Room)
WRONG = "rooms:send was called with arguments that do not fit. "


def args_of(**parameters: Any) -> ArgsValidator:
    """Those of a function ``rooms:send``, the last of which has a default when there are several."""
    required = list(parameters)[:-1] if len(parameters) > 1 else list(parameters)
    return ArgsValidator("rooms:send", parameters, frozenset(required))


SEND = args_of(room=Id[Room], body=Annotated[str, Field(max_length=5)], likes=int)


def test_arguments_come_by_name() -> None:
    assert SEND.load(f'{{"room":"{OTHER_ID}","body":"hi","likes":2}}', TABLES) == {"room": OTHER_ID, "body": "hi", "likes": 2}
    assert SEND.load(f'{{"body":"hi","room":"{OTHER_ID}"}}'.encode(), TABLES) == {"room": OTHER_ID, "body": "hi"}
    assert ArgsValidator("rooms:list", {}, frozenset()).load("{}", TABLES) == {}


@pytest.mark.parametrize(
    ("json", "expected"),
    [
        ('{"body":"hi"}', "The argument 'room' is missing"),
        ("{}", "The argument 'room' is missing; The argument 'body' is missing"),
        (f'{{"room":"{OTHER_ID}","body":"hi","extra":1}}', "There is no argument 'extra'; it takes: room, body, likes"),
        (f'{{"room":"{ID}","body":"hi"}}', "Argument room: expected an id of table 'rooms', got an id of table 'messages'"),
        (f'{{"room":"{OTHER_ID}","body":5}}', "Argument body: Input should be a valid string (found 5)"),
        (f'{{"room":"{OTHER_ID}","body":"hello!"}}', "Argument body: String should have at most 5 characters (found 'hello!')"),
        (f'{{"room":"{OTHER_ID}","body":"hi","likes":true}}', "Argument likes: Input should be a valid integer (found True)"),
        (f'{{"room":"{OTHER_ID}","body":"hi","likes":null}}', "Argument likes: Input should be a valid integer (found None)"),
        ("[]", "Arguments are one object by name: Input should be an object (found [])"),
        ("5", "Arguments are one object by name: Input should be an object (found 5)"),
    ],
)
def test_arguments_that_do_not_fit(json: str, expected: str) -> None:
    with pytest.raises(ArgumentError) as error:
        SEND.load(json, TABLES)
    assert str(error.value) == WRONG + expected
    assert error.value.code == "ArgumentValidationError"


def test_a_function_without_parameters_takes_only_the_empty_object() -> None:
    with pytest.raises(ArgumentError, match="There is no argument 'a'; it takes: none"):
        ArgsValidator("rooms:list", {}, frozenset()).load('{"a":1}', TABLES)


@pytest.mark.parametrize(
    ("annotation", "json", "expected"),
    [
        (list[Place], '[{"city":"Rome"},{"city":5}]', "Argument a[1].city: Input should be a valid string (found 5)"),
        (dict[str, Place], '{"x":{"city":"Rome","y":1}}', "Argument a.x.y: Extra inputs are not permitted (found 1)"),
        (dict[str, Place], '{"x":{}}', "Argument a.x.city: Field required"),
        (Place | None, '{"city":[]}', "Argument a.city: Input should be a valid string (found [])"),
        (Place | Size, '{"width":"1"}', "Argument a.city: Field required; Argument a.width: Extra inputs are not permitted (found '1'); "
         "Argument a.width: Input should be a valid number (found '1')"),
        (Size, '{"width":1,"x":2}', "Argument a.x: Unexpected keyword argument (found 2)"),
        (Options, '{"bold":1}', "Argument a.bold: Input should be a valid boolean (found 1)"),
        (int, "9007199254740993", "Argument a: expected a number within ±2^53, where it is exact"),
        (Int64, "5", 'Argument a: expected an Int64, on the wire {"$integer": base64} (found 5)'),
        (float, '{"$integer":"BQAAAAAAAAA="}', "Argument a: expected a number (found {'$integer': 'BQAAAAAAAAA='})"),
        (bytes, '"AQL/"', "Argument a: expected bytes, on the wire {\"$bytes\": base64} (found 'AQL/')"),
        (Any, '{"$map":[]}', "Argument a: '$map' is not a type of the wire"),
        (str, '"' + "x" * 100 + '"', None),
        (Literal["up", "down"], '"left"', "Argument a: Input should be 'up' or 'down' (found 'left')"),
        (dict[str, str], '{"$bytes":"AQL/"}', "Argument a.$bytes: the field name '$bytes' cannot be used"),
        (list[str], "[" + ",".join(['""'] * 8193) + "]", "Argument a: List should have at most 8192 items"),
        (dict[str, int], "{" + ",".join(f'"{at}":1' for at in range(1025)) + "}", "Argument a: Dictionary should have at most 1024 items"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)  # fmt: skip
def test_the_message_says_where_in_an_argument(annotation: Any, json: str, expected: str | None) -> None:
    validator = args_of(a=annotation)
    if expected is None:
        assert validator.load(f'{{"a":{json}}}', TABLES) == {"a": "x" * 100}
        return
    with pytest.raises(ArgumentError) as error:
        validator.load(f'{{"a":{json}}}', TABLES)
    assert str(error.value).startswith(WRONG + expected)


def test_at_most_five_reasons_are_told_and_long_values_are_cut() -> None:
    with pytest.raises(ArgumentError) as error:
        args_of(a=list[int]).load('{"a":[%s]}' % ",".join(['"%s"' % ("x" * 500)] * 9), TABLES)  # noqa: UP031
    assert str(error.value).count("Argument a[") == 5
    assert len(str(error.value)) < 1000


@given(values)
def test_any_value_is_an_argument_and_a_result_of_any(value: Any) -> None:
    arguments = args_of(a=Any)
    taken = arguments.load(arguments.to_json({"a": value}), TABLES)["a"]
    assert encode_key(taken) == encode_key(value)
    result = ReturnsValidator(Any, "rooms:get").encode(value, TABLES, 10_000)
    assert result == to_json(value)
    assert encode_key(ReturnsValidator(Any, "rooms:get").load(result, TABLES)) == encode_key(value)


def test_page_options_have_the_clients_names() -> None:
    validator = ArgsValidator("rooms:page", {"opts": PaginationOptions, "room": str}, frozenset(("opts", "room")))
    json = '{"room":"a","paginationOpts":{"numItems":10,"cursor":null,"endCursor":null,"maximumRowsRead":7,"id":123}}'
    taken = validator.load(json, TABLES)
    assert taken == {"opts": PaginationOptions(num_items=10, maximum_rows_read=7, id=123.0), "room": "a"}
    assert validator.load(validator.to_json(taken), TABLES) == taken
    for wrong, expected in (
        ('{"room":"a"}', "The argument 'paginationOpts' is missing"),
        ('{"room":"a","paginationOpts":{}}', "Argument paginationOpts.numItems: Field required"),
        ('{"room":"a","opts":{},"paginationOpts":{"numItems":1}}', "There is no argument 'opts'; it takes: paginationOpts, room"),
        (
            '{"room":"a","paginationOpts":{"numItems":1,"maximumRowsRead":0}}',
            "Argument paginationOpts.maximumRowsRead: Input should be greater",
        ),
    ):
        with pytest.raises(ArgumentError, match=f"do not fit. {expected}"):
            validator.load(wrong, TABLES)


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (5, b'{"a":5.0}'),
        (Int64(5), b'{"a":{"$integer":"BQAAAAAAAAA="}}'),
        (Place(city="Rome", zip="1"), b'{"a":{"city":"Rome","zip":"1"}}'),
        ([Size(1.0)], b'{"a":[{"width":1.0}]}'),
        (Id(ID), b'{"a":"%b"}' % ID.encode()),
        ({"x": ABSENT, "y": None}, b'{"a":{"y":null}}'),
    ],
)
def test_a_call_in_python_is_the_call_on_the_wire(value: Any, json: bytes) -> None:
    assert args_of(a=Any).to_json({"a": value}) == json


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), r"rooms:send, argument 'a': builtins.object is not a value"),
        ([{"x": {1}}], r"rooms:send, argument 'a': builtins.set is not a value.* \(at \[0\].x\)"),
        ("\ud800", r"rooms:send was called with arguments that are not values: a string holds a lone surrogate.* \(at .a\)"),
    ],
)
def test_a_call_in_python_with_what_is_no_value(value: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        args_of(a=Any).to_json({"a": value})


READ = stored(Message(body="hi", likes=2), TABLES)
MESSAGE = f'{{"_creationTime":1.5,"_id":"{ID}","body":"hi","likes":2.0}}'


@pytest.mark.parametrize(
    ("annotation", "value", "json"),
    [
        (None, None, "null"),
        (int, 5, "5.0"),
        (float, 5, "5.0"),
        (float, -math.inf, '{"$float":"AAAAAAAA8P8="}'),
        (Int64, Int64(5), '{"$integer":"BQAAAAAAAAA="}'),
        (bytes, b"\x01\x02\xff", '{"$bytes":"AQL/"}'),
        (Id[Message], Id(ID), f'"{ID}"'),
        (Message | None, READ, MESSAGE),
        (Message | None, None, "null"),
        (list[Message], [READ], f"[{MESSAGE}]"),
        (dict[str, Message], {"m": READ}, f'{{"m":{MESSAGE}}}'),
        (Any, {"m": [READ]}, f'{{"m":[{MESSAGE}]}}'),
        (Place, Place(city="Rome", zip="1"), '{"city":"Rome","zip":"1"}'),
        (Size, Size(1.0), '{"width":1.0}'),
        (list[Size | None], [Size(1.0, "m"), None], '[{"unit":"m","width":1.0},null]'),
        (Any, {"s": Size(1.0)}, '{"s":{"width":1.0}}'),
        (Options, {"bold": True}, '{"bold":true}'),
        (tuple[int, str], (1, "a"), '[1.0,"a"]'),
        (Literal["a", 1], 1, "1.0"),
        (PaginationResult[Message], PaginationResult(page=[READ], is_done=True, continue_cursor="c"),
         f'{{"continueCursor":"c","isDone":true,"page":[{MESSAGE}]}}'),
    ],
)  # fmt: skip
def test_results_on_the_wire_and_back(annotation: Any, value: Any, json: str) -> None:
    returns = ReturnsValidator(annotation, "rooms:get")
    assert returns.encode(value, TABLES, 1000).decode() == json
    loaded = returns.load(json.encode(), TABLES)
    assert loaded == value or annotation is Any


NOT_ALLOWED = "rooms:get returned what its annotation does not allow. "
NO_VALUE = "rooms:get returned something that is not a value: "


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (None, 1, NOT_ALLOWED + "Input should be None (found 1)"),
        (str, None, NOT_ALLOWED + "Input should be a valid string (found None)"),
        (int, True, NOT_ALLOWED + "Input should be a valid integer (found True)"),
        (int, 1.5, NOT_ALLOWED + "Input should be a valid integer (found 1.5)"),
        (int, 2**53 + 1, NOT_ALLOWED + "expected a number within ±2^53"),
        (int, Int64(5), NOT_ALLOWED + "expected a number without fraction, got an Int64"),
        (float, Int64(5), NOT_ALLOWED + "expected a number, got an Int64"),
        (list[float], [1.0, Int64(5)], NOT_ALLOWED + "[1]: expected a number, got an Int64"),
        (float, True, NOT_ALLOWED + "Input should be a valid number (found True)"),
        (Int64, 5, NOT_ALLOWED + "Input should be an instance of Int64 (found 5)"),
        (Literal[1], True, NOT_ALLOWED + "Input should be 1 (found True)"),
        (Literal[1], Int64(1), NOT_ALLOWED + "Input should be 1 (found Int64(1))"),
        (Id[Room], ID, NOT_ALLOWED + "expected an id of table 'rooms', got an id of table 'messages'"),
        (dict[str, list[int]], {"x": [1, "2"]}, NOT_ALLOWED + "x[1]: Input should be a valid integer (found '2')"),
        (Message, Place(city="Rome"), NOT_ALLOWED + "Input should be "),
        (Options, {"bold": True, "x": 1}, NOT_ALLOWED + "x: Extra inputs are not permitted (found 1)"),
        (Any, object(), NO_VALUE + "builtins.object is not a value."),
        (Any, {"x": [2**60]}, NO_VALUE + "the int 1152921504606846976 is outside ±2^53"),
        (Any, {"x": ["\ud800"]}, NO_VALUE + "a string holds a lone surrogate, which is no Unicode text (at .x[0])"),
        (dict[str, Any], {"x": {1: 2}}, NO_VALUE + "a field name is int, expected str (at .x)"),
        (Any, {"$x": 1}, NO_VALUE + "the field name '$x' cannot be used"),
        (Any, [None] * 8193, NO_VALUE + "an array has 8193 elements, more than 8192"),
        (str, "x" * 99, "rooms:get returned 101 bytes, at most 100 fit."),
    ],
)
def test_results_that_do_not_fit(annotation: Any, value: Any, expected: str) -> None:
    with pytest.raises(ReturnsError) as error:
        ReturnsValidator(annotation, "rooms:get").encode(value, TABLES, 100)
    assert str(error.value).startswith(expected)
    assert error.value.code == ("ResultTooLarge" if "at most 100" in expected else "ReturnsValidationError")


def test_a_result_that_does_not_fit_is_not_loaded_either() -> None:
    with pytest.raises(ReturnsError, match="Input should be a valid integer"):
        ReturnsValidator(int, "rooms:get").load(b'"x"', TABLES)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (
            lambda: args_of(when=datetime.datetime),
            "rooms:send, argument 'when': datetime is not a type of the wire. Use ms since the epoch",
        ),
        (lambda: args_of(a=dict[int, str]), "rooms:send, argument 'a': the keys of a dict are str, or an Id."),
        (lambda: args_of(a=bytearray), "rooms:send, argument 'a': this annotation is no type of the wire"),
        (lambda: ReturnsValidator(set[str], "rooms:get"), "rooms:get returns: set is not a type of the wire. Use a list."),
    ],
)
def test_a_signature_that_the_wire_cannot_carry(make: Callable[[], object], where: str) -> None:
    with pytest.raises(SchemaError) as error:
        make()
    assert str(error.value).startswith(where)
    assert error.value.code == "SchemaDefinitionError"


ANY, NUMBER, STRING = {"type": "any"}, {"type": "number"}, {"type": "string"}


def field(type: Any, optional: bool = False) -> dict[str, Any]:
    return {"fieldType": type, "optional": optional}


MAYBE = {"type": "union", "value": [STRING, {"type": "null"}]}
SYSTEM = {"_id": field(STRING, True), "_creationTime": field(NUMBER, True)}


@pytest.mark.parametrize(
    ("annotation", "description"),
    [
        (str, STRING),
        (int, NUMBER),
        (float, NUMBER),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (bytes, {"type": "bytes"}),
        (Int64, {"type": "bigint"}),
        (Any, ANY),
        (Id[Room], {"type": "id", "tableName": "rooms"}),
        (Id[Any], STRING),
        (Literal["a"], {"type": "literal", "value": "a"}),
        (Literal["a", 1], {"type": "union", "value": [{"type": "literal", "value": "a"}, {"type": "literal", "value": 1}]}),
        (list[int], {"type": "array", "value": NUMBER}),
        (dict[str, int], {"type": "record", "keys": STRING, "values": field(NUMBER)}),
        (str | None, MAYBE),
        (str | int | float, {"type": "union", "value": [STRING, NUMBER]}),
        (str | Absent, STRING),
        (Annotated[str, Field(min_length=1)], STRING),
        (Options, {"type": "object", "value": {"bold": field({"type": "boolean"})}}),
        (Size, {"type": "object", "value": {"width": field(NUMBER), "unit": field(MAYBE, True)}}),
        (Message, {"type": "object", "value": {"body": field(STRING), "likes": field(NUMBER, True), **SYSTEM}}),
    ],
)  # fmt: skip
def test_validators_are_described_for_clients(annotation: Any, description: Any) -> None:
    assert ReturnsValidator(annotation, "rooms:get").describe(TABLES) == description
    assert args_of(first=annotation, a=annotation).describe(TABLES) == {
        "type": "object",
        "value": {"first": field(description), "a": field(description, True)},
    }


def test_what_a_client_sends_as_zero_below_zero_stays_it() -> None:
    taken = args_of(a=int | float).load('{"a":{"$float":"AAAAAAAAAIA="}}', TABLES)["a"]
    assert math.copysign(1.0, taken) == -1.0
    assert from_json(to_json(taken)) == 0.0
