"""Documents laid over a base: what a transaction will write, and what was accepted but is not yet in a snapshot.

One structure serves both, because both are read the same way: a read takes the base's rows, drops those that the
overlay has an image of, and adds the overlay's images that lie in the range.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice, pairwise

from msgspec import Struct, field

from reactor.engine.store import UNCOMMITTED, Row
from reactor.schema.catalog import IndexDef, Table

__all__ = ["Image", "Overlay", "scan_under"]

#: Images that are gone before the keys that they left are swept, beside as many as there are.
STALE = 64
#: Keys that are put in one by one; more are sorted with the others.
FEW = 16
#: Rows of a base that are asked for at a time, at most, when images hide those asked for.
HIDDEN_ROWS = 128


class Image(Struct, eq=False, gc=False):
    """One document as of ``position``: ``json`` is None when it is deleted there. ``row`` is the same with what was computed of it."""

    position: int
    table: Table
    id: str
    json: str | None
    keys: tuple[bytes, ...]
    row: Row | None = None


class Overlay(Struct, eq=False, gc=False):
    """Images of documents at growing positions, readable as of any of them.

    A position is whatever the owner counts in: accepted commits, or the writes of one transaction.

    Most images are never met by a scan, only found by id: they are put into an index's sorted keys when one is scanned,
    and their keys stay there until they are many, for a scan passes over those that lead to no image.

    Invariants: the images of a document are in ascending position; ``_keys[ref]`` is sorted and has the keys in that index of
    the first ``_sorted`` images in ``_order``; it may have others.
    """

    _images: dict[str, list[Image]] = {}
    _keys: dict[str, list[tuple[bytes, str]]] = {}
    _order: deque[Image] = field(default_factory=deque)  # every image, oldest first
    _sorted: int = 0
    _stale: int = 0  # images that are gone and may have left their keys
    _tables: set[str] = set()  # of the images, and perhaps of some that are gone

    def __bool__(self) -> bool:
        return bool(self._order)

    def put(self, image: Image) -> None:
        """Lay an image on top. Its position is at or above every other's."""
        self._order.append(image)
        table = image.table.name
        if table not in self._tables:
            self._tables.add(table)
        images = self._images.get(image.id)
        if images is None:
            self._images[image.id] = [image]
        else:
            images.append(image)

    def touches(self, table: str) -> bool:
        """Whether any document of this table may have an image."""
        return table in self._tables

    def find(self, id: str, above: int, upto: int) -> Image | None:
        """The newest image of this document with ``above < position <= upto``, or None when the base has the word."""
        images = self._images.get(id)
        if images is not None:
            for image in reversed(images):
                if image.position <= upto:
                    return image if image.position > above else None
        return None

    def rows(self, index: IndexDef, lo: bytes, hi: bytes, above: int, upto: int) -> list[Row]:
        """The documents whose image as of ``upto`` has its key in ``[lo, hi)``, by ascending key."""
        if self._sorted < len(self._order):
            self._sort()
        keys = self._keys.get(index.ref)
        if not keys:
            return []
        found: list[Row] = []
        by_id = index.position < 0
        for at in range(bisect_left(keys, (lo, "")), bisect_left(keys, (hi, ""))):
            key, id = keys[at]
            image = self.find(id, above, upto)
            if image is not None and image.json is not None and (by_id or image.keys[index.position] == key):
                found.append(Row(id, UNCOMMITTED, image.json, key))
        return found

    def latest(self) -> list[Image]:
        """The newest image of every document that has one, in the order in which the documents were first put."""
        return [images[-1] for images in self._images.values()]

    def drop_above(self, position: int) -> None:
        """Take away all images above ``position``: what a rollback does."""
        order, images = self._order, self._images
        gone = 0
        while order and order[-1].position > position:
            id = order.pop().id
            left = images[id]
            left.pop()
            if not left:
                del images[id]
            gone += 1
        self._sorted = min(self._sorted, len(order))
        self._forget(gone)

    def drop_upto(self, position: int) -> None:
        """Take away all images at or below ``position``: they are in the base of every reader."""
        if self._order and self._order[-1].position <= position:
            self.clear()
            return
        order, images = self._order, self._images
        gone = 0
        while order and order[0].position <= position:
            id = order.popleft().id
            left = images[id]
            if len(left) == 1:
                del images[id]
            else:
                del left[0]
            gone += 1
        self._sorted = max(self._sorted - gone, 0)
        self._forget(gone)

    def clear(self) -> None:
        """Take away everything."""
        self._order.clear()
        self._sorted = 0
        self._images.clear()
        self._keys.clear()
        self._tables.clear()
        self._stale = 0

    def check_invariants(self) -> None:
        """Raise AssertionError when the structure contradicts itself. For simulations."""
        for document, images in self._images.items():
            assert images, f"document {document} without images"
            assert all(a.position <= b.position for a, b in pairwise(images)), f"images of {document} out of order"
        for ref, keys in self._keys.items():
            assert keys == sorted(set(keys)), f"keys of {ref} out of order"
        assert 0 <= self._sorted <= len(self._order)
        for image in islice(self._order, self._sorted):
            if image.json is not None:
                for ref, entry in _entries(image):
                    keys = self._keys[ref]
                    assert keys[bisect_left(keys, entry)] == entry, f"{entry} is missing from the keys of {ref}"
        assert sum(map(len, self._images.values())) == len(self._order)
        assert self._tables >= {image.table.name for image in self._order}, "a table is missing"
        assert sum(map(len, self._keys.values())) <= 65 * (2 * len(self._order) + STALE + 1), "stale keys pile up"

    def _forget(self, gone: int) -> None:
        """So many images were taken out of ``_order`` and ``_images``. Their keys and tables stay until they are many."""
        self._stale += gone
        if self._stale > len(self._order) + STALE:
            self._keys.clear()
            self._sorted = 0
            self._tables = {image.table.name for image in self._order}
            self._stale = 0

    def _sort(self) -> None:
        """Have every image's keys in ``_keys``."""
        grown: dict[str, list[tuple[bytes, str]]] = {}
        for image in islice(reversed(self._order), len(self._order) - self._sorted):
            if image.json is not None:
                for ref, entry in _entries(image):
                    grown.setdefault(ref, []).append(entry)
        self._sorted = len(self._order)
        for ref, entries in grown.items():
            keys = self._keys.setdefault(ref, [])
            if len(entries) > FEW:
                self._keys[ref] = sorted({*keys, *entries})
                continue
            for entry in entries:
                at = bisect_left(keys, entry)
                if at == len(keys) or keys[at] != entry:
                    keys.insert(at, entry)


