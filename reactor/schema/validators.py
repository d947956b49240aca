"""From annotations to validators of the wire's values.

pydantic gives the core schema of an annotation; ``adapt`` changes what differs on the wire (every number is a Float64, bytes
and Int64 are spelt out, nothing is coerced, objects are closed) and the result is compiled once.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import PydanticCustomError, SchemaValidator, core_schema

from reactor.errors import ArgumentError, ReturnsError, SchemaError, ValueFormatError
from reactor.limits import DEFAULT_LIMITS
from reactor.schema.document import Document, to_value
from reactor.schema.pagination import PaginationOptions
from reactor.values import codec
from reactor.values.codec import Int64

__all__ = ["ArgsValidator", "ReturnsValidator", "adapt", "describe", "plain_fields", "reasons", "row_loader", "row_schema"]

_EXACT = 2**53

#: What pydantic knows and the wire does not.
_UNSUPPORTED = {
    "date": "an ISO string or ms since the epoch as a float",
    "time": "a string",
    "datetime": "ms since the epoch as a float",
    "timedelta": "seconds as a float",
    "decimal": "a string",
    "set": "a list",
    "frozenset": "a list",
    "complex": "two floats",
    "uuid": "a string",
    "url": "a string",
    "multi-host-url": "a string",
    "enum": "a Literal",
    "callable": "a string",
    "generator": "a list",
    "is-subclass": "a string",
    "fraction": "a string",
    "deque": "a list",
    "counter": "dict[str, int]",
    "ordered-dict": "a dict",
    "default-dict": "a dict",
    "named-tuple": "a dataclass",
    "json": "Any",
    "lax-or-strict": "a string",  # paths, addresses, secrets
}

Schema = dict[str, Any]


def adapt(schema: Any, where: str) -> Any:
    """A core schema that takes the wire's values instead of pydantic's.

    Raises:
        SchemaError: a type that no value of the wire stands for; ``where`` says whose.
    """
    if isinstance(schema, list | tuple):
        return type(schema)(adapt(item, where) for item in schema)
    if not isinstance(schema, dict):
        return schema
    kind: Any = schema.get("type")
    if isinstance(kind, str):
        if kind in _UNSUPPORTED:
            raise _unsupported(where, kind)
        if kind in _ADAPTED:
            return _ADAPTED[kind](schema, where)
    adapted = {key: value if key in _NOT_SCHEMAS else adapt(value, where) for key, value in schema.items()}
    if kind in ("model-fields", "typed-dict", "dataclass-args"):
        adapted["extra_behavior"] = "forbid"
        adapted["fields"] = _adapt_fields(schema["fields"], where)
    elif kind == "union":
        # pydantic puts the label of the tried member into the path of an error; members are no fields.
        adapted["choices"] = [(choice[0] if isinstance(choice, tuple) else choice, _MEMBER) for choice in adapted["choices"]]
    elif kind == "model" and issubclass(schema["cls"], Document):
        _add_system_fields(adapted["schema"])
    elif kind in _LENGTHS:
        adapted["max_length"] = min(schema.get("max_length", _LENGTHS[kind]), _LENGTHS[kind])
    if kind == "dict":
        adapted["keys_schema"] = _keys(adapted.get("keys_schema", {"type": "str"}), where)
    return adapted


_MEMBER = "\0"
_TRIED = "\1"  # a member whose failure tells nothing: the one after it takes all that it takes
_LENGTHS = {"list": DEFAULT_LIMITS.array_elements, "tuple": DEFAULT_LIMITS.array_elements, "dict": DEFAULT_LIMITS.object_fields}
_NOT_SCHEMAS = frozenset(
    ("default", "metadata", "serialization", "config", "cls", "ref", "schema_ref", "computed_fields", "validation_alias", "fields")
)


def _unsupported(where: str, kind: str) -> SchemaError:
    return SchemaError(f"{where}: {kind} is not a type of the wire. Use {_UNSUPPORTED[kind]}.", code="SchemaDefinitionError")


def _adapt_fields(fields: Any, where: str) -> Any:
    if isinstance(fields, list):
        return [adapt(field, f"{where}, field {field['name']!r}") for field in fields]
    return {name: adapt(field, f"{where}, field {name!r}") for name, field in fields.items()}


def _keys(schema: Any, where: str) -> Any:
    if not _is_text(schema):
        raise SchemaError(f"{where}: the keys of a dict are str, or an Id.", code="SchemaDefinitionError")
    return core_schema.no_info_before_validator_function(_check_key, schema)


def _is_text(schema: Any) -> bool:
    kind = schema["type"]
    if kind == "union":
        return all(_is_text(member[0]) for member in schema["choices"])
    if kind == "literal":
        return all(isinstance(expected, str) for expected in schema["expected"])
    inner = schema.get("schema", schema.get("json_schema"))
    return kind in ("str", "function-plain") if inner is None else _is_text(inner)


def _check_key(key: Any) -> Any:
    try:
        codec.check_name(key)
    except ValueFormatError as error:
        raise PydanticCustomError("value", "{reason}", {"reason": str(error)}) from None
    return key


def _add_system_fields(fields: Any) -> None:
    while fields["type"] != "model-fields":
        fields = fields["schema"]
    fields["fields"] = fields["fields"] | {
        "_id": core_schema.model_field(core_schema.with_default_schema(core_schema.str_schema(strict=True), default=None)),
        "_creationTime": core_schema.model_field(core_schema.with_default_schema(_float({"type": "float"}), default=None)),
    }


def _both(json: core_schema.CoreSchema, python: Any) -> Schema:
    return typing.cast(Schema, core_schema.json_or_python_schema(json, python))


def _float(schema: Any, where: str = "") -> Any:
    strict = {**schema, "strict": True}
    # A plain number first: to call Python for each costs more than to read it.
    choices: list[Any] = [(strict, _TRIED), (_before(_read_float, strict), _MEMBER)]
    return _both(core_schema.union_schema(choices, mode="left_to_right"), _before(_check_float, strict))


def _before(function: Callable[[Any], Any], schema: Any) -> Any:
    return core_schema.no_info_before_validator_function(function, schema)


def _read_float(value: Any) -> Any:
    if type(value) is dict:
        return _special(value, float, "a number")
    return value


def _check_float(value: Any) -> Any:
    if isinstance(value, Int64):
        raise PydanticCustomError("float", "expected a number, got an Int64; declare the type Int64, or send a plain number")
    return value


def _int(schema: Any, where: str) -> Any:
    strict = {**schema, "strict": True}
    return _both(_before(_read_int, strict), _before(_check_int, strict))


def _read_int(value: Any) -> Any:
    return _check_int(_read_whole(value))


def _check_int(value: Any) -> Any:
    if isinstance(value, Int64):
        raise PydanticCustomError("int", "expected a number without fraction, got an Int64; declare the type Int64, or send a plain number")
    if isinstance(value, int) and not -_EXACT <= value <= _EXACT:
        raise PydanticCustomError("int", "expected a number within ±2^53, where it is exact; beyond that use Int64")
    return value


def _bytes(schema: Any, where: str) -> Any:
    strict = {**schema, "strict": True}
    return _both(_before(_read_bytes, strict), strict)


def _read_bytes(value: Any) -> Any:
    if type(value) is dict:
        return _special(value, bytes, "bytes")
    raise PydanticCustomError("bytes", 'expected bytes, on the wire {"$bytes": base64}')


def _special(value: Any, kind: type, name: str) -> Any:
    decoded = _read_any(value)
    if type(decoded) is not kind:
        raise PydanticCustomError("special", "expected {name}", {"name": name})
    return decoded


def _any(schema: Any, where: str) -> Any:
    return _both(core_schema.no_info_plain_validator_function(_read_any), core_schema.any_schema())


def _read_any(value: Any) -> Any:
    try:
        return codec.decode(value)
    except ValueFormatError as error:
        raise PydanticCustomError("value", "{reason}", {"reason": str(error)}) from None


def _literal(schema: Any, where: str) -> Any:
    kinds = {type(expected) for expected in schema["expected"]}
    if not kinds <= {str, int, bool, type(None)}:
        raise SchemaError(f"{where}: a Literal holds str, int, bool and None only.", code="SchemaDefinitionError")
    if kinds.isdisjoint((int, bool)):
        return schema
    exact = {(type(expected), expected) for expected in schema["expected"]}
    shown = " or ".join(map(repr, schema["expected"]))

    def check(value: Any) -> Any:
        value = _read_whole(value)
        # In Python 1 == True == Int64(1); as values they are three.
        if isinstance(value, int) and (type(value), value) not in exact:
            raise PydanticCustomError("literal", "Input should be {expected}", {"expected": shown})
        return value

    return _before(check, schema)


def _read_whole(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


def _strict(schema: Any, where: str) -> Any:
    return {**schema, "strict": True}


_ADAPTED: dict[str, Callable[[Any, str], Any]] = {
    "float": _float,
    "int": _int,
    "bytes": _bytes,
    "any": _any,
    "str": _strict,
    "bool": _strict,
    "literal": _literal,
}


def _core_schema(annotation: Any, where: str) -> Any:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        return adapter.core_schema
    except PydanticUndefinedAnnotation as error:
        raise SchemaError(f"{where}: the name {error.name!r} in an annotation is not defined.", code="SchemaDefinitionError") from error
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        reason = str(error).split("\n")[0]
        raise SchemaError(f"{where}: this annotation is no type of the wire: {reason}", code="SchemaDefinitionError") from error


def _compile(schema: Any) -> SchemaValidator:
    # Prebuilt validators of nested models would be the unadapted ones.
    return SchemaValidator(schema, None, _use_prebuilt=False)


def row_schema(document: type[Document], where: str = "") -> Any:
    """The adapted core schema of a document class.

    Raises:
        SchemaError: a field has a type that the wire does not have.
    """
    where = where or document.__qualname__
    return adapt(_core_schema(document, where), where)


def row_loader(document: type[Document]) -> SchemaValidator:
    """What reads documents of this class from their stored text.

    Raises:
        SchemaError: a field has a type that the wire does not have.
    """
    return _compile(row_schema(document))


def constructor(schema: Any) -> SchemaValidator:
    """What checks documents that Python makes: as strictly as rows, and without system fields.

    Args:
        schema: of ``row_schema``.
    """
    return _compile(_without_system_fields(schema))


def plain_fields(schema: Any) -> dict[str, type]:
    """The fields of a document class that take every value of just this type, and take it as it is, by name.

    Args:
        schema: of ``row_schema``.

    None where something looks at the document as a whole: what a field becomes may then depend on the others.
    """
    if schema["type"] != "model" or schema["schema"]["type"] != "model-fields" or schema["custom_init"] or "post_init" in schema:
        return {}
    if not schema["config"].keys() <= _NOT_OF_FIELDS:
        return {}
    plain: dict[str, type] = {}
    for name, field in schema["schema"]["fields"].items():
        taken = field["schema"]
        if taken["type"] == "default":
            taken = taken["schema"]
        for kind, whole in _AS_IT_IS:
            if taken == whole:
                plain[name] = kind
    return plain


#: The types whose values are their own encoding, as fields have them that are declared with nothing else.
_AS_IT_IS: tuple[tuple[type, Any], ...] = (
    (float, _float({"type": "float"})),
    (str, _strict({"type": "str"}, "")),
    (bool, _strict({"type": "bool"}, "")),
)
#: Settings of a class that change no value.
_NOT_OF_FIELDS = {"extra_fields_behavior", "strict", "title", "validate_by_alias", "validate_by_name"}


def _without_system_fields(schema: Any) -> Any:
    if isinstance(schema, list | tuple):
        return type(schema)(map(_without_system_fields, schema))
    if not isinstance(schema, dict):
        return schema
    kept = {key: value if key in _NOT_SCHEMAS else _without_system_fields(value) for key, value in schema.items()}
    if schema.get("type") == "model-fields":
        fields = {name: field for name, field in schema["fields"].items() if name not in ("_id", "_creationTime")}
        kept["fields"] = {name: _without_system_fields(field) for name, field in fields.items()}
    return kept


def reasons(error: ValidationError) -> list[str]:
    """Why a value does not fit, a text for each place: path, what was expected, what was found."""
    texts: dict[str, None] = {}
    for detail in error.errors(include_url=False, include_context=False):
        if _TRIED in detail["loc"]:
            continue
        path = _path(detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        texts[f"{path}: {message}{_found(detail)}" if path else f"{message}{_found(detail)}"] = None
    return list(texts)


def _path(loc: tuple[int | str, ...]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc if step not in (_MEMBER, "[key]"))
    return "".join(steps).removeprefix(".")


def _found(detail: Any) -> str:
    if detail["type"] in ("missing", "id", "value"):
        return ""
    shown = repr(detail["input"])
    if inspect.iscoroutine(detail["input"]):
        return f" (found {shown[:79]}: await it)"
    return f" (found {shown if len(shown) <= 80 else shown[:79] + '…'})"


class ReturnsValidator:
    """Checks and encodes what a function returns. An absent annotation takes everything."""

    __slots__ = ("_any", "_nothing", "_validator", "schema", "where")

    def __init__(self, annotation: Any, where: str) -> None:
        self.where = where
        self._nothing = annotation is None or annotation is type(None)
        if annotation is None:
            annotation = type(None)
        self._any = annotation is Any
        self.schema = adapt(_core_schema(annotation, f"{where} returns"), f"{where} returns")
        self._validator = _compile(self.schema)

    def check(self, value: Any, tables: Any) -> Any:
        """``value`` if it fits.

        Raises:
            ReturnsError: it does not; names the function, the path and the reason.
        """
        if self._any:
            return value
        try:
            return self._validator.validate_python(value, strict=True, context=tables)
        except ValidationError as error:
            raise ReturnsError(f"{self.where} returned what its annotation does not allow. " + "; ".join(reasons(error)[:5])) from None

    def encode(self, value: Any, tables: Any, limit_bytes: int) -> bytes:
        """The JSON text of a result.

        Raises:
            ReturnsError: it does not fit the annotation, is not a value of the wire, or is larger than ``limit_bytes``.
        """
        if value is None and self._nothing:
            return b"null"  # as most mutations do
        checked = self.check(value, tables)
        try:
            text = codec.to_json(checked)
        except ValueFormatError as error:
            raise ReturnsError(f"{self.where} returned something that is not a value: {error}") from None
        if len(text) > limit_bytes:
            raise ReturnsError(
                f"{self.where} returned {len(text)} bytes, at most {limit_bytes} fit. Return less, or page by page.", code="ResultTooLarge"
            )
        return text

    def load(self, json: bytes, tables: Any) -> Any:
        """The typed value of a result's JSON text.

        Raises:
            ReturnsError: it does not fit.
        """
        try:
            return self._validator.validate_json(json, strict=True, context=tables, by_alias=True, by_name=False)
        except ValidationError as error:
            raise ReturnsError(f"{self.where} returned what its annotation does not allow. " + "; ".join(reasons(error)[:5])) from None

    def describe(self, tables: Any) -> dict[str, Any]:
        """The validator in the wire's description."""
        return describe(self.schema, tables)


