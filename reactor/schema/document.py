"""Documents: what users declare, and how one is read from and brought to the wire's form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from operator import attrgetter, itemgetter
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self, Union, final, get_args, get_origin

import orjson
from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from pydantic_core import SchemaValidator, core_schema

from reactor.errors import ReactorError, ValueFormatError
from reactor.schema.index import Index
from reactor.values import codec
from reactor.values.codec import Int64, Value
from reactor.values.ids import Id
from reactor.values.order import MISSING

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

__all__ = ["ABSENT", "Absent", "Document", "Plan", "to_value", "wire_fields"]


@final
class Absent:
    """The type of ``ABSENT``. In ``x: T | None | Absent = ABSENT`` null and absence are told apart."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "ABSENT"  # which copies and pickles to itself

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(cls, metadata={"reactor_absent": True})


#: A field that is not there.
ABSENT: Final = Absent()


#: Sets of fields of documents of one class that are held for all who have them. There are more only where many may be absent.
FIELD_SETS = 1000


class Plan:
    """How the fields of a model class or dataclass are named on the wire, and which are left out there.

    A field declared with the default None is absent where it is None; one whose value is ``ABSENT`` is absent.

    Attributes:
        plain: of a table's class, see ``reactor.schema.validators.plain_fields``.
    """

    __slots__ = ("_common", "_field_sets", "fields", "model", "optional", "plain", "shareable", "types", "wire_names")

    def __init__(self, model: type) -> None:
        self.model = model
        self._field_sets: dict[frozenset[str], set[str]] = {}
        self._common: set[str] = set()  # the one of these that was needed last
        self.plain: Mapping[str, type] = {}
        self.wire_names: dict[str, str] = {}
        self.optional: set[str] = set()
        self.types: dict[str, Any] = {}
        for name, declared in _declared(model).items():
            alias = declared.validation_alias
            self.wire_names[name] = alias if isinstance(alias, str) else name
            self.types[name] = declared.annotation
            if declared.default is None:
                self.optional.add(name)
        self.fields = tuple((name, wire, name in self.optional) for name, wire in self.wire_names.items())
        #: Whether an instance that was read can be given to several functions: nothing in it can be changed.
        self.shareable = all(map(_unchangeable, self.types.values())) and not (
            getattr(model, "__private_attributes__", None)
            or any(isinstance(value, cached_property) for base in model.__mro__ for value in vars(base).values())
        )

    def shared(self, document: Document, id: str) -> Document:
        """``document``, which was read and is shareable, made smaller, as it may be kept for long: its id is the text that the row has,
        and its set of fields, which takes more room than the fields, that of all documents with the same ones.
        """
        document.__dict__["_id"] = id
        mine, known = document.__pydantic_fields_set__, self._common
        if mine != known:
            sets = self._field_sets
            found = frozenset(mine)
            if found not in sets and len(sets) >= FIELD_SETS:
                return document
            known = self._common = sets.setdefault(found, mine)
        object.__setattr__(document, "__pydantic_fields_set__", known)
        return document

    def changed(self, document: Document, fields: Mapping[str, Any], json: str) -> Document:
        """What reading ``json`` gives, in a third of the time.

        Args:
            document: read and shareable. ``json`` is its text but for ``fields``, all plain, which it has too.
        """
        made: Document = object.__new__(type(document))
        _set_dict(made, {**document.__dict__, **fields, "_json": json})
        _set_fields_set(made, document.__pydantic_fields_set__)
        _set_extra(made, None)
        _set_private(made, None)
        return made

    def wire_path(self, path: str) -> str:
        """A dotted path of field names as wire names. Names past the first that no model declares stand as they are."""
        head, dot, rest = path.partition(".")
        wire = self.wire_names.get(head, head)
        if not dot:
            return wire
        inner = _model_in(self.types.get(head))
        return f"{wire}.{plan_of(inner).wire_path(rest) if inner is not None else rest}"

    def has(self, path: str) -> bool:
        """Whether a document may have a value at a dotted path of field names."""
        head, _, rest = path.partition(".")
        if head not in self.wire_names:
            return False
        kinds = [kind for kind in _members(self.types[head]) if kind not in (type(None), Absent)]
        return not rest or any(not _is_model(kind) or plan_of(kind).has(rest) for kind in kinds)

    def bound_value(self, keyword: str, value: Any) -> Any:
        """The value that an index bound stands for: None is absence where the field says so."""
        head, _, rest = keyword.partition("__")
        name = keyword if keyword in self.wire_names or not rest else head
        if value is ABSENT or (value is None and name == keyword and name in self.optional):
            return MISSING
        if rest and name == head and (inner := _model_in(self.types.get(head))) is not None:
            return plan_of(inner).bound_value(rest, value)
        declared = self.types.get(name)
        if isinstance(value, int) and not isinstance(value, bool | Int64) and _only_int64(declared):
            raise ValueFormatError(f"the field is an Int64, which no float or int equals. Use Int64({value})")
        return to_value(value)


