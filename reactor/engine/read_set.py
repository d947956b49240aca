"""What a transaction looked at, and whether a commit wrote inside it.

``overlaps`` is the one test of reactor: it decides whether a mutation conflicts with a later commit and, through
``reactor.engine.subscriptions``, which live queries a commit makes stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from reactor.engine.store import Write
from reactor.schema.catalog import IndexDef, Table

__all__ = ["ReadSet", "Span", "places", "touched"]

B = TypeVar("B")

#: ``[lo, hi)``, as a list because a scan widens its own as it goes on.
Span = list[bytes]


class ReadSet(Struct, eq=False, gc=False):
    """Index intervals, hashed by the equality prefix that each lies in.

    Most intervals are an equality prefix whole, or a part of one (the end of a page, the rows a ``first()`` saw), so a
    written key is looked up by its own few prefixes; only spans under the very same prefix are compared.
    """

    spans: dict[str, dict[bytes, list[Span]]] = {}

    def add(self, index: IndexDef, lo: bytes, hi: bytes, prefix: bytes) -> Span:
        """Note that ``[lo, hi)`` of ``index`` was read, all of it under ``prefix``. The span may be widened within that."""
        span = [lo, hi]
        by_prefix = self.spans.get(index.ref)
        if by_prefix is None:
            by_prefix = self.spans[index.ref] = {}
        spans = by_prefix.get(prefix)
        if spans is None:
            by_prefix[prefix] = [span]
        else:
            spans.append(span)
        return span

    def add_id(self, by_id: IndexDef, id: str) -> None:
        """Note that the document ``id`` was looked for."""
        key = id.encode()
        by_prefix = self.spans.get(by_id.ref)
        if by_prefix is None:
            by_prefix = self.spans[by_id.ref] = {}
        if key not in by_prefix:
            by_prefix[key] = [[key, key + b"\x00"]]

    def overlaps(self, writes: Sequence[Write]) -> bool:
        """Whether any of ``writes`` put, moved or removed a document inside what was read."""
        return any(lo <= key < hi for spans, key in touched(self.spans, writes) for lo, hi in spans)


def touched(buckets: Mapping[str, Mapping[bytes, B]], writes: Sequence[Write]) -> Iterator[tuple[B, bytes]]:
    """Every bucket, by index and prefix, that a written key falls under, with that key.

    A document is touched at its old key and at its new one, in every index: a change that moves nothing still
    changes what a reader of the row saw.
    """
    for write in writes:
        table = write.table
        if table.refs.isdisjoint(buckets):
            continue
        for position, index in enumerate(table.indexes):
            by_prefix = buckets.get(index.ref)
            if by_prefix:
                before = write.before_keys[position] if write.before_keys else None
                after = write.after_keys[position] if write.after_keys else None
                if before is not None:
                    yield from _under(by_prefix, table, position, before)
                if after is not None and after != before:
                    yield from _under(by_prefix, table, position, after)
        by_prefix = buckets.get(table.by_id.ref)
        if by_prefix:
            key = write.id.encode()
            for prefix in (b"", key):
                bucket = by_prefix.get(prefix)
                if bucket is not None:
                    yield bucket, key


def places(writes: Sequence[Write]) -> Iterator[tuple[str, bytes]]:
    """Every index, by its ``ref``, and prefix under which ``touched`` would look."""
    for write in writes:
        table = write.table
        for position, index in enumerate(table.indexes):
            before = write.before_keys[position] if write.before_keys else None
            after = write.after_keys[position] if write.after_keys else None
            for key in (before,) if before == after else (before, after):
                if key is not None:
                    for prefix in table.prefixes(position, key):
                        yield index.ref, prefix
        yield table.by_id.ref, b""
        yield table.by_id.ref, write.id.encode()


def _under(by_prefix: Mapping[bytes, B], table: Table, position: int, key: bytes) -> Iterator[tuple[B, bytes]]:
    for prefix in table.prefixes(position, key):
        bucket = by_prefix.get(prefix)
        if bucket is not None:
            yield bucket, key