class ArgsValidator:
    """Checks the arguments of a function against its signature.

    Args:
        where: the function's path, for messages.
        parameters: annotation by name, in order, without ``ctx``.
        required: the names without a default.
    """

    __slots__ = ("_names", "_validator", "schema", "where")

    def __init__(self, where: str, parameters: Mapping[str, Any], required: frozenset[str]) -> None:
        self.where = where
        self._names: dict[str, str] = {}
        fields: dict[str, core_schema.TypedDictField] = {}
        for name, annotation in parameters.items():
            wire = "paginationOpts" if annotation is PaginationOptions else name
            self._names[name] = wire
            schema = adapt(_core_schema(annotation, f"{where}, argument {name!r}"), f"{where}, argument {name!r}")
            fields[name] = core_schema.typed_dict_field(schema, required=name in required, validation_alias=wire)
        self.schema: Any = core_schema.typed_dict_schema(fields, extra_behavior="forbid")
        self._validator = _compile(self.schema)

    def load(self, json: bytes | str, tables: Any) -> dict[str, Any]:
        """The keyword arguments of a call.

        Args:
            json: one object, in the wire's encoding.

        Raises:
            ArgumentError: it does not fit; names the function, the argument and the reason.
        """
        try:
            arguments: dict[str, Any] = self._validator.validate_json(json, strict=True, context=tables, by_alias=True, by_name=False)
        except ValidationError as error:
            raise ArgumentError(f"{self.where} was called with arguments that do not fit. " + "; ".join(self._reasons(error)[:5])) from None
        return arguments

    def to_json(self, arguments: Mapping[str, Any]) -> bytes:
        """The JSON text of a call made in Python, by keyword.

        Raises:
            ArgumentError: an argument is not a value.
        """
        encoded = {}
        for name, value in arguments.items():
            try:
                encoded[self._names.get(name, name)] = to_value(value)
            except ValueFormatError as error:
                raise ArgumentError(f"{self.where}, argument {name!r}: {error}") from None
        try:
            return codec.to_json(encoded)
        except ValueFormatError as error:
            raise ArgumentError(f"{self.where} was called with arguments that are not values: {error}") from None

    def describe(self, tables: Any) -> dict[str, Any]:
        """The validator in the wire's description."""
        return describe(self.schema, tables)

    def _reasons(self, error: ValidationError) -> list[str]:
        texts = []
        for text in reasons(error):
            name, _, reason = text.partition(": ")
            nested = "." in name or "[" in name
            if reason.startswith("Extra inputs are not permitted") and not nested:
                expected = ", ".join(self._names.values()) or "none"
                texts.append(f"There is no argument {name!r}; it takes: {expected}")
            elif reason.startswith("Field required") and not nested:
                texts.append(f"The argument {name!r} is missing")
            else:
                texts.append(f"Argument {text}" if reason else f"Arguments are one object by name: {text}")
        return texts