def _entries(image: Image) -> list[tuple[str, tuple[bytes, str]]]:
    """The keys of an image, by index."""
    entries = [(index.ref, (key, image.id)) for index, key in zip(image.table.indexes, image.keys, strict=True)]
    entries.append((image.table.by_id.ref, (image.id.encode(), image.id)))
    return entries


async def scan_under(
    over: list[Row],
    hides: Callable[[str], object],
    below: Callable[[bytes, bytes, int], Awaitable[list[Row]]],
    lo: bytes,
    hi: bytes,
    *,
    reverse: bool,
    limit: int,
) -> list[Row]:
    """At most ``limit`` rows of ``[lo, hi)`` with images laid over those of a base.

    Args:
        over: the images' rows in that range, by ascending key. Taken over.
        hides: gives something else than None for a document that has an image.
        below: scans the base, in the same direction, for so many rows at most.
    """
    if reverse:
        over.reverse()
    merged: list[Row] = []
    at = 0  # in `over`
    ask = limit
    while True:
        rows = await below(lo, hi, ask)
        for row in rows:
            if hides(row.id) is not None:
                continue
            while at < len(over) and (over[at].key > row.key if reverse else over[at].key < row.key):
                merged.append(over[at])
                at += 1
            merged.append(row)
        if len(rows) < ask:
            merged += over[at:]
            return merged[:limit]
        if len(merged) >= limit:
            return merged[:limit]
        if reverse:
            hi = rows[-1].key
        else:
            lo = rows[-1].key + b"\x00"
        # A first row below thousands that were deleted is not looked for one by one.
        ask = max(ask, min(2 * ask, HIDDEN_ROWS))
