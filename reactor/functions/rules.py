"""Row-level rules: which documents a caller may read and write, said once for each class and held by a ``ctx.db`` of its own."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, overload

from reactor.engine.store import Row
from reactor.engine.transaction import Transaction
from reactor.errors import AccessDenied, ReactorError, SchemaError, ValueFormatError
from reactor.functions.context import MutationCtx, QueryCtx
from reactor.functions.database import DocumentQuery, Reader, View, Writer, holds, missing
from reactor.schema.catalog import Table
from reactor.schema.document import Document
from reactor.schema.index import IndexRange
from reactor.values import codec
from reactor.values.ids import Id

__all__ = ["Rules"]

D = TypeVar("D", bound=Document)
F = TypeVar("F", bound=Callable[..., Any])
A = TypeVar("A", bound="bool | Awaitable[bool]")
Operation: TypeAlias = Literal["read", "insert", "modify"]


class _Read(Protocol[D]):
    def __call__(self, rule: Callable[[QueryCtx, D], A], /) -> Callable[[QueryCtx, D], A]: ...


class _Insert(Protocol[D]):
    def __call__(self, rule: Callable[[MutationCtx, D], A], /) -> Callable[[MutationCtx, D], A]: ...


class _Modify(Protocol[D]):
    @overload
    def __call__(self, rule: Callable[[MutationCtx, D], A], /) -> Callable[[MutationCtx, D], A]: ...
    @overload
    def __call__(self, rule: Callable[[MutationCtx, D, D | None], A], /) -> Callable[[MutationCtx, D, D | None], A]: ...


class Rules:
    """Which documents may be read, inserted and modified, by class.

    ::

        rules = Rules()

        @rules.read(Message)
        async def readable(ctx: QueryCtx, message: Message) -> bool: ...

        db = rules.wrap(ctx)  # as ctx.db, with the rules in force

    Args:
        otherwise: what holds for a class without a rule for an operation: it is allowed, or denied.

    A rule gets the ctx that was wrapped, whose own ``db`` knows no rules, and returns True or False.
    """

    __slots__ = ("_otherwise", "_rules")

    def __init__(self, *, otherwise: Literal["allow", "deny"] = "allow") -> None:
        if otherwise not in ("allow", "deny"):
            raise SchemaError(f"Rules(otherwise=…) is 'allow' or 'deny', not {otherwise!r}.")
        self._otherwise = otherwise == "allow"
        self._rules: dict[tuple[Operation, str], Rule] = {}

    def read(self, document: type[D], /) -> _Read[D]:
        """Declare which documents of a class may be read. All others are as if they were not there.

        Raises:
            SchemaError: the class is no table, or has such a rule.
        """
        return self._declare("read", document, 2)

    def insert(self, document: type[D], /) -> _Insert[D]:
        """Declare which documents of a class may be inserted. The rule gets the document, which has no id yet.

        Raises:
            SchemaError: the class is no table, or has such a rule.
        """
        return self._declare("insert", document, 2)

    def modify(self, document: type[D], /) -> _Modify[D]:
        """Declare which documents of a class may be patched, replaced and deleted. The rule gets the document as it is.

        One with a third parameter gets there what the document is to become, and None when it is to be deleted.

        Raises:
            SchemaError: the class is no table, or has such a rule.
        """
        return self._declare("modify", document, 3)

    @overload
    def wrap(self, ctx: MutationCtx, /) -> Writer: ...
    @overload
    def wrap(self, ctx: QueryCtx, /) -> Reader: ...
    def wrap(self, ctx: QueryCtx, /) -> Reader:
        """``ctx.db`` with the rules in force, for as long as ``ctx`` is.

        What may not be read is not found by ``get``, left out of queries and pages, and not there for ``patch``, ``replace`` and
        ``delete``. What may not be written raises ``AccessDenied``, and is not written.
        """
        db = ctx.db
        return RuledWriter(db, self, ctx) if isinstance(db, Writer) else RuledReader(db, self, ctx)

    def of(self, operation: Operation, table: str) -> Rule | None:
        """The rule of a table, or None where it has none and everything is allowed."""
        rule = self._rules.get((operation, table))
        return rule if rule is not None or self._otherwise else _DENY

    def _declare(self, operation: Operation, document: type[Document], most: int) -> Callable[[F], F]:
        table = document.__table__
        if table is None:
            raise SchemaError(f"A rule is for documents of a table, and {document.__name__} has none.")

        def declare(test: F) -> F:
            if (operation, table) in self._rules:
                raise SchemaError(f"{document.__name__} has a rule for {operation} already. Put both into one.")
            takes = len(inspect.signature(test).parameters)
            if not 2 <= takes <= most:
                raise SchemaError(f"The {operation} rule of {document.__name__} takes {takes} parameters. Write (ctx, document).")
            self._rules[operation, table] = Rule(test, takes == 3)
            return test

        return declare


class Rule(NamedTuple):
    """One rule.

    Attributes:
        compares: it is also given what the document is to become.
    """

    test: Callable[..., bool | Awaitable[bool]]
    compares: bool


_DENY = Rule(lambda ctx, document: False, False)


class RuledReader(View, Reader):
    """A reader whose documents pass the rules. Reads through another, whose transaction and turns are its own."""

    def __init__(self, db: Reader, rules: Rules, ctx: QueryCtx) -> None:
        self._db = db
        self._rules = rules
        self._ctx = ctx
        self._catalog = db._catalog
        self._limits = db._limits
        self._pager = db._pager
        self._system = False

    @property
    def _tx(self) -> Transaction:
        return self._db._tx

    @_tx.setter
    def _tx(self, tx: Transaction) -> None:
        raise ReactorError("A db with rules ends with the one that it reads through.")

    async def get(self, document: Any, id: Any = None, /) -> Any:
        found = await (super().get(document) if id is None else super().get(document, id))
        return found if found is not None and await self._allowed("read", found) else None

    def query(self, source: type[D] | IndexRange[D], /) -> DocumentQuery[D]:
        query = super().query(source)
        rule = self._rules.of("read", query._table.name)
        if rule is not None:
            query._allows = partial(self._allowed, "read")
        return query

    async def _allowed(self, operation: Operation, document: Document, after: Document | None = None) -> bool:
        table = type(document).__table__
        assert table is not None, "a stored document has a table"
        rule = self._rules.of(operation, table)
        if rule is None:
            return True
        answer = rule.test(self._ctx, document, after) if rule.compares else rule.test(self._ctx, document)
        return holds(await answer if isinstance(answer, Awaitable) else answer, f"The {operation} rule of {type(document).__name__}")


class RuledWriter(RuledReader, Writer):
    """``Rules.wrap`` of a mutation's ctx."""

    def __init__(self, db: Writer, rules: Rules, ctx: QueryCtx) -> None:
        super().__init__(db, rules, ctx)
        self._random_bytes = db._random_bytes

    async def insert(self, document: D, /) -> Id[D]:
        table = self._table(type(document))
        if not await self._allowed("insert", document):
            raise AccessDenied("insert", table.name)
        return await super().insert(document)

    async def patch(self, id: Id[Any], /, **fields: Any) -> None:
        await self._check_modify("patch", id, lambda table, row: self._patched(table, row, fields)[0])
        await super().patch(id, **fields)

    async def replace(self, id: Id[D], document: D, /) -> None:
        await self._check_modify("replace", id, lambda table, row: self._replaced(table, row, document))
        await super().replace(id, document)

    async def delete(self, id: Id[Any], /) -> None:
        await self._check_modify("delete", id, None)
        await super().delete(id)

    async def _check_modify(self, verb: str, id: Id[Any], change: Callable[[Table, Row], dict[str, Any]] | None) -> None:
        table, row = self._at_hand(id) or await self._existing(id, verb)
        document = self._document(table, row)
        if not await self._allowed("read", document):
            # Who may not read it is not told that it is there.
            raise missing(verb, id)
        rule = self._rules.of("modify", table.name)
        after = None
        if rule is not None and rule.compares and change is not None:
            encoded, doing = change(table, row), f"{verb} of"
            try:
                text = codec.dumps(encoded).decode()
            except ValueFormatError as error:
                raise self._unfit(table, doing, error) from None
            after = self._fitting(table, text, doing)
        if not await self._allowed("modify", document, after):
            raise AccessDenied("modify", table.name)
