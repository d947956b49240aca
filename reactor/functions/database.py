"""``ctx.db``: documents as a function reads and writes them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

import orjson
from msgspec import Struct
from pydantic import ValidationError

from reactor.engine.store import Row
from reactor.engine.transaction import Scan, Transaction
from reactor.errors import DocumentNotFound, IdError, LimitExceeded, QueryError, SchemaError, ValueFormatError
from reactor.functions.lacking import Lacking
from reactor.functions.pages import Pager
from reactor.limits import Limits
from reactor.schema.catalog import Catalog, Table
from reactor.schema.document import ABSENT, Document, to_value, wire_fields
from reactor.schema.index import IndexRange
from reactor.schema.pagination import PaginationOptions, PaginationResult
from reactor.schema.validators import reasons
from reactor.values import codec, ids
from reactor.values.ids import Id
from reactor.values.interval import FULL

if TYPE_CHECKING:
    from reactor.functions.function import Function

__all__ = ["DocumentQuery", "Reader", "View", "Writer", "holds", "missing", "system"]

D = TypeVar("D", bound=Document)
R = TypeVar("R", bound="Reader")
V = TypeVar("V")

_DAY_MS = 86_400_000.0
#: A scan of more rows is not put into the row cache: it would push out what is read again and again.
_SHARED_ROWS = 64


_TERMINALS = "Or end it with collect(), take(n), first(), unique(), count() or paginate(options), and await that."


class Reader:
    """Reads documents in the function's transaction. All reads of one run see one snapshot, and its own writes.

    Attributes:
        nested: held while a function that this one calls runs. What this one does meanwhile waits: it must not see, or be undone
            with, what the call writes.
    """

    __slots__ = ("_catalog", "_limits", "_pager", "_system", "_tx", "nested")

    if not TYPE_CHECKING:
        insert, patch, replace, delete = (
            Lacking("a query only reads. Declare the function with @mutation.", of="ctx.db") for _ in range(4)
        )

    def __init__(self, tx: Transaction, catalog: Catalog, limits: Limits, pager: Pager) -> None:
        self._tx = tx
        self._catalog = catalog
        self._limits = limits
        self._pager = pager
        self._system = False
        self.nested: asyncio.Lock | None = None  # made by the first call

    async def turn(self) -> None:
        """Wait until no nested call runs."""
        while self.nested is not None and self.nested.locked():
            async with self.nested:
                pass

    def check_open(self) -> None:
        """Raise ReactorError when the call that this belongs to is over."""
        self._tx.check_open()

    def close(self) -> None:
        """The call is over, though its transaction may go on."""
        self._tx = self._tx.ended()

    @overload
    async def get(self, id: Id[D], /) -> D | None: ...
    @overload
    async def get(self, document: type[D], id: str, /) -> D | None: ...
    async def get(self, document: Any, id: Any = None, /) -> Any:
        """The document with this id, or None.

        ``get(Message, text)`` takes an id as text and refuses one of another table.

        Raises:
            IdError: not an id, or one of another table.
            LimitExceeded: too many reads.
        """
        if self.nested is not None:
            await self.turn()
        expected = None
        if id is None:
            id = document
        else:
            expected = self._table(document)
        known = self._known_row(id)
        if known is not None and (expected is None or known[0] is expected):
            return self._document(*known)
        table = self._table_of(id, expected)
        row = None if table is None else await self._tx.get(table, id)
        return None if table is None or row is None else self._document(table, row)

    def query(self, source: type[D] | IndexRange[D], /) -> DocumentQuery[D]:
        """All documents of a class in creation order, or those in a range of one of its indexes.

        Raises:
            SchemaError: the class is no table of the schema.
        """
        if isinstance(source, IndexRange):
            return DocumentQuery(self, self._table(source.document), source)
        table = self._table(source)
        return DocumentQuery(self, table, IndexRange(source, "by_creation_time", (), FULL))

    def normalize_id(self, document: type[D], text: str) -> Id[D] | None:
        """``text`` as an id of this class's table, or None if it is not one. Whether the document exists is not looked at."""
        try:
            number = ids.table_number_of(text)
        except IdError:
            return None
        return Id(text) if number == self._table(document).number else None

    def result_to_json(self, function: Function[..., V], value: V, /) -> str:
        """A function's result as the text that clients get, to be kept in a document and read by ``result_from_json``.

        Raises:
            ReturnsError: it is none of the function's, or too large.
        """
        return function.returns.encode(value, self._catalog, self._limits.result_size_bytes).decode()

    def result_from_json(self, function: Function[..., V], text: str, /) -> V:
        """A result that ``result_to_json`` wrote.

        Raises:
            ReturnsError: the function gives others by now.
        """
        result: V = function.returns.load(text.encode(), self._catalog)
        return result

    def _table(self, document: type[Document]) -> Table:
        """The table of a class, if functions may know of it."""
        table = self._catalog.by_class.get(document) or self._catalog.table(document)
        if not (table.readable or self._system):
            raise SchemaError(f"Table {table.name!r} is reactor's own, and not for functions to read.", code="InvalidTableName")
        return table

    def _known_row(self, id: Any) -> tuple[Table, Row] | None:
        """The document with this id and its table, if no statement is needed to tell. What a document is known by is an id."""
        if type(id) is not str and type(id) is not Id:
            return None
        table = self._catalog.by_number.get(ids.table_number_at(id[:5]))
        if table is None or not (table.readable or self._system):
            return None
        row = self._tx.known_row(table, id)
        return None if row is None else (table, row)

    def _table_of(self, id: Any, expected: Table | None = None) -> Table | None:
        """The table that an id names; None when the schema does not have it."""
        if expected is None and (type(id) is str or type(id) is Id):
            table = self._catalog.by_number.get(ids.table_number_of(id))
            if table is not None and (table.readable or self._system):
                return table
        if not isinstance(id, str):
            raise IdError(f"Expected an id, got {type(id).__name__}. Ids are what insert returned and what documents have as .id.")
        number = ids.table_number_of(id)
        if expected is not None:
            if number != expected.number:
                found = self._catalog.table_of_number(number) or "unknown"
                raise IdError(f"Expected an id of table {expected.name!r}, got an id of table {found!r}.")
            return expected
        name = self._catalog.table_of_number(number)
        table = self._catalog.tables.get(name) if name is not None else None
        return table if table is None or table.readable or self._system else None

    def _document(self, table: Table, row: Row) -> Any:
        kind = table.document
        if type(row.document) is kind:
            return row.document
        try:
            document = kind.from_row(row.json, self._catalog)
        except ValidationError as error:
            raise SchemaError(
                f"Document {row.id} in table {table.name!r} does not fit the schema: {'; '.join(reasons(error)[:5])}."
            ) from None
        if kind.__plan__.shareable:
            row.document = kind.__plan__.shared(document, row.id)
        return document


