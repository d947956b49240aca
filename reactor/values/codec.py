"""The wire's JSON and Python values, both ways.

A value in Python is None, bool, float, ``Int64``, str, bytes, a list of values, or a dict from str to value. In JSON, an
object whose only key is ``$integer``, ``$bytes`` or ``$float`` stands for what JSON lacks; every JSON number is a Float64.
A plain int is taken for the Float64 of the same number where that is exact.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias, Union

import orjson
from pydantic_core import PydanticCustomError, core_schema

from reactor.errors import ValueFormatError
from reactor.limits import DEFAULT_LIMITS

__all__ = [
    "Int64",
    "Value",
    "check_name",
    "clean",
    "decode",
    "encode",
    "from_json",
    "inside",
    "not_a_value",
    "register_encoder",
    "size",
    "tight",
    "to_json",
]

Value: TypeAlias = Union[bool, float, "Int64", str, bytes, "list[Value]", "dict[str, Value]", None]

MAX_DEPTH = DEFAULT_LIMITS.value_depth
_MAX_FIELDS = DEFAULT_LIMITS.object_fields
_MAX_ELEMENTS = DEFAULT_LIMITS.array_elements
_MAX_NAME = DEFAULT_LIMITS.field_name_chars
_EXACT = 2**53

_pack_float = struct.Struct("<d").pack
_unpack_float = struct.Struct("<d").unpack
_pack_int = struct.Struct("<q").pack
_unpack_int = struct.Struct("<q").unpack


class Int64(int):
    """A 64-bit signed integer: another type than float, on the wire and in the order of values.

    Raises:
        ValueFormatError: outside −2^63 … 2^63−1.
    """

    __slots__ = ()

    def __new__(cls, value: int | str = 0) -> Int64:
        made = super().__new__(cls, value)
        if not -(2**63) <= made < 2**63:
            raise ValueFormatError(f"{int(made)} does not fit in an Int64 (−2^63 to 2^63−1)")
        return made

    def __repr__(self) -> str:
        return f"Int64({int(self)})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> core_schema.CoreSchema:
        return core_schema.json_or_python_schema(
            core_schema.no_info_plain_validator_function(_read_int64, metadata={"reactor_value": "int64"}),
            core_schema.is_instance_schema(cls),
        )


def _read_int64(json: object) -> Int64:
    try:
        value = decode(json)
    except ValueFormatError as error:
        raise PydanticCustomError("value", "{reason}", {"reason": str(error)}) from None
    if not isinstance(value, Int64):
        raise PydanticCustomError("int64", 'expected an Int64, on the wire {"$integer": base64}')
    return value


# --- Python to JSON

Encoder: TypeAlias = Callable[[Any, int], object]
_encoders: dict[type, Encoder] = {}
_cache: dict[type, Encoder] = {}
_together: dict[Encoder, Callable[[list[Any]], list[object] | None]] = {}


def register_encoder(kind: type, encoder: Encoder, together: Callable[[list[Any]], list[object] | None] | None = None) -> None:
    """Have ``encode`` take instances of ``kind`` and its subclasses.

    Args:
        encoder: called with the object and the depth still allowed; gives what orjson takes.
        together: the same for many of one class, where that is quicker; None when it is not to be used for these.
    """
    _encoders[kind] = encoder
    _cache.clear()
    if together is not None:
        _together[encoder] = together


def encode(value: object, depth: int = MAX_DEPTH) -> object:
    """What orjson takes for ``value``, in the wire's encoding.

    Args:
        depth: how deep arrays and objects may nest; a scalar has depth 0.

    Raises:
        ValueFormatError: not a value, or past a limit; the path says where.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is float:
        return value if _plain(value) else {"$float": _base64(_pack_float(value))}  # type: ignore[arg-type]
    encoder = _cache.get(kind) or _encoder(kind)
    return encoder(value, depth)


def to_json(value: object, depth: int = MAX_DEPTH) -> bytes:
    """``value`` as JSON text in the wire's encoding, keys sorted.

    Raises:
        ValueFormatError: not a value, or past a limit.
    """
    return tight(dumps(encode(value, depth)))


def tight(text: bytes) -> bytes:
    """``text`` from orjson for keeping: that begins to write in 4 KiB and hands over all of them, however little it wrote."""
    return bytes(memoryview(text)) if len(text) < 4096 else text


