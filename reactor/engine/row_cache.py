"""The newest version of documents read or written lately, so that most point reads need no statement.

A reader of a store meets a cold page cache after every commit, and over a network a round trip: 12 µs and 60 µs for what a
dictionary gives in 0.2. Three things are kept, all as of the newest accepted commit:

- rows by id: a version with everything that was computed from it;
- absences: ids that lead to no document;
- points: which documents an equality range of an index holds, by ids, none as well; of a range with many, those at the end that was
  read. A commit that moves nothing within the index leaves them as they are, and one that inserts a document adds it: a range to
  which documents are appended, the last of which are shown, is read from the database once.

What makes it right: every commit passes ``apply`` in the order of positions, in the turn of the loop that accepts it or learns
of it, and each entry says since which position it has been the newest. A transaction that began at or above that position
sees that version and no other; one that began below asks its snapshot. What a transaction at an older position found is put as
the newest only if nothing wrote there since, which the cache remembers for a while: a read that waited for its database comes
back to a newer position. A document that was inserted after a transaction began is passed over in the range that it came into.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice
from typing import Any

from msgspec import Struct

from reactor.engine.store import UNCOMMITTED, Row, Write
from reactor.schema.catalog import IndexDef, Table

__all__ = ["POINT_ROWS", "RowCache"]

#: Measured: a row with the keys of two indexes and the document made of it, but for what grows with its text; a point, but for its
#: prefix and where it ends, and each of its ids, whose row may be gone; an absence.
ROW_BYTES = 800
POINT_BYTES = 200
ID_BYTES = 90
ABSENCE_BYTES = 250
#: Of a character of a row's text: what it says is in the document once more. A text with one emoji takes four for each of its
#: characters, and parsing has it kept in UTF-8 besides: measured 7. How wide a text is that is not ASCII cannot be asked.
CHARACTER_BYTES = 2
WIDE_CHARACTER_BYTES = 8
#: Ids of a point. Fewer than a scan of unknown size fetches at a time: what is read whole is kept whole or not at all.
POINT_ROWS = 60
#: Writes that are remembered for reads from before them.
REMEMBERED = 20_000
#: So many entries of a kind are let go at a time, as a part of all: a dictionary is passed over from its beginning, what was deleted
#: from it included, to find the oldest.
LET_GO = 1 / 256


class _Point(Struct, gc=False):
    """The documents of an equality range with ``lo <= key < hi``. None stands for where the range begins or ends.

    Attributes:
        since: a position above which no document came into, left, or moved within these bounds but by being inserted.
        ids: by ascending key.
    """

    since: int
    ids: tuple[str, ...]
    lo: bytes | None = None
    hi: bytes | None = None


#: Stands for a row that was let go of.
_GONE = Row("", UNCOMMITTED, "")


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
        self._points: dict[str, dict[bytes, _Point]] = {}  # by index and prefix
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

    def point(self, index: IndexDef, prefix: bytes, hi: bytes, position: int, n: float, *, reverse: bool) -> list[Row] | None:
        """The first ``n`` rows with ``prefix <= key < hi`` as of ``position``, by ascending key, or descending with ``reverse``; None
        when they are not known.

        All of that range begins with ``prefix``.
        """
        points = self._points.get(index.ref)
        point = None if points is None else points.get(prefix)
        # What is above the prefix and no longer is above all that begins with it.
        if point is None or point.since > position or len(hi) > len(prefix) or hi <= prefix:
            return None
        ids, begins, ends = (point.ids[::-1], point.hi, point.lo) if reverse else (point.ids, point.lo, point.hi)
        if begins is not None:
            return None
        found = self._rows_at(ids if n >= len(ids) else ids[: int(n)], position)
        if found is not None and len(found) < n < len(ids):
            found = self._rows_at(ids, position)
        if found is None or (len(found) < n and ends is not None):
            return None
        return found if len(found) <= n else found[: int(n)]

    def _rows_at(self, ids: Sequence[str], position: int) -> list[Row] | None:
        """Those of the documents that were there at ``position``; None when the version that one had then is not known."""
        rows = self._rows
        found = [row for id in ids if (row := rows.get(id, _GONE)).born <= position]
        for row in found:
            if row.since > position:
                return None
        return found

    def unmoved(self, index: IndexDef, prefix: bytes, position: int) -> bool:
        """Whether it is known that no document came into, left, or moved within the keys under ``prefix`` after ``position``."""
        noted = self._indexes.get(index.ref)
        if noted is None or noted > position or self._remembers > position:
            return False
        return self._moved.get(hash((index.ref, prefix)), 0) <= position

    def put(self, row: Row, position: int) -> None:
        """Keep a version that a transaction begun at ``position`` read. It is the newest one if nothing was written there since."""
        known = self._rows.get(row.id)
        current = position == self.position or self._remembers <= position >= self._written.get(row.id, 0)
        since = position if current else math.inf
        if known is not None:
            if known.since <= since:
                return
            del self._rows[row.id]
            self._bytes -= _row_bytes(known.json)
        row.since = since
        self._rows[row.id] = row
        self._grow(_row_bytes(row.json))

    def put_absent(self, id: str, position: int) -> None:
        """Keep that a transaction begun at ``position`` found no document with this id."""
        if position == self.position or self._remembers <= position >= self._written.get(id, 0):
            if id not in self._absent:
                self._absent[id] = position
                self._grow(ABSENCE_BYTES)
            elif position < self._absent[id]:
                self._absent[id] = position

    def put_point(self, index: IndexDef, prefix: bytes, rows: Sequence[Row], position: int, *, whole: bool, reverse: bool) -> None:
        """Keep what a transaction begun at ``position`` found in an equality range.

        Args:
            rows: from where the range begins, by ascending key, or with ``reverse`` from where it ends, descending.
            whole: that is all of it.
        """
        if len(rows) > POINT_ROWS or not self._size_bytes:
            return
        ref = index.ref
        self._indexes.setdefault(ref, self.position)
        if position != self.position and not self.unmoved(index, prefix, position):
            return
        self._forget_point(ref, prefix)
        ids = [row.id for row in rows]
        if reverse:
            point = _Point(position, tuple(ids[::-1]), lo=None if whole else rows[-1].key)
        else:
            point = _Point(position, tuple(ids), hi=None if whole else rows[-1].key + b"\x00")
        self._points.setdefault(ref, {})[prefix] = point
        self._grow(_point_bytes(prefix, point))

    def apply(self, writes: Sequence[Write], position: int, *, pending: bool = False) -> None:
        """Take a commit that was accepted, or learned of, at ``position``.

        Args:
            pending: it is yet to become durable, so that none who begin below its position see it. Another node's commit, and what
                is taken back, may be seen by who reads only what is durable, whatever the position.
        """
        self.position = position
        rows = self._rows
        written = self._written
        grown = 0
        for write in writes:
            id, after, before_keys, after_keys = write.id, write.after, write.before_keys, write.after_keys
            written[id] = position
            known = rows.pop(id, None)
            if known is not None:
                grown -= _row_bytes(known.json)
            if after is not None:
                if self._absent and self._absent.pop(id, None) is not None:
                    grown -= ABSENCE_BYTES
                row = write.row
                if row is None:
                    row = Row(id, UNCOMMITTED, after, b"", after_keys)
                row.since = position
                if pending and write.before is None:
                    row.born = position
                rows[id] = row
                grown += _row_bytes(after)
            if self._indexes and before_keys is not after_keys and before_keys != after_keys:
                self._move(write)
        self._grow(grown)
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
        """Note the ranges that a document came into or left, and forget them, but for those that one came into by its insert."""
        table, moved, position = write.table, self._moved, self.position
        inserted = write.before is None
        for at, index in enumerate(table.indexes):
            ref = index.ref
            if ref not in self._indexes:
                continue
            points = self._points.get(ref, {})
            before = write.before_keys[at] if write.before_keys else None
            after = write.after_keys[at] if write.after_keys else None
            if before == after:
                continue
            for key in (before, after):
                if key is None:
                    continue
                for prefix in table.prefixes(at, key):
                    moved[hash((ref, prefix))] = position
                    point = points.get(prefix)
                    if point is not None and not (inserted and self._enter(table, at, prefix, point, key, write.id)):
                        self._forget_point(ref, prefix)

    def _enter(self, table: Table, at: int, prefix: bytes, point: _Point, key: bytes, id: str) -> bool:
        """Have a point know of a document that was inserted into its range. False: it cannot."""
        ids, lo, hi = point.ids, point.lo, point.hi
        if (lo is not None and key < lo) or (hi is not None and key >= hi):
            return True  # outside of what is known

        def key_of(id: str) -> bytes:
            row = self._rows[id]
            if row.since == math.inf:
                raise KeyError(id)  # an older version, which may be elsewhere
            row.keys = row.keys or table.keys_of_json(row.json)
            return row.keys[at]

        try:
            place = len(ids) if not ids or key_of(ids[-1]) < key else bisect_left(ids, key, key=key_of)
            ids = (*ids[:place], id, *ids[place:])
            if len(ids) > POINT_ROWS:
                # A range is read where it grows, or there is nothing to be gained by keeping it.
                if place > POINT_ROWS // 2:
                    ids = ids[1:]
                    lo = key_of(ids[0])
                else:
                    hi = key_of(ids[-1])
                    ids = ids[:-1]
        except KeyError:
            return False  # where a row is is not known
        self._bytes -= _point_bytes(prefix, point)
        point.ids, point.lo, point.hi = ids, lo, hi
        self._bytes += _point_bytes(prefix, point)
        return True

    def _forget_point(self, ref: str, prefix: bytes) -> None:
        points = self._points.get(ref)
        point = None if points is None else points.pop(prefix, None)
        if point is not None:
            self._bytes -= _point_bytes(prefix, point)

    def _grow(self, bytes: int) -> None:
        self._bytes += bytes
        if self._bytes > self._size_bytes:
            self._let_go()

    def _let_go(self) -> None:
        """Forget what was put or written longest ago, of whichever kind, until the rest is no larger than it may be."""
        while self._bytes > self._size_bytes:
            kinds: list[dict[Any, Any]] = [self._rows, self._absent, *self._points.values()]
            oldest = min(filter(None, kinds), key=_age)
            for key in list(islice(oldest, 1 + int(len(oldest) * LET_GO))):
                self._bytes -= _bytes(key, oldest.pop(key))

    def check_invariants(self) -> None:
        """Raise AssertionError when the accounts are wrong. For simulations."""
        kinds: list[dict[Any, Any]] = [self._rows, self._absent, *self._points.values()]
        held = sum(_bytes(key, entry) for kind in kinds for key, entry in kind.items())
        assert held == self._bytes <= self._size_bytes, "the cache's size is wrong"
        assert all(
            point.since <= self.position and len(point.ids) <= POINT_ROWS for points in self._points.values() for point in points.values()
        )
        assert all(since <= self.position for since in self._absent.values())


def _row_bytes(json: str) -> int:
    return ROW_BYTES + (CHARACTER_BYTES if json.isascii() else WIDE_CHARACTER_BYTES) * len(json)


def _point_bytes(prefix: bytes, point: _Point) -> int:
    return POINT_BYTES + len(prefix) + ID_BYTES * len(point.ids) + len(point.lo or b"") + len(point.hi or b"")


def _bytes(key: Any, entry: Row | _Point | int) -> int:
    """What an entry of any kind takes."""
    if isinstance(entry, Row):
        return _row_bytes(entry.json)
    return ABSENCE_BYTES if isinstance(entry, int) else _point_bytes(key, entry)


def _age(kind: dict[Any, Any]) -> float:
    """Since when the oldest entry of a kind has been right, which is when it was put, or a little before."""
    entry: Row | _Point | int = next(iter(kind.values()))
    if isinstance(entry, Row):
        return entry.since if entry.since < math.inf else -1.0
    return entry if isinstance(entry, int) else entry.since
