"""Indexes, and the ranges that calling one gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from msgspec import Struct

from reactor.errors import IndexRangeError, ValueFormatError
from reactor.values import order
from reactor.values.codec import Int64
from reactor.values.interval import Interval

if TYPE_CHECKING:
    from reactor.schema.document import Document, Plan

__all__ = ["Bound", "BoundIndex", "Index", "IndexRange", "between", "gt", "gte", "lt", "lte"]

D = TypeVar("D", bound="Document")


@dataclass(frozen=True, slots=True)
class Bound:
    """Bounds on one field of an index: made by ``gt gte lt lte between``, combined with ``&``."""

    lower: tuple[Any, bool] | None = None  # value, whether it is included
    upper: tuple[Any, bool] | None = None

    def __and__(self, other: Bound) -> Bound:
        if (self.lower and other.lower) or (self.upper and other.upper):
            raise IndexRangeError(
                "Two lower or two upper bounds on one field. Combine one of gt, gte with one of lt, lte.", code="AlreadyDefinedBound"
            )
        return Bound(self.lower or other.lower, self.upper or other.upper)


def gt(value: Any) -> Bound:
    """Above ``value``, which may be of any type: all values have one order."""
    return Bound(lower=(value, False))


def gte(value: Any) -> Bound:
    """At or above ``value``."""
    return Bound(lower=(value, True))


def lt(value: Any) -> Bound:
    """Below ``value``."""
    return Bound(upper=(value, False))


def lte(value: Any) -> Bound:
    """At or below ``value``."""
    return Bound(upper=(value, True))


def between(low: Any, high: Any) -> Bound:
    """From ``low`` to ``high``, both included."""
    return Bound((low, True), (high, True))


class IndexRange(Struct, Generic[D], frozen=True):
    """Documents of one class in a range of one index: what ``ctx.db.query`` takes.

    Attributes:
        interval: of the index's keys.
    """

    document: type[D]
    index: str
    fields: tuple[str, ...]  # dotted paths by wire name, without the implicit ones
    interval: Interval

    @property
    def fingerprint(self) -> bytes:
        """Equal for equal ranges: what a page cursor is bound to."""
        table = self.document.__table__ or ""
        return b"\x00".join(
            (table.encode(), self.index.encode(), ",".join(self.fields).encode(), self.interval.lo, b"\xff", self.interval.hi)
        )


class Index:
    """An index over fields of a document.

    Args:
        fields: names of the document's fields in the order of the key; ``"address.city"`` for a nested one. The creation
            time is always the last, implicit field.

    As an attribute of a document class it is called with keywords to give a range:
    ``Message.by_channel(channel=c, creation_time=gt(t))``.
    """

    __slots__ = ("_bound", "fields", "name")

    def __init__(self, *fields: str) -> None:
        self.fields = fields
        self.name = ""
        self._bound: BoundIndex[Any] | None = None  # to the class that it was last read from, which is nearly always the same

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type[D]) -> BoundIndex[D]: ...
    @overload
    def __get__(self, instance: D, owner: type[D]) -> BoundIndex[D]: ...
    def __get__(self, instance: Any, owner: type[D]) -> BoundIndex[D]:
        bound = self._bound
        if bound is None or bound.document is not owner:
            bound = self._bound = BoundIndex(owner, self.name, self.fields)
        return bound

    def __repr__(self) -> str:
        return f"Index({', '.join(map(repr, self.fields))})"


class BoundIndex(Generic[D]):
    """An index of one document class. Calling it gives a range."""

    __slots__ = ("_wire", "document", "fields", "keywords", "name")

    def __init__(self, document: type[D], name: str, fields: tuple[str, ...]) -> None:
        self.document = document
        self.name = name
        self.fields = fields
        self._wire: tuple[str, ...] | None = None  # the fields' paths by wire name, once the schema is loaded
        self.keywords = ("id",) if name == "by_id" else (*(field.replace(".", "__") for field in fields), "creation_time")

    def __repr__(self) -> str:
        return f"{self.document.__name__}.{self.name}"

    def __call__(self, **bounds: Any) -> IndexRange[D]:
        """The range of documents within ``bounds``.

        Args:
            bounds: by field name (``address__city`` for ``"address.city"``, ``creation_time`` after the others). Plain
                values are equality, on the first fields in order; the field after them may have one of
                ``gt gte lt lte between``.

        Raises:
            IndexRangeError: anything else.
        """
        wire = self._wire
        if wire is None:
            wire = self._wire = tuple(map(self._plan().wire_path, self.fields))
        keywords = self.keywords
        if len(bounds) != 1 or keywords[0] not in bounds:
            self._check(keywords, bounds)
        prefix = b""
        interval: Interval | None = None
        for keyword in keywords[: len(bounds)]:
            bound = bounds[keyword]
            kind = type(bound)
            if (kind is float or (kind is str and bound.isascii())) and keyword in self.fields:
                prefix += order.encode_key(bound)  # as most are: what it is encoded as needs no look at the field
            elif isinstance(bound, Bound):
                interval = self._interval(prefix, keyword, bound)
            else:
                prefix += self._encode(keyword, bound)
        if interval is None:
            interval = Interval(prefix, self._successor(prefix), prefix)
        return IndexRange(self.document, self.name, wire, interval)

    def _plan(self) -> Plan:
        try:
            return self.document.__plan__
        except AttributeError:
            raise IndexRangeError(
                f"{self!r} was called before its schema was loaded. Call it in a function, or in a test with a backend.",
                code="SchemaNotLoaded",
            ) from None

    def _check(self, keywords: tuple[str, ...], bounds: Mapping[str, Any]) -> None:
        for keyword in bounds:
            if keyword not in keywords:
                raise IndexRangeError(
                    f"{self!r} has no field {keyword!r}. Its fields are, in order: {', '.join(keywords)}.", code="FieldNotInIndex"
                )
        given = [keyword in bounds for keyword in keywords]
        if given != sorted(given, reverse=True):
            missing = next(keyword for keyword in keywords if keyword not in bounds)
            raise IndexRangeError(f"{self!r} leaves out {missing!r}. Bound its fields from the first on, in order: {', '.join(keywords)}.")
        ranged = [keyword for keyword in keywords if isinstance(bounds.get(keyword), Bound)]
        if ranged and (len(ranged) > 1 or ranged[0] != keywords[len(bounds) - 1]):
            raise IndexRangeError(
                f"{self!r}: only the last bounded field may have gt, gte, lt, lte or between; {ranged[0]!r} has, and another follows it.",
                code="BoundsOnMultipleFields",
            )

    def _interval(self, prefix: bytes, keyword: str, bound: Bound) -> Interval:
        lo, hi = prefix, self._successor(prefix)
        if bound.lower:
            value, included = bound.lower
            key = prefix + self._encode(keyword, value)
            lo = key if included else self._successor(key)
        if bound.upper:
            value, included = bound.upper
            key = prefix + self._encode(keyword, value)
            hi = self._successor(key) if included else key
        return Interval(lo, max(lo, hi), prefix)

    def _successor(self, key: bytes) -> bytes:
        # Ids are whole keys, not self-delimiting elements of one.
        return order.after(key) if self.name == "by_id" and key else order.prefix_end(key)

    def _encode(self, keyword: str, value: Any) -> bytes:
        plan = self._plan()
        try:
            if self.name == "by_id":
                if not isinstance(value, str):
                    raise ValueFormatError(f"expected an id, got {type(value).__name__}")
                return value.encode()
            if keyword == "creation_time":
                if isinstance(value, bool | Int64) or not isinstance(value, int | float):
                    raise ValueFormatError(f"expected ms since the epoch as a float, got {type(value).__name__}")
                return order.encode_key(float(value))
            return order.encode_key(plan.bound_value(keyword, value))
        except (ValueFormatError, UnicodeEncodeError, OverflowError) as error:
            raise IndexRangeError(f"{self!r} cannot be bounded by this {keyword!r}: {error}") from None