class DocumentQuery(Struct, Generic[D], eq=False):
    """A query being built. ``order`` and ``filter`` refine it; one terminal runs it, once."""

    _reader: Reader
    _table: Table
    _range: IndexRange[D]
    _reverse: bool | None = None
    _filters: list[Callable[[D], bool]] = []
    _allows: Callable[[D], Awaitable[bool]] | None = None  # a rule's, which may read
    _state: Literal["open", "used"] = "open"

    def __repr__(self) -> str:
        return f"<query of {self._range.document.__name__}.{self._range.index}>"

    def order(self, order: Literal["asc", "desc"]) -> DocumentQuery[D]:
        """Ascending by the index's key, the default, or descending.

        Raises:
            QueryError: the order was set before, or is neither.
        """
        self._check_open()
        if order not in ("asc", "desc"):
            raise QueryError(f"order takes 'asc' or 'desc', not {order!r}.")
        if self._reverse is not None:
            raise QueryError("The order of this query was set before. Call order once.")
        self._reverse = order == "desc"
        return self

    def filter(self, predicate: Callable[[D], bool]) -> DocumentQuery[D]:
        """Keep the documents for which ``predicate`` returns True. Rejected documents count as read: prefer an index."""
        self._check_open()
        self._filters.append(predicate)
        return self

    async def collect(self) -> list[D]:
        """All documents.

        Raises:
            LimitExceeded: more than a function may read.
        """
        known = self._known(math.inf)
        if known is not None:
            return known
        if self._reader.nested is not None:
            await self._reader.turn()
        rows = await self._scan().rest()
        return await self._kept(rows) if self._filters or self._allows else self._documents(rows)

    async def take(self, n: int) -> list[D]:
        """The first ``n`` documents, or fewer if there are no more.

        Raises:
            QueryError: ``n`` is not a non-negative int.
            LimitExceeded: more than a function may read.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise QueryError(f"take takes a non-negative int, not {n!r}.")
        if self._reader.nested is not None:
            await self._reader.turn()
        known = self._known(n)
        if known is not None:
            return known
        scan = self._scan()
        found: list[D] = []
        while len(found) < n and not scan.exhausted:
            rows = await scan.next(n - len(found))
            found += await self._kept(rows) if self._filters or self._allows else self._documents(rows)
        return found

    async def first(self) -> D | None:
        """The first document, or None."""
        found = self._known(1)
        if found is None:
            found = await self.take(1)
        return found[0] if found else None

    async def unique(self) -> D | None:
        """The only document, or None if there is none.

        Raises:
            QueryError: there are two or more.
        """
        found = self._known(2)
        if found is None:
            found = await self.take(2)
        if len(found) > 1:
            raise QueryError(
                f"unique() found more than one document in table {self._table.name!r}: {found[0].id}, {found[1].id}, perhaps more. "
                "Use first(), or make sure of one when inserting.",
                code="NotUnique",
            )
        return found[0] if found else None

    async def count(self) -> int:
        """How many documents there are. Each counts as read.

        Raises:
            LimitExceeded: more than a function may read.
        """
        if self._reader.nested is not None:
            await self._reader.turn()
        scan = self._scan()
        if not (self._filters or self._allows):
            return await scan.count()
        return len(await self._kept(await scan.rest()))

    async def paginate(self, options: PaginationOptions) -> PaginationResult[D]:
        """One page.

        Raises:
            CursorError: a cursor that is not this query's; clients restart at the first page.
            QueryError: a second page in one function, or a number of items out of range.
        """
        reader = self._reader
        if reader.nested is not None:
            await reader.turn()
        self._use()
        return await reader._pager.page(reader._tx, reader._limits, self._table, self._range, bool(self._reverse), options, self._kept)

    if not TYPE_CHECKING:

        def __await__(self) -> Any:
            raise QueryError(f"{self!r} does not run by itself: async for. {_TERMINALS}")

        def __iter__(self) -> Any:
            raise QueryError(f"{self!r} does not run by itself: async for. {_TERMINALS}")

    def __aiter__(self) -> AsyncIterator[D]:
        """Document by document; what is not consumed is not read."""
        return self._iterate(self._scan())

    async def _iterate(self, scan: Scan) -> AsyncIterator[D]:
        while True:
            if self._reader.nested is not None:
                await self._reader.turn()
            row = await scan.one()
            if row is None:
                return
            for document in await self._kept([row]):
                yield document

    def _known(self, n: float) -> list[D] | None:
        """What ``take(n)`` gives, or with infinity ``collect``, if nothing has to be waited for to tell."""
        reader, table, range = self._reader, self._table, self._range
        if not n or self._filters or self._allows or reader.nested is not None or self._state == "used":
            return None
        rows = reader._tx.known(table, table.index(range.index), range.interval, n, self._reverse is True)
        if rows is None:
            return None
        self._state = "used"
        kind = table.document
        found: list[Any] = [row.document if type(row.document) is kind else reader._document(table, row) for row in rows]
        return found

    def _scan(self) -> Scan:
        self._use()
        reader = self._reader
        return reader._tx.scan(self._table.index(self._range.index), self._range.interval, reverse=bool(self._reverse))

    def _documents(self, rows: list[Row]) -> list[D]:
        reader, table = self._reader, self._table
        if len(rows) <= _SHARED_ROWS:
            version = reader._tx.version
            rows = [row if row.document is not None else version(row) for row in rows]
        document = reader._document
        return [cast(D, document(table, row)) for row in rows]

    async def _kept(self, rows: list[Row]) -> list[D]:
        documents = self._documents(rows)
        for predicate in self._filters:
            documents = [item for item in documents if holds(predicate(item), "A filter")]
        if self._allows is not None:
            documents = [item for item in documents if await self._allows(item)]
        return documents

    def _use(self) -> None:
        self._check_open()
        self._state = "used"

    def _check_open(self) -> None:
        if self._state == "used":
            raise QueryError("This query was run before. Build a new one with ctx.db.query for each run.", code="QueryReused")


def missing(verb: str, id: str) -> DocumentNotFound:
    """What is raised when there is nothing to change."""
    return DocumentNotFound(f"{verb}: there is no document {id}. It was deleted, or never inserted.")


def holds(answer: object, what: str) -> bool:
    """What a predicate of the app's gave.

    Raises:
        QueryError: it is neither True nor False.
    """
    if answer is not True and answer is not False:
        raise QueryError(f"{what} returned {answer!r}; it has to return True or False.", code="EvalError")
    return answer


class Writer(Reader):
    """Reads, and writes documents, in the function's transaction."""

    __slots__ = ("_random_bytes",)

    def __init__(self, tx: Transaction, catalog: Catalog, limits: Limits, pager: Pager, random_bytes: Callable[[int], bytes]) -> None:
        Reader.__init__(self, tx, catalog, limits, pager)
        self._random_bytes = random_bytes

    async def insert(self, document: D, /) -> Id[D]:
        """Insert a document made with its class; its id.

        Raises:
            SchemaError: it does not fit its table, or the table is reactor's own.
            LimitExceeded: it is too large, or too much was written.
        """
        table = self._table(type(document))
        self._check_writable(table)
        if self.nested is not None:
            await self.turn()
        tx = self._tx
        id = ids.new_id(table.number, self._random_bytes(14), int(tx.now_ms // _DAY_MS))
        encoded = self._encoded_fields(table, document, "insert into")
        encoded["_id"] = id
        encoded["_creationTime"] = tx.next_creation_time()
        self._put(table, id, encoded, None, "insert into", True)
        return Id(id)

    async def patch(self, id: Id[Any], /, **fields: Any) -> None:
        """Set some fields of a document, by their names in its class. None removes a field that may be absent.

        Raises:
            DocumentNotFound: there is no such document.
            SchemaError: the whole resulting document does not fit.
            IdError: not an id.
        """
        table, row = self._at_hand(id) or await self._existing(id, "patch")
        encoded, moves, plain = self._patched(table, row, fields)
        self._put(table, row.id, encoded, row, "patch of", moves, fields if plain else None)

    def _patched(self, table: Table, row: Row, fields: Mapping[str, Any]) -> tuple[dict[str, Any], bool, bool]:
        """The whole document with other values of ``fields``, in the wire's encoding; whether an index may see them; and whether they
        fit just as they are, in the place of values that are there.
        """
        encoded: dict[str, Any] = orjson.loads(row.json)
        plan = table.document.__plan__
        moves = False
        plain = True
        for name, value in fields.items():
            wire = plan.wire_names.get(name)
            if wire is None:
                raise SchemaError(
                    f"patch of table {table.name!r}: there is no field {name!r}. The fields are: {', '.join(plan.wire_names)}."
                )
            moves = moves or wire in table.indexed
            kind = type(value)
            plain = plain and wire in encoded and plan.plain.get(name) is kind
            if value is ABSENT or (value is None and name in plan.optional):
                encoded.pop(wire, None)
            elif kind is str or kind is bool or value is None or (kind is float and value - value == 0.0 != value):
                encoded[wire] = value  # its own encoding, as a float is that is neither 0.0 or -0.0 nor infinite or NaN
            else:
                encoded[wire] = self._encoded(table, wire, value, "patch of")
        return encoded, moves, plain

    async def replace(self, id: Id[D], document: D, /) -> None:
        """Put ``document`` in the place of the one with this id, which keeps its id and creation time.

        Raises:
            DocumentNotFound: there is no such document.
            SchemaError: the new one does not fit, or is of another class.
            IdError: not an id.
        """
        table, row = self._at_hand(id) or await self._existing(id, "replace")
        self._put(table, row.id, self._replaced(table, row, document), row, "replace in", True)

    def _replaced(self, table: Table, row: Row, document: Document) -> dict[str, Any]:
        if type(document).__table__ != table.name:
            raise SchemaError(f"replace: {row.id} is of table {table.name!r}, the new document is a {type(document).__name__}.")
        encoded = self._encoded_fields(table, document, "replace in")
        encoded["_id"] = row.id
        encoded["_creationTime"] = orjson.loads(row.json)["_creationTime"]
        return encoded

    async def delete(self, id: Id[Any], /) -> None:
        """Delete a document.

        Raises:
            DocumentNotFound: there is no such document.
            IdError: not an id.
        """
        table, row = self._at_hand(id) or await self._existing(id, "delete")
        self._tx.write(table, row.id, row, None, (), 0)

    def _at_hand(self, id: Any) -> tuple[Table, Row] | None:
        """What ``_existing`` gives, if nothing has to be waited for to tell."""
        known = self._known_row(id) if self.nested is None else None
        if known is not None and not known[0].writable:
            self._check_writable(known[0])
        return known

    async def _existing(self, id: Any, verb: str) -> tuple[Table, Row]:
        """The document to be changed, and its table."""
        if self.nested is not None:
            await self.turn()
        table = self._table_of(id)
        row = None if table is None else await self._tx.get(table, id)
        if table is None or row is None:
            raise missing(verb, id)
        self._check_writable(table)
        return table, row

    def _check_writable(self, table: Table) -> None:
        if not (table.writable or self._system):
            raise SchemaError(
                f"Table {table.name!r} is reactor's own: functions read it through ctx.db, and change it through the rest of ctx.",
                code="ReadOnlyTable",
            )

    def _encoded_fields(self, table: Table, document: Document, doing: str) -> dict[str, Any]:
        """The document's fields by wire name, in the wire's encoding."""
        try:
            fields = wire_fields(document)
        except ValueFormatError as error:
            raise SchemaError(f"Document for table {table.name!r}: {error}") from None
        try:
            encoded = codec.encode(fields, self._limits.document_depth)
        except ValueFormatError as error:
            raise self._unfit(table, doing, error) from None
        return cast(dict[str, Any], encoded)

    def _encoded(self, table: Table, wire: str, value: Any, doing: str) -> object:
        """A field's new value in the wire's encoding."""
        try:
            plain = to_value(value)
        except ValueFormatError as error:
            raise SchemaError(f"{doing} table {table.name!r}, field {wire!r}: {error}") from None
        try:
            return codec.encode(plain, self._limits.document_depth - 1)
        except ValueFormatError as error:
            raise self._unfit(table, doing, codec.inside(error, f".{wire}")) from None

    def _unfit(self, table: Table, doing: str, error: ValueFormatError) -> SchemaError:
        advice = f" At most {self._limits.document_depth} levels are allowed." if error.code == "TooNestedError" else ""
        return SchemaError(f"{doing} table {table.name!r}: {error}{advice}", code=error.code)

    def _put(
        self,
        table: Table,
        id: str,
        encoded: dict[str, Any],
        before: Row | None,
        doing: str,
        moves: bool,
        plain: Mapping[str, Any] | None = None,
    ) -> None:
        """Check and write a whole document.

        Args:
            encoded: its fields, system fields included, in the wire's encoding.
            moves: whether a field that an index has may have changed.
            plain: all that changes, where that is known to fit and be plain.
        """
        limits = self._limits
        if len(encoded) - 2 > limits.object_fields:
            raise SchemaError(
                f"{doing} table {table.name!r}: the document has {len(encoded) - 2} fields, more than {limits.object_fields}.",
                code="TooManyFieldsError",
            )
        try:
            raw = codec.dumps(encoded)
        except ValueFormatError as error:
            raise self._unfit(table, doing, error) from None
        # The formula counts at most nine for what takes three bytes and a comma.
        if 3 * len(raw) > limits.document_size_bytes and (size := codec.size(encoded)) > limits.document_size_bytes:
            raise LimitExceeded(
                f"{doing} table {table.name!r}: the document has {size} bytes, at most {limits.document_size_bytes} are allowed. "
                "Keep large content in several documents, or in files.",
                code="DocumentTooLarge",
            )
        text = raw.decode()
        if before is not None and before.json == text:
            return
        plan = table.document.__plan__
        if before is not None and plain is not None and type(before.document) is table.document:
            document: Document = plan.changed(before.document, plain, text)
        else:
            document = self._fitting(table, text, doing)
            if plan.shareable:
                plan.shared(document, id)
        if before is not None and not moves:
            keys = before.keys or table.keys_of_json(before.json)
            before.keys = keys
        else:
            keys = table.keys_of(encoded)
        self._tx.write(table, id, before, text, keys, len(raw), document if plan.shareable else None)

    def _fitting(self, table: Table, text: str, doing: str) -> Document:
        try:
            return table.document.from_row(text, self._catalog)
        except ValidationError as error:
            raise SchemaError(f"{doing} table {table.name!r}: the document does not fit: {'; '.join(reasons(error)[:5])}.") from None


class View:
    """What waits for the nested calls of the db that it is a view of, also for the first one, which may begin while it is used."""

    __slots__ = ()
    _db: Reader

    @property
    def nested(self) -> asyncio.Lock | None:
        return self._db.nested

    @nested.setter
    def nested(self, lock: asyncio.Lock | None) -> None:
        self._db.nested = lock


class _ReaderView(View, Reader):
    __slots__ = ("_db",)


class _WriterView(View, Writer):
    __slots__ = ("_db",)


def system(db: R, limits: Limits | None = None) -> R:
    """The same transaction with the system's own documents in reach: for one operation of what ``ctx`` offers beside ``ctx.db``.

    Args:
        limits: of such documents, where they are not those of the app's.
    """
    view: Any
    if isinstance(db, Writer):
        view = object.__new__(_WriterView)
        view._random_bytes = db._random_bytes
    else:
        view = object.__new__(_ReaderView)
    view._db = db
    view._tx, view._catalog, view._pager = db._tx, db._catalog, db._pager
    view._limits = db._limits if limits is None else limits
    view._system = True
    return cast(R, view)