#: What a model consists of, set without asking its class whether it may be.
_set_dict, _set_fields_set, _set_extra, _set_private = (
    vars(BaseModel)[name].__set__ for name in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
)

_UNCHANGEABLE = (str, float, int, bool, bytes, Int64, Id, None, type(None), Absent)

_plans: dict[type, Plan] = {}


def plan_of(model: type) -> Plan:
    """The plan of a complete model class or dataclass."""
    plan = _plans.get(model)
    if plan is None:
        plan = _plans[model] = Plan(model)
    return plan


def _declared(model: Any) -> Mapping[str, FieldInfo]:
    found: Mapping[str, FieldInfo] | None = getattr(model, "__pydantic_fields__", None)
    if found is not None:
        return found
    return {
        field.name: field.default if isinstance(field.default, FieldInfo) else FieldInfo(default=field.default)
        for field in dataclasses.fields(model)
    }


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _model_in(annotation: Any) -> type | None:
    return next(filter(_is_model, _members(annotation)), None)


def _unchangeable(annotation: Any) -> bool:
    if get_origin(annotation) is Literal or annotation in _UNCHANGEABLE:
        return True
    if get_origin(annotation) is Annotated:
        return _unchangeable(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return all(map(_unchangeable, get_args(annotation)))
    return get_origin(annotation) is Id


def _only_int64(annotation: Any) -> bool:
    kinds = [kind for kind in (get_args(annotation) or (annotation,)) if kind not in (type(None), Absent)]
    return bool(kinds) and all(kind is Int64 for kind in kinds)


def wire_fields(model: BaseModel) -> dict[str, Value]:
    """The fields of a document or nested model as values by wire name; absent ones left out, system fields not included.

    Raises:
        ValueFormatError: a field holds something that is not a value.
    """
    fields = model.__dict__
    values: dict[str, Value] = {}
    for name, wire, optional in plan_of(type(model)).fields:
        value = fields[name]
        if (value is None and optional) or value is ABSENT:
            continue
        kind = type(value)
        if kind is str or kind is float or kind is bool or value is None:
            values[wire] = value
        else:
            _put(values, wire, value)
    return values


def to_value(value: Any) -> Value:
    """A typed Python value (documents, models, dataclasses, ids inside) as a plain one.

    Raises:
        ValueFormatError: something that is not a value.
    """
    if value is None or isinstance(value, bool | float | bytes | Int64):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return codec.decode(codec.encode(value))
    if isinstance(value, list | tuple):
        return _items(value)
    if isinstance(value, Mapping):
        return _fields(value)
    if isinstance(value, Document):
        return value.__system_fields__() | wire_fields(value)
    if isinstance(value, BaseModel):
        return wire_fields(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _dataclass_fields(value)
    raise codec.not_a_value(type(value))


def _dataclass_fields(value: Any) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, wire, optional in plan_of(type(value)).fields:
        item = getattr(value, name)
        if item is not ABSENT and not (item is None and optional):
            _put(values, wire, item)
    return values


def _items(values: Iterable[Any]) -> list[Value]:
    items: list[Value] = []
    for item in values:
        try:
            items.append(to_value(item))
        except ValueFormatError as error:
            raise codec.inside(error, f"[{len(items)}]") from None
    return items


def _fields(values: Mapping[Any, Any]) -> dict[str, Value]:
    fields: dict[str, Value] = {}
    for name, item in values.items():
        codec.check_name(name)
        if item is not ABSENT:
            _put(fields, str.__str__(name), item)
    return fields


def _put(fields: dict[str, Value], name: str, item: Any) -> None:
    try:
        fields[name] = to_value(item)
    except ValueFormatError as error:
        raise codec.inside(error, f".{name}") from None


class Document(BaseModel):
    """A document of a table: ``class Message(Document, table="messages")``.

    Fields are pydantic's; documents are frozen. Indexes are class attributes: ``by_channel = Index("channel")``.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, ignored_types=(Index,), strict=False, defer_build=False
    )

    __table__: ClassVar[str | None] = None
    __loader__: ClassVar[SchemaValidator | None] = None

    by_creation_time: ClassVar[Index] = Index()
    by_id: ClassVar[Index] = Index()

    def __init_subclass__(cls, *, table: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__table__ = table
        cls.__loader__ = None

    if TYPE_CHECKING:
        __plan__: ClassVar[Plan]

    @property
    def id(self) -> Id[Self]:
        """The document's id.

        Raises:
            ReactorError: the document is not inserted yet.
        """
        try:
            id: Id[Self] = self.__dict__["_id"]
        except KeyError:
            raise _not_inserted(self, "an id") from None
        return id

    @property
    def creation_time(self) -> float:
        """When the document was inserted, ms since the epoch.

        Raises:
            ReactorError: the document is not inserted yet.
        """
        try:
            time: float = self.__dict__["_creationTime"]
        except KeyError:
            raise _not_inserted(self, "a creation time") from None
        return time

    def __system_fields__(self) -> dict[str, Value]:
        """``_id`` and ``_creationTime`` as values, for a document that was read."""
        fields = self.__dict__
        return {"_id": str.__str__(fields["_id"]), "_creationTime": fields["_creationTime"]} if "_id" in fields else {}

    @classmethod
    def from_row(cls, json: str, tables: Any) -> Self:
        """The document of a stored row. It keeps the row's text, so that a result can repeat it as it stands.

        Args:
            json: the whole document in the wire's encoding, system fields included.
            tables: the catalog that ids are checked against.

        Raises:
            pydantic.ValidationError: the row does not fit the class.
        """
        document: Self = loader_of(cls).validate_json(json, context=tables, by_alias=True, by_name=False)
        document.__dict__["_json"] = json
        return document

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied.__dict__.pop("_json", None)
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        copied = super().__deepcopy__(memo)
        copied.__dict__.pop("_json", None)
        return copied

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine, theirs = self.__dict__, other.__dict__
        return mine.get("_id") == theirs.get("_id") and all(mine[name] == theirs[name] for name in type(self).__pydantic_fields__)

    def __hash__(self) -> int:
        return hash(self.__dict__.get("_id", id(self)))


def _not_inserted(document: Document, what: str) -> ReactorError:
    return ReactorError(f"This {type(document).__name__} has not {what} yet: it was made, not read. ctx.db.insert gives it.")


def loader_of(document: type[Document]) -> SchemaValidator:
    """What reads stored rows of ``document``."""
    loader = document.__dict__.get("__loader__")
    if loader is None:
        # Here and not above: validators know documents.
        from reactor.schema.validators import row_loader

        loader = row_loader(document)
        type.__setattr__(document, "__loader__", loader)
    return loader


def _encode_document(document: Document, depth: int) -> object:
    json = document.__dict__.get("_json")
    if json is not None:
        return orjson.Fragment(json)
    return codec.encode(document.__system_fields__() | wire_fields(document), depth)


def _encode_documents(documents: list[Document]) -> list[object] | None:
    """The texts that the documents were read from; None if one of them was not."""
    try:
        return list(map(orjson.Fragment, map(_json_in, map(_fields_of, documents))))
    except KeyError:
        return None


_fields_of: Callable[[Document], dict[str, Any]] = attrgetter("__dict__")
_json_in: Callable[[dict[str, Any]], str] = itemgetter("_json")


def _encode_model(model: BaseModel, depth: int) -> object:
    return codec.encode(wire_fields(model), depth)


def _encode_other(value: object, depth: int) -> object:
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise codec.not_a_value(type(value))
    return codec.encode(_dataclass_fields(value), depth)


codec.register_encoder(Document, _encode_document, _encode_documents)
codec.register_encoder(BaseModel, _encode_model)
codec.register_encoder(object, _encode_other)
