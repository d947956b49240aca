"""The tables of one schema."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType, ModuleType
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from reactor.errors import SchemaError, place
from reactor.limits import DEFAULT_LIMITS
from reactor.schema import validators
from reactor.schema.document import Document, Plan, plan_of
from reactor.schema.index import BoundIndex, Index
from reactor.schema.system import Access
from reactor.values import codec
from reactor.values.order import MISSING, encode_key, split_key

__all__ = ["Catalog", "IndexDef", "Table"]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLAIN = (str, float, bool, type(None))
_RESERVED = ("by_creation_time", "by_id")


class IndexDef:
    """An index of a table, as the engine and the stores know it.

    Attributes:
        fields: dotted paths by wire name, without the implicit creation time and id.
        position: in ``Table.indexes``; −1 for ``by_id``, whose keys are the ids themselves.
        ref: names the index in read sets.
    """

    __slots__ = ("fields", "name", "paths", "position", "ref", "table")

    def __init__(self, table: str, name: str, fields: tuple[str, ...], position: int) -> None:
        self.table = table
        self.name = name
        self.fields = fields
        self.position = position
        self.ref = sys.intern(f"{table}.{name}")
        self.paths = tuple(tuple(field.split(".")) for field in fields)

    def __repr__(self) -> str:
        return f"IndexDef({self.ref}: {', '.join(self.fields)})"


class Table:
    """A table of a schema.

    Attributes:
        number: in the ids of its documents; 0 until the catalog is bound to a database.
        indexes: ``by_creation_time``, then the declared ones by name.
        refs: of all indexes, ``by_id`` included.
        indexed: the wire names of the fields that any of them has, or has a part of.
        readable, writable: by functions, through ``ctx.db``.
        shape: a description that changes exactly when what fits the table may change.
    """

    __slots__ = (
        "_by_name",
        "_tables",
        "by_id",
        "document",
        "indexed",
        "indexes",
        "name",
        "number",
        "readable",
        "refs",
        "shape",
        "writable",
    )

    def __init__(
        self, name: str, document: type[Document], indexes: Mapping[str, tuple[str, ...]], tables: Catalog, access: Access = "write"
    ) -> None:
        self.name = name
        self.readable = access != "none"
        self.writable = access == "write"
        self.number = 0
        self.document = document
        named = [("by_creation_time", ()), *sorted(indexes.items())]
        self.indexes = tuple(IndexDef(name, index, fields, at) for at, (index, fields) in enumerate(named))
        self.indexed = frozenset(path[0] for index in self.indexes for path in index.paths)
        self.by_id = IndexDef(name, "by_id", (), -1)
        self.shape = ""
        self._by_name = {index.name: index for index in (*self.indexes, self.by_id)}
        self.refs = frozenset(index.ref for index in self._by_name.values())
        self._tables = tables

    def __repr__(self) -> str:
        return f"Table({self.name})"

    def index(self, name: str) -> IndexDef:
        """The index with this name, ``by_creation_time`` and ``by_id`` included."""
        return self._by_name[name]

    def keys(self, fields: Mapping[str, Any], creation_time: float, id: str) -> tuple[bytes, ...]:
        """A document's keys in ``indexes``, in that order.

        Args:
            fields: its values by wire name.
        """
        tail = encode_key(creation_time) + id.encode()
        keys: list[bytes] = []
        for index in self.indexes:
            key = b""
            for path in index.paths:
                key += encode_key(fields.get(path[0], MISSING) if len(path) == 1 else _at(fields, path))
            keys.append(key + tail)
        return tuple(keys)

    def keys_of_json(self, json: str) -> tuple[bytes, ...]:
        """The keys of a stored document."""
        return self.keys_of(orjson.loads(json))

    def keys_of(self, encoded: Mapping[str, Any]) -> tuple[bytes, ...]:
        """The keys of a document in the wire's encoding, system fields included."""
        fields = {name: value if type(value) in _PLAIN else codec.decode(value) for name, value in encoded.items() if name in self.indexed}
        return self.keys(fields, encoded["_creationTime"], encoded["_id"])

    def prefixes(self, position: int, key: bytes) -> tuple[bytes, ...]:
        """The equality prefixes that ``key`` of the index at ``position`` falls under: of no field, the first, the first two …

        The last is that of all fields and the creation time.
        """
        count = len(self.indexes[position].paths) + 1
        return _recent_prefixes(key, count) if len(key) <= _SHORT else _prefixes(key, count)

    def check_json(self, json: str) -> None:
        """Check a stored document against the table.

        Raises:
            SchemaError: it does not fit; names the document and the reason.
        """
        try:
            self.document.from_row(json, self._tables)
        except ValidationError as error:
            id = orjson.loads(json).get("_id")
            why = "; ".join(validators.reasons(error)[:5])
            raise SchemaError(
                f"Document {id} in table {self.name!r} does not fit the schema: {why}. Change the schema, or the document first."
            ) from None


