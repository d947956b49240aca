"""One run of a function against the database: a snapshot, a read set, a write set.

Reads take the store's snapshot, then what was accepted before the transaction began but is not in that snapshot yet,
then the transaction's own writes. A transaction is used by one run and closed with it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec import Struct, field

from reactor.engine.read_set import ReadSet, Span
from reactor.engine.resident import Resident
from reactor.engine.row_cache import POINT_ROWS, RowCache
from reactor.engine.store import UNCOMMITTED, Row, StoreSnapshot, Ts, Write
from reactor.engine.write_set import Image, Overlay, scan_under
from reactor.errors import LimitExceeded, ReactorError, StoreError
from reactor.limits import Limits
from reactor.schema.catalog import IndexDef, Table
from reactor.values.interval import FULL, Interval

__all__ = ["Base", "Savepoint", "Scan", "Transaction", "Usage"]

#: Rows fetched at a time by a scan whose size is not known beforehand.
BATCH = 64
#: Rows fetched at a time by any. Bytes are counted once they are there: so many rows at most are in memory beyond what may be read.
MOST_ROWS = 128

T = TypeVar("T")

EMPTY = Overlay()
NO_CACHE = RowCache(0)


class Usage(Struct, gc=False):
    """What a transaction has used of its limits."""

    documents_read: int = 0
    bytes_read: int = 0  # of JSON text
    index_ranges_read: int = 0
    documents_written: int = 0
    bytes_written: int = 0


class Base(Struct, frozen=True, gc=False):
    """The database that a transaction starts from.

    ``overlay`` holds commits that were accepted but may not be in ``snapshot``: those at positions above ``above`` (all
    up to there are in the snapshot) and up to ``upto`` (later ones came after the transaction began). ``cache`` counts in the
    same positions.
    """

    snapshot: StoreSnapshot
    overlay: Overlay = field(default_factory=lambda: EMPTY)
    above: int = 0
    upto: int = 0
    cache: RowCache = NO_CACHE


@dataclass(slots=True, frozen=True)
class Savepoint:
    """Where a nested mutation can be undone to. Made by ``Transaction.savepoint``."""

    position: int
    documents_written: int
    bytes_written: int


class Transaction(Struct, eq=False):
    """Reads and writes of one run. Made by the engine only.

    Attributes:
        now_ms: when it began, ms since the epoch; frozen.
        creation_time: of the next document it inserts, unless ``now_ms`` is later.
        read_set: what it looked at so far.
        usage: what it has used of its limits so far.
        waiting: how many reads wait for the store.
        failed: how the store failed at a read. Then nothing that the run comes to holds, whatever it made of that.
    """

    base: Base
    now_ms: float
    limits: Limits
    read_only: bool
    creation_time: float = 0.0
    read_set: ReadSet = field(default_factory=ReadSet)
    usage: Usage = field(default_factory=Usage)
    waiting: int = 0
    failed: StoreError | None = None
    _own: Overlay = field(default_factory=lambda: EMPTY)  # until the first write
    _before: dict[str, Row | None] = {}  # as the transaction found the documents that it wrote
    _position: int = 0
    _closed: bool = False
    _hidden: dict[tuple[str, bytes], tuple[bytes, bytes]] | None = None  # by index and prefix, see ``_note_hidden``

    @property
    def ts(self) -> Ts:
        """The newest commit of the snapshot. What it reads may be newer where accepted commits lie on top."""
        return self.base.snapshot.ts

    # --- reading

    async def get(self, table: Table, id: str) -> Row | None:
        """The document, or None. Its id joins the read set either way.

        Raises:
            LimitExceeded: too many index ranges, documents or bytes read.
        """
        self.check_open()
        self._count_range()
        self.read_set.add_id(table.by_id, id)
        image = self._own.find(id, 0, self._position) if self._own else None
        if image is not None:
            row = image.row
        else:
            base = self.base
            row = base.cache.row(id, base.upto)
            if row is None and not base.cache.absent(id, base.upto):
                image = base.overlay.find(id, base.above, base.upto) if base.overlay else None
                row = await self._from_store(base.snapshot.get(table, id)) if image is None else _row_of(image)
                if row is None:
                    base.cache.put_absent(id, base.upto)
                else:
                    base.cache.put(row, base.upto)
        if row is not None:
            self._count_row(row)
        return row

    def known_row(self, table: Table, id: str) -> Row | None:
        """The document, if it exists and no statement is needed to tell. It reads as ``get`` would, or not at all.

        Raises:
            LimitExceeded: too many index ranges, documents or bytes read.
        """
        own = self._own
        if own is not EMPTY and own.find(id, 0, self._position) is not None:
            return None
        base = self.base
        row = base.cache.row(id, base.upto)
        if row is None:
            return None
        usage, limits = self.usage, self.limits
        if self._closed or usage.index_ranges_read >= limits.index_ranges_read:
            return None  # ``get`` says why
        usage.index_ranges_read += 1
        usage.documents_read += 1
        usage.bytes_read += len(row.json)
        self.read_set.add_id(table.by_id, id)
        if usage.documents_read > limits.documents_read or usage.bytes_read > limits.bytes_read:
            self._read_too_much()
        return row

    def known(self, table: Table, index: IndexDef, interval: Interval, n: float, reverse: bool) -> list[Row] | None:
        """The first ``n`` rows of ``interval``, or with infinity all, if no statement is needed to tell; else None.

        It reads as ``scan`` would: counts, and joins the read set, alike.

        Raises:
            LimitExceeded: too many index ranges, documents or bytes read.
        """
        lo, hi, prefix = interval.lo, interval.hi, interval.prefix
        base = self.base
        if lo != prefix or (self._own is not EMPTY and self._own.touches(index.table)):
            return None
        rows = base.cache.point(index, prefix, hi, base.upto, n, reverse=reverse)
        if rows is None:
            return None
        usage, limits = self.usage, self.limits
        if self._closed or usage.index_ranges_read >= limits.index_ranges_read:
            return None  # ``scan`` says why
        usage.index_ranges_read += 1
        if len(rows) == n:
            last = rows[-1]
            last.keys = last.keys or table.keys_of_json(last.json)
            key = last.keys[index.position]
            if reverse:
                lo = key
            else:
                hi = key + b"\x00"
        self.read_set.add(index, lo, hi, prefix)
        usage.documents_read += len(rows)
        usage.bytes_read += sum([len(row.json) for row in rows])
        if usage.documents_read > limits.documents_read or usage.bytes_read > limits.bytes_read:
            self._read_too_much()
        return rows

    def version(self, row: Row) -> Row:
        """``row``, or an equal one of which more has been computed."""
        if row.document is None:
            cache = self.base.cache
            known = cache.row(row.id, math.inf)
            if known is not None and known.json == row.json:
                return known
            cache.put(row, self.base.upto if row.ts != UNCOMMITTED else -1)
        return row

    def get_resident(self, resident: Resident, table: Table, id: str) -> str | None:
        """As ``get``, of a table that is held in memory: the document's text, without waiting.

        Raises:
            LimitExceeded: too many index ranges read.
        """
        self.check_open()
        self._count_range()
        self.read_set.add_id(table.by_id, id)
        image = self._image(id)
        return image.json if image is not None else resident.at(self.ts).get(id)

    def all_resident(self, resident: Resident, table: Table) -> list[str]:
        """The texts of all documents of a table that is held in memory.

        Raises:
            LimitExceeded: too many index ranges read.
        """
        self.check_open()
        self._count_range()
        self.read_set.add(table.by_id, FULL.lo, FULL.hi, FULL.prefix)
        over = self._laid_over(table.by_id, FULL.lo, FULL.hi) or []
        below = [json for id, json in resident.at(self.ts).items() if self._image(id) is None]
        return below + [row.json for row in over]

    def scan(self, index: IndexDef, interval: Interval, *, reverse: bool = False) -> Scan:
        """Begin to read ``interval`` of ``index``; nothing is read, and nothing joins the read set, before ``next``."""
        self.check_open()
        self._count_range()
        return Scan(self, index, interval, reverse)

    # --- writing

    def write(
        self,
        table: Table,
        id: str,
        before: Row | None,
        json: str | None,
        keys: tuple[bytes, ...],
        size_bytes: int,
        document: Any = None,
    ) -> None:
        """Put the document ``id``, or delete it with ``json`` None.

        Args:
            before: the document as this transaction last read it, None for a new id.
            json: its whole new text in the wire's encoding.
            keys: its keys in ``table.indexes``, in that order; empty for a deletion.
            size_bytes: what counts towards the limit of bytes written.
            document: what functions read it as, if it can be shared between them.

        Raises:
            LimitExceeded: too many documents or bytes written.
        """
        if self._closed:
            self.check_open()
        assert not self.read_only, "a query's transaction does not write"
        usage, limits = self.usage, self.limits
        usage.documents_written += 1
        usage.bytes_written += size_bytes
        if usage.documents_written > limits.documents_written:
            raise LimitExceeded(
                f"A mutation writes at most {limits.documents_written} documents. Split the work into several mutations.",
                code="TooManyWrites",
            )
        if usage.bytes_written > limits.bytes_written:
            raise LimitExceeded(
                f"A mutation writes at most {limits.bytes_written} bytes of documents, this one came to {usage.bytes_written}. "
                "Split the work into several mutations.",
                code="TooManyBytesWritten",
            )
        if id not in self._before:
            self._before[id] = before
        self._position += 1
        if self._own is EMPTY:
            self._own = Overlay()
        row = None
        if json is not None:
            row = Row(id, UNCOMMITTED, json, b"", keys, document)
        self._own.put(Image(self._position, table, id, json, keys, row))

    def next_creation_time(self) -> float:
        """Creation time for one insert: from the start of the transaction, each the next float above the last."""
        time = max(self.creation_time, self.now_ms)
        self.creation_time = math.nextafter(time, math.inf)
        return time

    def savepoint(self) -> Savepoint:
        """Where the write set stands, to return to with ``rollback``."""
        self.check_open()
        return Savepoint(self._position, self.usage.documents_written, self.usage.bytes_written)

    def rollback(self, savepoint: Savepoint) -> None:
        """Undo every write since ``savepoint``. What was read since stays in the read set, and counted."""
        self._own.drop_above(savepoint.position)
        self._hidden = {}
        self._position += 1  # what a scan fetched ahead is stale
        self.usage.documents_written = savepoint.documents_written
        self.usage.bytes_written = savepoint.bytes_written

    def writes(self) -> tuple[Write, ...]:
        """What the transaction changes in the end, one entry a document; nothing for one inserted and deleted again."""
        changed: list[Write] = []
        for image in self._own.latest():
            before = self._before[image.id]
            if before is None and image.json is None:
                continue
            before_json = None if before is None else before.json
            if before_json == image.json:
                continue
            before_keys = () if before is None else before.keys or image.table.keys_of_json(before.json)
            changed.append(Write(image.table, image.id, before_json, image.json, before_keys, image.keys, image.row))
        return tuple(changed)

    def ended(self) -> Transaction:
        """The same, closed: what the ctx of a nested call has when that call is over and the run is not."""
        view = copy(self)
        view.close()
        return view

    def close(self) -> None:
        """End the run: every later use raises, also from tasks that the function left behind. Idempotent."""
        self._closed = True

    async def _from_store(self, reading: Awaitable[T]) -> T:
        self.waiting += 1
        try:
            return await reading
        except StoreError as error:
            self.failed = error
            raise
        finally:
            self.waiting -= 1

    # --- for Scan

    def _image(self, id: str) -> Image | None:
        """What lies on top of the snapshot for this document."""
        image = self._own.find(id, 0, self._position)
        base = self.base
        if image is None and base.overlay:
            image = base.overlay.find(id, base.above, base.upto)
        return image

    def _newer(self, row: Row) -> Row:
        """The version that was accepted over one of the snapshot, under the same key, if any was."""
        image = self.base.overlay.find(row.id, self.base.above, self.base.upto)
        if image is None:
            return row
        assert image.json is not None, "a document that was deleted has moved"
        return Row(row.id, UNCOMMITTED, image.json, row.key, image.keys)

    def _note_hidden(self, place: tuple[str, bytes], lo: bytes, hi: bytes, rows: Sequence[Row], *, reverse: bool, whole: bool) -> None:
        """Note where the snapshot has no row of ``[lo, hi)`` that counts before the first of ``rows`` that is its own.

        Else a function that takes the first document of a range away, and again the first, passes over all before each time.
        """
        key = next((row.key for row in rows if self._image(row.id) is None), None)
        if key is None and not whole:
            key = rows[-1].key
        if self._hidden is None:
            self._hidden = {}
        if reverse:
            lo = lo if key is None else key + b"\x00"
        else:
            hi = hi if key is None else key
        known = self._hidden.get(place)
        if known is not None and known[0] <= hi and lo <= known[1]:
            lo, hi = min(lo, known[0]), max(hi, known[1])
        self._hidden[place] = lo, hi

    def _laid_over(self, index: IndexDef, lo: bytes, hi: bytes) -> list[Row] | None:
        """The rows in ``[lo, hi)`` that lie on top of the snapshot, ascending; None when no layer knows the table."""
        base = self.base
        own = self._own.touches(index.table)
        accepted = bool(base.overlay) and base.overlay.touches(index.table)
        if not own and not accepted:
            return None
        rows = self._own.rows(index, lo, hi, 0, self._position) if own else []
        if accepted:
            below = base.overlay.rows(index, lo, hi, base.above, base.upto)
            if own:
                below = [row for row in below if self._own.find(row.id, 0, self._position) is None]
            rows = sorted(rows + below, key=_key) if rows else below
        return rows

    def check_open(self) -> None:
        """Raise ReactorError when the run that the transaction belongs to has ended."""
        if self._closed:
            raise ReactorError(
                "The function that this ctx belongs to has ended. Use ctx only inside its own call, and await everything there.",
                code="TransactionClosed",
            )

    def _count_range(self) -> None:
        self.usage.index_ranges_read += 1
        if self.usage.index_ranges_read > self.limits.index_ranges_read:
            raise LimitExceeded(
                f"A function reads at most {self.limits.index_ranges_read} index ranges (each get and each query is one). "
                "Read ranges instead of single documents, or split the work.",
                code="TooManyReads",
            )

    def _count_row(self, row: Row) -> None:
        usage, limits = self.usage, self.limits
        usage.documents_read += 1
        usage.bytes_read += len(row.json)
        if usage.documents_read > limits.documents_read or usage.bytes_read > limits.bytes_read:
            self._read_too_much()

    def _count_rows(self, rows: Sequence[Row]) -> None:
        usage, limits = self.usage, self.limits
        usage.documents_read += len(rows)
        usage.bytes_read += sum([len(row.json) for row in rows])
        if usage.documents_read > limits.documents_read or usage.bytes_read > limits.bytes_read:
            self._read_too_much()

    def _read_too_much(self) -> None:
        usage, limits = self.usage, self.limits
        if usage.documents_read > limits.documents_read:
            raise LimitExceeded(
                f"A function reads at most {limits.documents_read} documents, those that a filter rejects included. "
                "Use an index, take(n) or pagination.",
                code="TooManyDocumentsRead",
            )
        raise LimitExceeded(
            f"A function reads at most {limits.bytes_read} bytes of documents, this one came to {usage.bytes_read}. "
            "Use an index, take(n) or pagination.",
            code="TooManyBytesRead",
        )


class Scan:
    """A range read in steps. The read set covers exactly what was looked at.

    After ``next`` returned fewer rows than asked for, that is the whole interval; before, it ends with the last row.
    """

    __slots__ = ("_ahead", "_ahead_at", "_hi", "_index", "_lo", "_prefix", "_reverse", "_span", "_tx", "exhausted")

    def __init__(self, tx: Transaction, index: IndexDef, interval: Interval, reverse: bool) -> None:
        self._tx = tx
        self._index = index
        self._lo, self._hi, self._prefix = interval.lo, interval.hi, interval.prefix
        self._reverse = reverse
        self._span: Span | None = None
        self._ahead: list[Row] = []  # fetched by ``one`` and not handed out: no part of what was read
        self._ahead_at = 0  # the transaction's position when they were; it moves with every write and rollback
        self.exhausted = interval.lo >= interval.hi

    async def next(self, n: int) -> list[Row]:
        """The next ``n`` rows in order; fewer mean that there are no more.

        Raises:
            LimitExceeded: too many documents or bytes read.
        """
        tx = self._tx
        tx.check_open()
        if n <= 0 or self.exhausted:
            return []
        # One row past the limit is enough to know that it is exceeded, however many are asked for. Whoever goes on after
        # that meets it again.
        n = min(n, max(1, tx.limits.documents_read - tx.usage.documents_read + 1))
        if n > MOST_ROWS:
            found: list[Row] = []
            while len(found) < n and not self.exhausted:
                found += await self.next(min(n - len(found), MOST_ROWS))
            return found
        first = self._span is None
        rows = await self._fetch(n)
        self._ahead = []
        # First the read set, then the limits: a query that fails at one re-runs when what it saw changes.
        prefix, index = self._prefix, self._index
        if (
            first
            and len(rows) <= POINT_ROWS
            and prefix
            and index.position >= 0
            and prefix == self._lo
            and len(self._hi) <= len(prefix)  # and above it: above all that begins with it
            and not tx._own.touches(index.table)
        ):
            cache, upto = tx.base.cache, tx.base.upto
            for row in rows:
                cache.put(row, upto)
            cache.put_point(index, prefix, rows, upto, whole=len(rows) < n, reverse=self._reverse)
        self._advance(rows, exhausted=len(rows) < n)
        tx._count_rows(rows)
        return rows

    async def one(self) -> Row | None:
        """The next row, or None. Rows are fetched several at a time, but those not asked for count as not read.

        Raises:
            LimitExceeded: too many documents or bytes read.
        """
        tx = self._tx
        tx.check_open()
        if not self._ahead or self._ahead_at != tx._position:
            if self.exhausted:
                return None
            # Newest first out of a list's end; a write of the function's own makes what was fetched stale.
            self._ahead = (await self._fetch(BATCH))[::-1]
            self._ahead_at = tx._position
            if not self._ahead:
                self._advance([], exhausted=True)
                return None
        row = self._ahead.pop()
        self._advance([row], exhausted=False)
        tx._count_row(row)
        return row

    async def rest(self) -> list[Row]:
        """All remaining rows.

        Raises:
            LimitExceeded: too many documents or bytes read.
        """
        rows: list[Row] = []
        while not self.exhausted:
            # Growing steps: small ranges cost one small statement, large ones few statements.
            rows += await self.next(max(BATCH, len(rows)))
        return rows

    async def count(self) -> int:
        """How many rows remain. Each counts as read.

        Raises:
            LimitExceeded: too many documents or bytes read.
        """
        total = 0
        while not self.exhausted:
            total += len(await self.next(16 * BATCH))
        return total

    def _advance(self, rows: list[Row], *, exhausted: bool) -> None:
        """Move past ``rows`` and widen the read set by what was looked at to find them."""
        if self._reverse:
            seen_from = self._lo if exhausted else rows[-1].key
            seen_to = self._hi
            self._hi = seen_from
        else:
            seen_from = self._lo
            seen_to = self._hi if exhausted else rows[-1].key + b"\x00"
            self._lo = seen_to
        if self._span is None:
            self._span = self._tx.read_set.add(self._index, seen_from, seen_to, self._prefix)
        elif self._reverse:
            self._span[0] = seen_from
        else:
            self._span[1] = seen_to
        self.exhausted = exhausted

    async def _fetch(self, n: int) -> list[Row]:
        """Up to ``n`` rows from where the scan stands: the snapshot's, merged with what lies over them."""
        tx, index, lo, hi, reverse = self._tx, self._index, self._lo, self._hi, self._reverse
        base = tx.base
        snapshot = base.snapshot
        if base.overlay and not tx._own.touches(index.table) and base.cache.unmoved(index, self._prefix, base.above):
            # The same documents are there as in the snapshot: no need to have the keys of all that lies over it in order.
            found = await tx._from_store(snapshot.scan(index, lo, hi, reverse=reverse, limit=n))
            return [tx._newer(row) for row in found]
        over = tx._laid_over(index, lo, hi)
        if over is None:
            return await tx._from_store(snapshot.scan(index, lo, hi, reverse=reverse, limit=n))

        asked = 0

        def below(lo: bytes, hi: bytes, limit: int) -> Awaitable[list[Row]]:
            nonlocal asked
            asked += 1
            return tx._from_store(snapshot.scan(index, lo, hi, reverse=reverse, limit=limit))

        place, hidden = (index.ref, self._prefix), tx._hidden
        if hidden is not None:
            lo, hi = _past(hidden.get(place), lo, hi, reverse=reverse)
        rows = await scan_under(over, tx._image, below, lo, hi, reverse=reverse, limit=n)
        if asked > 1 and tx._hidden is hidden:  # nothing was undone meanwhile
            tx._note_hidden(place, lo, hi, rows, reverse=reverse, whole=len(rows) < n)
        return rows


def _past(hidden: tuple[bytes, bytes] | None, lo: bytes, hi: bytes, *, reverse: bool) -> tuple[bytes, bytes]:
    """``[lo, hi)`` without what is hidden where it begins, or with ``reverse`` where it ends."""
    if hidden is not None:
        begin, end = hidden
        if reverse and begin <= hi <= end:
            hi = max(lo, begin)
        elif not reverse and begin <= lo <= end:
            lo = min(hi, end)
    return lo, hi


def _row_of(image: Image) -> Row | None:
    return image.row or (None if image.json is None else Row(image.id, UNCOMMITTED, image.json))


def _key(row: Row) -> bytes:
    return row.key