# --- descriptions


def describe(schema: Any, tables: Any, definitions: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A core schema in the wire's description of validators. What it cannot say is ``any``."""
    kind = schema["type"]
    metadata = schema.get("metadata") or {}
    if "reactor_id" in metadata:
        target = metadata["reactor_id"]
        return {"type": "string"} if target is None else {"type": "id", "tableName": tables.table_named_by(target)}
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    if kind == "definitions":
        return describe(schema["schema"], tables, {item["ref"]: item for item in schema["definitions"]})
    if kind == "definition-ref":
        definition = (definitions or {}).get(schema["schema_ref"])
        remaining = {ref: item for ref, item in (definitions or {}).items() if ref != schema["schema_ref"]}
        return {"type": "any"} if definition is None else describe(definition, tables, remaining)
    if kind == "json-or-python":
        return describe(schema["json_schema"], tables, definitions)
    if kind == "literal":
        return _union([{"type": "literal", "value": value} for value in schema["expected"]])
    if kind == "nullable":
        return _union([describe(schema["schema"], tables, definitions), {"type": "null"}])
    if kind == "union":
        members = [member[0] if isinstance(member, tuple) else member for member in schema["choices"]]
        return _union([describe(m, tables, definitions) for m in members if not (m.get("metadata") or {}).get("reactor_absent")])
    if kind == "tagged-union":
        return _union([describe(member, tables, definitions) for member in schema["choices"].values()])
    if kind in ("list", "tuple"):
        items = schema.get("items_schema")
        return {"type": "array", "value": describe(items, tables, definitions) if isinstance(items, dict) else {"type": "any"}}
    if kind == "dict":
        values = describe(schema["values_schema"], tables, definitions) if "values_schema" in schema else {"type": "any"}
        return {"type": "record", "keys": {"type": "string"}, "values": {"fieldType": values, "optional": False}}
    if kind in ("model-fields", "typed-dict", "dataclass-args"):
        return {"type": "object", "value": _fields(schema, tables, definitions)}
    inner = schema.get("schema")
    if isinstance(inner, dict):
        return describe(inner, tables, definitions)
    return {"type": "null" if metadata.get("reactor_absent") else _PLAIN.get(metadata.get("reactor_value", ""), "any")}


_SIMPLE = {"none": "null", "float": "number", "int": "number", "bool": "boolean", "str": "string", "bytes": "bytes", "any": "any"}
_PLAIN = {"int64": "bigint"}


def _union(members: list[dict[str, Any]]) -> dict[str, Any]:
    flat: list[dict[str, Any]] = []
    for member in members:
        for part in member["value"] if member["type"] == "union" else [member]:
            if part not in flat:
                flat.append(part)
    return flat[0] if len(flat) == 1 else {"type": "union", "value": flat}


def _fields(schema: Any, tables: Any, definitions: Mapping[str, Any] | None) -> dict[str, Any]:
    fields = schema["fields"]
    named = fields.items() if isinstance(fields, dict) else [(field["name"], field) for field in fields]
    described = {}
    for name, field in named:
        alias = field.get("validation_alias")
        inner = field["schema"]
        optional = inner["type"] == "default" or field.get("required") is False
        described[alias if isinstance(alias, str) else name] = {"fieldType": describe(inner, tables, definitions), "optional": optional}
    return described
