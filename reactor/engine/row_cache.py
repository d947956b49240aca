"""The newest version of documents read or written lately, so that most point reads need no statement.

A reader of a store meets a cold page cache after every commit, and over a network a round trip: 12 µs and 60 µs for what a
dictionary gives in 0.2. Three things are kept, all as of the newest accepted commit:

- rows by id: a version with everything that was computed from it;
- absences: ids that lead to no document;
- points: which documents an equality range of an index holds, by ids, none as well. A commit that moves nothing within the
  index leaves them as they are.

What makes it right: every commit passes ``apply`` in the order of positions, in the turn of the loop that accepts it or learns
of it, and each entry says since which position it has been the newest. A transaction that began at or above that position
sees that version and no other; one that began below asks its snapshot. What a transaction at an older position found is put as
the newest only if nothing wrote there since, which the cache remembers for a while: a read that waited for its database comes
back to a newer position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from reactor.engine.store import UNCOMMITTED, Row, Write
from reactor.schema.catalog import IndexDef

__all__ = ["RowCache"]

#: Measured: a row with its text's overhead, keys, and the document made of it, without the text; a point with its ids, without its keys.
ROW_BYTES = 1600
POINT_BYTES = 500
ABSENCE_BYTES = 250
#: Rows of an equality range that is kept.
POINT_ROWS = 8
#: Writes that are remembered for reads from before them.
REMEMBERED = 20_000


class _Point(NamedTuple):
    since: int
    hi: bytes  # of the interval that begins with the prefix
    ids: tuple[str, ...]  # by ascending key
    keys: tuple[bytes, ...]
    size_bytes: int


class RowCache:
    """See the module. Owned by the committer.

    Args:
        size_bytes: what it may hold; the oldest entries go first. 0 keeps nothing.

    Attributes:
        position: of the newest commit applied.
    """

    __slots__ = ("_absent", "_bytes", "_indexes", "_moved", "_points", "_remembers", "_rows", "_size_bytes", "_written", "position")

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._bytes = 0
        self._rows: dict[str, Row] = {}
        self._points: dict[tuple[str, bytes], _Point] = {}
        self._absent: dict[str, int] = {}  # since which position no document has this id
        self._indexes: dict[str, int] = {}  # those that any point was ever put of, and from which position on moves are noted
        self._written: dict[str, int] = {}  # where each document was last written, above `_remembers`
        self._moved: dict[int, int] = {}  # the same of documents that came into or left a range, by the range's hash: it may be long
        self._remembers = 0
        self.position = 0

    def row(self, id: str, position: float) -> Row | None:
        """The version of a document that a transaction begun at ``position`` sees, if known. With infinity: any version."""
        row = self._rows.get(id)
        return row if row is not None and row.since <= position else None

    def absent(self, id: str, position: int) -> bool:
        """Whether a transaction begun at ``position`` is known to find no document with this id."""
        since = self._absent.get(id)
        return since is not None and since <= position

    def point(self, index: IndexDef, prefix: bytes, hi: bytes, position: int) -> tuple[list[Row], tuple[bytes, ...]] | None:
        """All rows with ``prefix <= key < hi`` as of ``position``, by ascending key, and their keys; None when that is not known."""
        point = self._points.get((index.ref, prefix))
        if point is None or point.since > position or point.hi != hi:
            return None
        rows = self._rows
        found: list[Row] = []
        for id in point.ids:
            row = rows.get(id)
            if row is None or row.since > position:
                return None
            found.append(row)
        return found, point.keys

    def put(self, row: Row, position: int) -> None:
        """Keep a version that a transaction begun at ``position`` read. It is the newest one if nothing was written there since."""
        known = self._rows.get(row.id)
        current = position == self.position or self._remembers <= position >= self._written.get(row.id, 0)
        since = position if current else math.inf
        if known is not None:
            if known.since <= since:
                return
            self._bytes -= ROW_BYTES + len(known.json)
        row.since = since
        self._rows[row.id] = row
        self._grow(ROW_BYTES + len(row.json))

    def put_absent(self, id: str, position: int) -> None:
        """Keep that a transaction begun at ``position`` found no document with this id."""
        if position == self.position or self._remembers <= position >= self._written.get(id, 0):
            if id not in self._absent:
                self._absent[id] = position
                self._grow(ABSENCE_BYTES)
            elif position < self._absent[id]:
                self._absent[id] = position

    def put_point(self, index: IndexDef, prefix: bytes, hi: bytes, rows: Sequence[Row], position: int) -> None:
        """Keep what a transaction begun at ``position`` found in an equality range, whole."""
        if len(rows) > POINT_ROWS or not self._size_bytes:
            return
        key = (index.ref, prefix)
        noted = self._indexes.setdefault(index.ref, self.position)
        if position != self.position and not (max(noted, self._remembers) <= position >= self._moved.get(hash(key), 0)):
            return
        self._forget_point(key)
        keys = tuple([row.key for row in rows])
        size_bytes = POINT_BYTES + len(prefix) + len(hi) + sum(map(len, keys))
        self._points[key] = _Point(position, hi, tuple([row.id for row in rows]), keys, size_bytes)
        self._grow(size_bytes)

    def apply(self, writes: Sequence[Write], position: int) -> None:
        """Take a commit that was accepted, or learned of, at ``position``."""
        self.position = position
        rows = self._rows
        written = self._written
        for write in writes:
            id, after, before_keys, after_keys = write.id, write.after, write.before_keys, write.after_keys
            written[id] = position
            known = rows.pop(id, None)
            if known is not None:
                self._bytes -= ROW_BYTES + len(known.json)
            if after is not None:
                if self._absent and self._absent.pop(id, None) is not None:
                    self._bytes -= ABSENCE_BYTES
                row = write.row
                if row is None:
                    row = Row(id, UNCOMMITTED, after, b"", after_keys)
                row.since = position
                rows[id] = row
                self._bytes += ROW_BYTES + len(after)
            if self._indexes and before_keys is not after_keys and before_keys != after_keys:
                self._move(write)
        if self._bytes > self._size_bytes:
            self._grow(0)
        if len(written) + len(self._moved) > REMEMBERED:
            self._forget_writes()

    def clear(self, position: int) -> None:
        """Forget everything: what was accepted, or how keys are made, has ceased to hold. Go on at ``position``, above all before."""
        self.position = position
        self._rows.clear()
        self._points.clear()
        self._absent.clear()
        self._indexes.clear()
        self._bytes = 0
        self._forget_writes()

    def _forget_writes(self) -> None:
        self._written.clear()
        self._moved.clear()
        self._remembers = self.position

    def _move(self, write: Write) -> None:
        """Forget the ranges that a document came into or left."""
        table = write.table
        for at, index in enumerate(table.indexes):
            if index.ref not in self._indexes:
                continue
            before = write.before_keys[at] if write.before_keys else None
            after = write.after_keys[at] if write.after_keys else None
            if before != after:
                for key in (before, after):
                    if key is not None:
                        for prefix in table.prefixes(at, key):
                            range = (index.ref, prefix)
                            self._moved[hash(range)] = self.position
                            self._forget_point(range)

    def _forget_point(self, key: tuple[str, bytes]) -> None:
        point = self._points.pop(key, None)
        if point is not None:
            self._bytes -= point.size_bytes

    def _grow(self, bytes: int) -> None:
        self._bytes += bytes
        while self._bytes > self._size_bytes:
            # All grow together: what has the largest share goes first.
            rows, points, absent = len(self._rows) * ROW_BYTES, len(self._points) * POINT_BYTES, len(self._absent) * ABSENCE_BYTES
            if rows and rows >= points and rows >= absent:
                row = self._rows.pop(next(iter(self._rows)))
                self._bytes -= ROW_BYTES + len(row.json)
            elif points and points >= absent:
                self._forget_point(next(iter(self._points)))
            elif absent:
                del self._absent[next(iter(self._absent))]
                self._bytes -= ABSENCE_BYTES
            else:
                return

    def check_invariants(self) -> None:
        """Raise AssertionError when the accounts are wrong. For simulations."""
        held = sum(ROW_BYTES + len(row.json) for row in self._rows.values()) + sum(point.size_bytes for point in self._points.values())
        held += ABSENCE_BYTES * len(self._absent)
        assert held == self._bytes <= self._size_bytes, "the cache's size is wrong"
        assert all(point.since <= self.position for point in self._points.values())
        assert all(since <= self.position for since in self._absent.values())