def dumps(encoded: object) -> bytes:
    """JSON text of what ``encode`` gave."""
    try:
        return orjson.dumps(encoded, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        path = _lone_surrogate(encoded)
        if path is None:
            raise ValueFormatError(f"this cannot be sent: {error}") from None
        raise ValueFormatError("a string holds a lone surrogate, which is no Unicode text", path=path) from None


def _lone_surrogate(encoded: object) -> str | None:
    if isinstance(encoded, str):
        return None if encoded.isascii() or encoded == encoded.encode("utf-8", "ignore").decode() else ""
    steps: list[tuple[str, object]] = []
    if isinstance(encoded, list):
        steps = [(f"[{at}]", item) for at, item in enumerate(encoded)]
    elif isinstance(encoded, dict):
        steps = [(f".{key}", item) for key, item in encoded.items()]
    return next((step + path for step, item in steps if (path := _lone_surrogate(item)) is not None), None)


def _plain(value: float) -> bool:
    return value - value == 0.0 and (value != 0.0 or math.copysign(1.0, value) > 0.0)


def _encoder(kind: type) -> Encoder:
    for base in kind.__mro__:
        found = _encoders.get(base)
        if found is not None:
            _cache[kind] = found
            return found
    raise not_a_value(kind)


def not_a_value(kind: type) -> ValueFormatError:
    """What is raised for an object of a class that nothing encodes."""
    return ValueFormatError(
        f"{kind.__module__}.{kind.__qualname__} is not a value. Values are None, bool, float, int, Int64, str, bytes, "
        "lists and dicts of values, documents, models and dataclasses"
    )


def _base64(raw: bytes) -> str:
    return binascii.b2a_base64(raw, newline=False).decode()


def _encode_str(value: str, depth: int) -> object:
    return str(value)


def _encode_float(value: float, depth: int) -> object:
    return encode(float(value))


def _encode_int(value: int, depth: int) -> object:
    if not -_EXACT <= value <= _EXACT:
        raise ValueFormatError(f"the int {value} is outside ±2^53, where a Float64 is exact. Use Int64({value})")
    return float(value)


def _encode_int64(value: int, depth: int) -> object:
    return {"$integer": _base64(_pack_int(value))}


def _encode_bytes(value: bytes, depth: int) -> object:
    return {"$bytes": _base64(value)}


def _encode_list(value: list[object], depth: int) -> object:
    if len(value) > _MAX_ELEMENTS:
        raise ValueFormatError(f"an array has {len(value)} elements, more than {_MAX_ELEMENTS}", code="ArrayTooLong")
    _check_depth(depth)
    depth -= 1
    kinds = set(map(type, value))
    # Of one class, as most documents in a list are, its encoder is looked up once.
    encoder = _cache.get(kinds.pop(), encode) if len(kinds) == 1 else encode
    together = _together.get(encoder)
    if together is not None and (items := together(value)) is not None:
        return items
    encoded: list[object] = []
    try:
        for item in value:
            encoded.append(encoder(item, depth))
    except ValueFormatError as error:
        raise inside(error, f"[{len(encoded)}]") from None
    return encoded


def _encode_dict(value: dict[str, object], depth: int) -> object:
    if len(value) > _MAX_FIELDS:
        raise ValueFormatError(f"an object has {len(value)} fields, more than {_MAX_FIELDS}", code="TooManyFieldsError")
    _check_depth(depth)
    encoded: dict[str, object] = {}
    for key, item in value.items():
        check_name(key)
        try:
            encoded[key] = encode(item, depth - 1)
        except ValueFormatError as error:
            raise inside(error, f".{key}") from None
    return encoded


register_encoder(str, _encode_str)
register_encoder(float, _encode_float)
register_encoder(int, _encode_int)
register_encoder(Int64, _encode_int64)
register_encoder(bytes, _encode_bytes)
register_encoder(list, _encode_list)
register_encoder(tuple, _encode_list)
register_encoder(dict, _encode_dict)


# --- JSON to Python


def from_json(text: bytes | str) -> Value:
    """The value of a JSON text in the wire's encoding.

    Raises:
        ValueFormatError: not JSON, or not the encoding of a value.
    """
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueFormatError(f"not JSON: {error}") from None
    return decode(parsed)


def decode(json: object, depth: int = MAX_DEPTH) -> Value:
    """The value of parsed JSON in the wire's encoding.

    Raises:
        ValueFormatError: not the encoding of a value, or past a limit; the path says where.
    """
    kind = type(json)
    if kind is str or json is None or kind is bool or kind is float:
        return json  # type: ignore[return-value]
    if kind is int:
        return float(json)  # type: ignore[arg-type]
    if kind is list:
        return _decode_list(json, depth)  # type: ignore[arg-type]
    if kind is dict:
        return _decode_dict(json, depth)  # type: ignore[arg-type]
    raise ValueFormatError(f"{kind.__name__} does not come from JSON")


def _decode_list(json: list[object], depth: int) -> Value:
    if len(json) > _MAX_ELEMENTS:
        raise ValueFormatError(f"an array has {len(json)} elements, more than {_MAX_ELEMENTS}", code="ArrayTooLong")
    _check_depth(depth)
    values: list[Value] = []
    for item in json:
        try:
            values.append(decode(item, depth - 1))
        except ValueFormatError as error:
            raise inside(error, f"[{len(values)}]") from None
    return values


def _decode_dict(json: dict[str, object], depth: int) -> Value:
    if len(json) == 1:
        ((key, item),) = json.items()
        if key[:1] == "$":
            return _decode_special(key, item)
    if len(json) > _MAX_FIELDS:
        raise ValueFormatError(f"an object has {len(json)} fields, more than {_MAX_FIELDS}", code="TooManyFieldsError")
    _check_depth(depth)
    values: dict[str, Value] = {}
    for key, item in json.items():
        check_name(key)
        try:
            values[key] = decode(item, depth - 1)
        except ValueFormatError as error:
            raise inside(error, f".{key}") from None
    return values


def _decode_special(key: str, item: object) -> Value:
    if key == "$integer":
        return Int64(_unpack_int(_raw(key, item, 8))[0])
    if key == "$bytes":
        return _raw(key, item, None)
    if key == "$float":
        value: float = _unpack_float(_raw(key, item, 8))[0]
        if _plain(value):
            raise ValueFormatError(f"$float holds {value}, which is written as a plain number")
        return value
    raise ValueFormatError(f"{key!r} is not a type of the wire (those are $integer, $float and $bytes); field names do not begin with '$'")


def _raw(key: str, item: object, length: int | None) -> bytes:
    if not isinstance(item, str):
        raise ValueFormatError(f"{key} holds {type(item).__name__}, expected base64 text")
    try:
        raw = base64.b64decode(item, validate=True)
    except (binascii.Error, ValueError):
        raise ValueFormatError(f"{key} does not hold base64 text") from None
    if length is not None and len(raw) != length:
        raise ValueFormatError(f"{key} holds {len(raw)} bytes, expected {length}")
    return raw


# --- both


def _check_depth(depth: int) -> None:
    if depth <= 0:
        raise ValueFormatError("arrays and objects are nested too deeply", code="TooNestedError")


@lru_cache(maxsize=4096)
def check_name(name: object) -> None:
    """Check the name of a field of an object.

    Raises:
        ValueFormatError: no value has a field of this name.
    """
    if not isinstance(name, str):
        raise ValueFormatError(f"a field name is {type(name).__name__}, expected str")
    if len(name) > _MAX_NAME or not name.isascii() or (name and not name.isprintable()) or name[:1] == "$":
        raise ValueFormatError(
            f"the field name {name[:50]!r} cannot be used: names are printable ASCII, at most {_MAX_NAME} characters, "
            "and do not begin with '$'"
        )


def inside(error: ValueFormatError, step: str) -> ValueFormatError:
    """The same error, seen from one step further out: ``.field`` or ``[3]``."""
    return ValueFormatError(error.reason, path=step + error.path, code=error.code)


def size(encoded: object) -> int:
    """What a value counts towards limits, in bytes, from its encoding.

    null and boolean 1, numbers 9, strings and bytes 2 + length, arrays 2 + elements, objects 2 + names and values.
    """
    kind = type(encoded)
    if kind is str:
        return 2 + (len(encoded) if encoded.isascii() else len(encoded.encode()))  # type: ignore[attr-defined, arg-type]
    if kind is float or kind is int:
        return 9
    if kind is dict:
        total = 2
        for key, item in encoded.items():  # type: ignore[attr-defined]
            kind = type(item)
            if kind is float:
                total += len(key) + 10
            elif kind is str and item.isascii():
                if key[:1] == "$":
                    return 2 + len(item) // 4 * 3 - item.count("=") if key == "$bytes" else 9
                total += len(key) + 3 + len(item)
            else:
                total += len(key) + 1 + size(item)
        return total
    if kind is list:
        return 2 + sum(map(size, encoded))  # type: ignore[call-overload]
    return 1


def clean(json: bytes) -> bytes:
    """JSON text in the wire's encoding as JSON for programs that do not know it: lossy, for answers only.

    Int64 becomes a decimal string, NaN and infinities their names, bytes base64 text.
    """
    if b'"$' not in json:
        return json
    return orjson.dumps(_clean(decode(orjson.loads(json))), option=orjson.OPT_SORT_KEYS)


def _clean(value: Value) -> object:
    if isinstance(value, Int64):
        return str(int(value))
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return value
    if isinstance(value, bytes):
        return _base64(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    return value
