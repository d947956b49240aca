"""Documents laid over a base: what a transaction will write, and what was accepted but is not yet in a snapshot.

One structure serves both, because both are read the same way: a read takes the base's rows, drops those that the
overlay has an image of, and adds the overlay's images that lie in the range.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import pairwise
from typing import NamedTuple

from reactor.engine.store import Row, Ts
from reactor.schema.catalog import IndexDef, Table

__all__ = ["Image", "Overlay"]

#: Rows of an overlay are not committed; their ts is never read as a position in the log.
UNCOMMITTED = Ts(0)


class Image(NamedTuple):
    """One document as of ``position``: ``json`` is None when it is deleted there."""

    position: int
    table: Table
    id: str
    json: str | None
    keys: tuple[bytes, ...]


class Overlay:
    """Images of documents at growing positions, readable as of any of them.

    A position is whatever the owner counts in: accepted commits, or the writes of one transaction.

    Invariants: the images of a document are in ascending position; ``_keys[ref]`` holds, sorted, exactly the keys
    that some image has in that index; an index without keys has no entry.
    """

    __slots__ = ("_images", "_keys", "_order", "_tables")

    def __init__(self) -> None:
        self._images: dict[str, list[Image]] = {}
        self._keys: dict[str, list[tuple[bytes, str]]] = {}
        self._order: deque[Image] = deque()  # every image, oldest first
        self._tables: dict[str, int] = {}  # how many images each table has

    def __bool__(self) -> bool:
        return bool(self._order)

    def put(self, image: Image) -> None:
        """Lay an image on top. Its position is at or above every other's."""
        self._order.append(image)
        table = image.table
        self._tables[table.name] = self._tables.get(table.name, 0) + 1
        images = self._images.get(image.id)
        if images is None:
            self._images[image.id] = [image]
        else:
            images.append(image)
        if image.json is not None:
            for index, key in zip(table.indexes, image.keys, strict=True):
                self._add_key(index.ref, (key, image.id))
            self._add_key(table.by_id.ref, (image.id.encode(), image.id))

    def touches(self, table: str) -> bool:
        """Whether any document of this table has an image."""
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
        while self._order and self._order[-1].position > position:
            image = self._order.pop()
            self._images[image.id].pop()
            self._forget(image)

    def drop_upto(self, position: int) -> None:
        """Take away all images at or below ``position``: they are in the base of every reader."""
        if self._order and self._order[-1].position <= position:
            self.clear()
            return
        while self._order and self._order[0].position <= position:
            image = self._order.popleft()
            del self._images[image.id][0]
            self._forget(image)

    def clear(self) -> None:
        """Take away everything."""
        self._order.clear()
        self._images.clear()
        self._keys.clear()
        self._tables.clear()

    def check_invariants(self) -> None:
        """Raise AssertionError when the structure contradicts itself. For simulations."""
        expected: dict[str, set[tuple[bytes, str]]] = {}
        for id, images in self._images.items():
            assert images, f"document {id} without images"
            assert all(a.position <= b.position for a, b in pairwise(images)), f"images of {id} out of order"
            for image in images:
                if image.json is not None:
                    for index, key in zip(image.table.indexes, image.keys, strict=True):
                        expected.setdefault(index.ref, set()).add((key, id))
                    expected.setdefault(image.table.by_id.ref, set()).add((id.encode(), id))
        assert {ref: sorted(keys) for ref, keys in expected.items()} == self._keys, "keys differ from the images'"
        assert sum(map(len, self._images.values())) == len(self._order) == sum(self._tables.values())

    def _add_key(self, ref: str, entry: tuple[bytes, str]) -> None:
        keys = self._keys.get(ref)
        if keys is None:
            self._keys[ref] = [entry]
            return
        at = bisect_left(keys, entry)
        if at == len(keys) or keys[at] != entry:
            keys.insert(at, entry)

    def _forget(self, image: Image) -> None:
        """Remove what only ``image``, already taken out of ``_images``, had put into the other fields."""
        left = self._images[image.id]
        if not left:
            del self._images[image.id]
        table = image.table
        self._tables[table.name] -= 1
        if not self._tables[table.name]:
            del self._tables[table.name]
        if image.json is None:
            return
        for position, (index, key) in enumerate(zip(table.indexes, image.keys, strict=True)):
            if not any(other.json is not None and other.keys[position] == key for other in left):
                self._remove_key(index.ref, (key, image.id))
        if not any(other.json is not None for other in left):
            self._remove_key(table.by_id.ref, (image.id.encode(), image.id))

    def _remove_key(self, ref: str, entry: tuple[bytes, str]) -> None:
        keys = self._keys[ref]
        del keys[bisect_left(keys, entry)]
        if not keys:
            del self._keys[ref]