def _prefixes(key: bytes, count: int) -> tuple[bytes, ...]:
    return (b"", *[key[:end] for end in split_key(key, count)])


#: Each key that is written is looked up by its prefixes several times within a moment.
_recent_prefixes = lru_cache(maxsize=1024)(_prefixes)
_SHORT = 512


def _at(fields: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        if not isinstance(fields, dict):
            return MISSING
        fields = fields.get(step, MISSING)
    return fields


class Catalog:
    """The tables of one schema. Made by ``of``; bound once to a database's table numbers."""

    __slots__ = ("_by_class_name", "_by_number", "by_class", "by_number", "numbers", "tables")

    def __init__(self) -> None:
        self.tables: Mapping[str, Table] = MappingProxyType({})
        self._by_number: dict[int, str] = {}
        self.by_number: dict[int, Table] = {}  # the schema's own, by their number in ids
        self.by_class: dict[type[Document], Table] = {}
        self._by_class_name: dict[str, str] = {}
        self.numbers: dict[Any, int] = {}  # see ``values.ids.Tables``

    @classmethod
    def of(cls, namespace: ModuleType | Mapping[str, Any], system: Mapping[type[Document], Access] = MappingProxyType({})) -> Catalog:
        """The catalog of all documents with a table that stand in ``namespace``, and of the system's own.

        Args:
            system: ``reactor.schema.system.SYSTEM``, where functions are to run.

        Raises:
            SchemaError: the schema cannot be used; says where and what to do.
        """
        names = vars(namespace) if isinstance(namespace, ModuleType) else namespace
        # The system's first: a class of the schema that has the same name is what the schema's annotations mean.
        documents = {id(document): document for document in system}
        documents |= {
            id(value): value
            for value in names.values()
            if isinstance(value, type) and issubclass(value, Document) and value is not Document
        }
        catalog = cls()
        tables: dict[str, Table] = {}
        for document in documents.values():
            where = _where(document)
            name = document.__table__ if document in system else _table_name(document, where)
            if name is None:
                continue
            if name in tables:
                other = _where(tables[name].document)
                raise SchemaError(f"{where}: table {name!r} is declared a second time; first in {other}. Give one of them another name.")
            _complete(document, {**names, **{d.__name__: d for d in documents.values()}}, where)
            tables[name] = Table(name, document, _indexes(document, where), catalog, system.get(document, "write"))
            catalog._by_class_name[document.__name__] = name
        if len(tables) - len(system) > DEFAULT_LIMITS.tables:
            raise SchemaError(f"A schema has at most {DEFAULT_LIMITS.tables} tables, this one has {len(tables) - len(system)}.")
        catalog.tables = MappingProxyType(tables)
        catalog.by_class = {table.document: table for table in tables.values()}
        for table in tables.values():
            try:
                table.shape = _shape(table.document, catalog)
            except SchemaError as error:
                raise SchemaError(f"{_where(table.document)}: {error}") from None
        return catalog

    def bind(self, numbers: Mapping[str, int]) -> None:
        """Give the tables their numbers in one database.

        Args:
            numbers: by table name; may hold other tables too, whose ids are then told apart.
        """
        for name, table in self.tables.items():
            table.number = numbers[name]
        self.numbers.clear()
        self._by_number = {number: name for name, number in numbers.items()}
        self.by_number = {table.number: table for table in self.tables.values()}

    def table(self, of: type[Document] | str) -> Table:
        """The table of a document class, or with this name.

        Raises:
            SchemaError: the schema has no such table.
        """
        name = of if isinstance(of, str) else getattr(of, "__table__", None)
        found = self.tables.get(name) if isinstance(name, str) else None
        if found is None:
            if isinstance(of, Index | BoundIndex):
                raise SchemaError(f"{of!r} is an index. Call it with the values to look for: {of!r}(…).", code="InvalidTableName")
            if not isinstance(of, str | type) or not (isinstance(of, str) or issubclass(of, Document)):
                kind = of if isinstance(of, type) else type(of)
                raise SchemaError(
                    f"Expected a class of documents, or a document made with one, got {kind.__name__}. "
                    "Read with query(Message), write with insert(Message(…)).",
                    code="InvalidTableName",
                )
            how = "" if isinstance(of, str) else f": from {of.__module__} import {of.__name__}"
            raise SchemaError(
                f"The schema has no table for {of!r}. Declare it in schema.py, or import it there{how}", code="InvalidTableName"
            )
        return found

    def table_of_number(self, number: int) -> str | None:
        """The name of the table with this number in ids, or None."""
        return self._by_number.get(number)

    def table_named_by(self, reference: Any) -> str:
        """The table that ``Id[reference]`` points to: a document class or its name.

        Raises:
            SchemaError: there is none.
        """
        name = self._by_class_name.get(reference) if isinstance(reference, str) else getattr(reference, "__table__", None)
        if not isinstance(name, str) or name not in self.tables:
            shown = reference if isinstance(reference, str) else getattr(reference, "__name__", repr(reference))
            raise SchemaError(f"Id[{shown}]: {shown} is not a document with a table in schema.py. Declare it there, or import it there.")
        return name


def _where(document: type[Document]) -> str:
    try:
        return f"{place(inspect.getsourcefile(document), inspect.getsourcelines(document)[1])}, class {document.__name__}"
    except (OSError, TypeError):
        return f"class {document.__name__}"


def _table_name(document: type[Document], where: str) -> str | None:
    name = document.__table__
    if name is None:
        if any(isinstance(value, Index) for value in vars(document).values()):
            raise SchemaError(f'{where} has indexes but no table. Write class {document.__name__}(Document, table="…").')
        if document.__subclasses__():
            return None
        raise SchemaError(
            f'{where} has no table. Write class {document.__name__}(Document, table="…"); for a nested object use pydantic\'s BaseModel.'
        )
    _check_identifier(name, f"{where}: the table name")
    if name.startswith("_"):
        raise SchemaError(
            f"{where}: the table name {name!r} begins with '_', which is kept for the system's own tables.", code="TableNameReserved"
        )
    return name


def _check_identifier(name: str, what: str) -> None:
    if len(name) > DEFAULT_LIMITS.identifier_chars or not _IDENTIFIER.match(name) or not name.strip("_"):
        raise SchemaError(
            f"{what} {name!r} is not an identifier: ASCII letters, digits and '_', not beginning with a digit, at most "
            f"{DEFAULT_LIMITS.identifier_chars} characters."
        )


def _complete(document: type[Document], names: Mapping[str, Any], where: str) -> None:
    """Resolve what the class's annotations refer to, and check its fields."""
    try:
        document.model_rebuild(_types_namespace=dict(names))
    except PydanticUndefinedAnnotation as error:
        raise SchemaError(f"{where}: the name {error.name!r} in an annotation is not defined. Import it in schema.py.") from error
    except PydanticUserError as error:
        raise SchemaError(f"{where}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # evaluating an annotation runs code of the app's
        raise SchemaError(
            f"{where}: an annotation cannot be evaluated: {type(error).__name__}: {error}. Write types that Python finds in schema.py."
        ) from error
    plan = plan_of(document)
    type.__setattr__(document, "__plan__", plan)
    for name in document.__private_attributes__:
        raise SchemaError(
            f"{where}: the field name {name!r} begins with '_', which is kept for system fields.", code="SchemaDefinitionError"
        )
    for name, field in document.__pydantic_fields__.items():
        wire = plan.wire_names[name]
        if name in ("id", "creation_time", *_RESERVED):
            raise SchemaError(
                f"{where}: the field name {name!r} is every document's own. Choose another, or Field(alias={name!r}) on another name."
            )
        if isinstance(field.default, BoundIndex):
            raise SchemaError(f"{where}: {name!r} is a field and an index. Give the index another name, and no annotation.")
        if field.validation_alias is not None and not isinstance(field.validation_alias, str):
            raise SchemaError(f'{where}, field {name!r}: a field has one name on the wire. Write Field(alias="…").')
        if list(plan.wire_names.values()).count(wire) > 1:
            raise SchemaError(f"{where}: two fields have the name {wire!r} on the wire. Give one of them another alias.")
        _check_identifier(wire, f"{where}: the field name")
        if wire.startswith("_"):
            raise SchemaError(
                f"{where}: the field name {wire!r} begins with '_', which is kept for system fields.", code="SchemaDefinitionError"
            )
    schema = validators.row_schema(document, where)
    plan.plain = validators.plain_fields(schema)
    type.__setattr__(document, "__pydantic_validator__", validators.constructor(schema))


def _assigned_twice(document: type[Document]) -> set[str]:
    """The names that a class's body gives a value more than once. Python keeps the last, so only the text tells."""
    try:
        text = ast.parse(textwrap.dedent(inspect.getsource(document))).body
    except (OSError, TypeError, SyntaxError):
        return set()  # no text, as in a console
    assigned = Counter(
        target.id
        for body in text
        if isinstance(body, ast.ClassDef)
        for statement in body.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    )
    return {name for name, times in assigned.items() if times > 1}


def _indexes(document: type[Document], where: str) -> dict[str, tuple[str, ...]]:
    """The declared indexes of a class and its bases, by name, with wire paths."""
    declared: dict[str, Index] = {}
    for base in reversed(document.__mro__):
        if issubclass(base, Document) and base is not Document:
            for name, value in vars(base).items():
                if isinstance(value, Index):
                    declared[name] = value
            for name in _assigned_twice(base) & declared.keys():
                raise SchemaError(f"{where}: {name!r} is declared twice. Rename one of the indexes.", code="IndexNamesNotUnique")
    limits = DEFAULT_LIMITS
    if len(declared) > limits.indexes_per_table:
        raise SchemaError(f"{where} has {len(declared)} indexes, more than {limits.indexes_per_table}.", code="TooManyIndexes")
    by_fields: dict[tuple[str, ...], str] = {}
    for name, index in declared.items():
        at = f"{where}, index {name!r}"
        if name in _RESERVED or name.startswith("_"):
            raise SchemaError(f"{at}: this name is reserved. Choose another.", code="IndexNameReserved")
        _check_identifier(name, f"{where}: the index name")
        _check_fields(index, document.__plan__, at)
        paths = tuple(map(document.__plan__.wire_path, index.fields))
        if paths in by_fields:
            raise SchemaError(f"{at} has the same fields as {by_fields[paths]!r}. Remove one of them.", code="IndexNotUnique")
        by_fields[paths] = name
    return {name: tuple(map(document.__plan__.wire_path, index.fields)) for name, index in declared.items()}


def _check_fields(index: Index, plan: Plan, at: str) -> None:
    if not index.fields:
        raise SchemaError(f"{at} has no fields. Every table has by_creation_time already.", code="EmptyIndex")
    if len(index.fields) > DEFAULT_LIMITS.fields_per_index:
        raise SchemaError(f"{at} has {len(index.fields)} fields, more than {DEFAULT_LIMITS.fields_per_index}.", code="IndexTooManyFields")
    for field in index.fields:
        if not isinstance(field, str):
            raise SchemaError(f'{at}: {field!r} is not a field name. Write Index("name", …).', code="InvalidIndexField")
        if [other.replace(".", "__") for other in index.fields].count(field.replace(".", "__")) > 1:
            raise SchemaError(f"{at} names the field {field!r} twice.", code="FieldsNotUniqueWithinIndex")
        head = field.partition(".")[0]
        if head in ("creation_time", "_creationTime", "id", "_id"):
            raise SchemaError(
                f"{at} names {field!r}, which is part of every index already. Leave it out.", code="IndexFieldsContainCreationTime"
            )
        if not all(field.split(".")) or not plan.has(field):
            known = ", ".join(plan.wire_names)
            raise SchemaError(f"{at}: there is no field {field!r}. The fields are: {known}.", code="InvalidIndexField")


def _shape(document: type[Document], catalog: Catalog) -> str:
    return orjson.dumps(_fitting(validators.row_schema(document), catalog), option=orjson.OPT_SORT_KEYS, default=_named).decode()


def _fitting(schema: Any, catalog: Catalog) -> Any:
    """The part of a core schema that decides what fits."""
    if isinstance(schema, dict):
        target = (schema.get("metadata") or {}).get("reactor_id") if isinstance(schema.get("metadata"), dict) else None
        kept = {str(key): _fitting(value, catalog) for key, value in schema.items() if key not in _NOT_FITTING}
        return kept | {"table": catalog.table_named_by(target)} if target is not None else kept
    if isinstance(schema, list | tuple):
        return [_fitting(item, catalog) for item in schema]
    return schema


_NOT_FITTING = frozenset(
    ("metadata", "serialization", "config", "ref", "schema_ref", "default", "default_factory", "cls", "model_name", "computed_fields")
)


def _named(value: Any) -> str:
    """User functions in a schema, by name: their text is not compared."""
    return getattr(value, "__qualname__", None) or repr(value)
