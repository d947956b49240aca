"""Pages of a query: where one begins and ends, and how it stays gapless while documents come and go.

A page is the half-open interval (cursor, end]. A cursor is the key of the last row before it, so deleting that row neither
skips nor repeats anything. The first run of a subscribed page finds its end and puts it into the journal; later runs read up
to that end, whatever the number of items asked for, so that neighbours neither overlap nor leave a gap.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from msgspec import Struct

from reactor.engine.store import Row
from reactor.engine.transaction import Scan, Transaction
from reactor.errors import QueryError
from reactor.functions.cursors import Cursors
from reactor.limits import Limits
from reactor.schema.catalog import Table
from reactor.schema.document import Document
from reactor.schema.index import IndexRange
from reactor.schema.pagination import PaginationOptions, PaginationResult
from reactor.values.interval import END, Interval

__all__ = ["Pager"]

D = TypeVar("D", bound=Document)

#: Rows read at a time, so that a budget is overrun by little.
_STEP = 64
#: A page that used more of what a function may read than this recommends its own split.
_RECOMMENDED = 0.75
#: A page stops before the function's own limits, which would fail it.
_REQUIRED = 0.9


class Pager(Struct, eq=False):
    """The pages of one execution of a function, which may have one.

    Attributes:
        journal: the end of the page, for the next run; as it was given when there was no page.
        joinable: whether the page's size is what a newcomer would expect.
    """

    _cursors: Cursors
    journal: str | None
    joinable: bool = True
    _used: bool = False

    async def page(
        self,
        tx: Transaction,
        limits: Limits,
        table: Table,
        range: IndexRange[D],
        reverse: bool,
        options: PaginationOptions,
        kept: Callable[[list[Row]], Awaitable[list[D]]],
    ) -> PaginationResult[D]:
        """Read one page of ``range``.

        Raises:
            CursorError, QueryError: as ``DocumentQuery.paginate``.
        """
        if self._used:
            raise QueryError(
                "A function can paginate one query. Move the other into a query of its own.", code="MultiplePaginatedDatabaseQueries"
            )
        self._used = True
        if not 1 <= options.num_items <= limits.page_items:
            raise QueryError(f"num_items is {options.num_items}; it has to be 1 to {limits.page_items}.", code="InvalidPaginationLimit")
        fingerprint = range.fingerprint + (b"\x01" if reverse else b"\x00")
        end_text = options.end_cursor if options.end_cursor is not None else self.journal
        begin = None if options.cursor is None else self._cursors.read(fingerprint, options.cursor)
        end = None if end_text is None else self._cursors.read(fingerprint, end_text)
        interval = _between(range.interval, reverse, begin, end)
        scan = tx.scan(table.index(range.index), interval, reverse=reverse)
        reading = _Reading(scan, tx, limits, options)
        found = await reading.rows(None if end is not None else options.num_items, kept)
        if end is None:
            end = END if reading.ended else reading.last
        cursor = self._cursors.make(fingerprint, end) if end is not None else options.cursor
        if cursor is None:
            # Nothing could be read at all: the budget was used up before. The page ends where it begins.
            raise QueryError("The function had read its limit before the page began. Paginate first.", code="TooManyDocumentsRead")
        self.journal = cursor
        status = reading.status(len(found))
        grown = len(found) > 2 * options.num_items
        middle = reading.middle()
        split = self._cursors.make(fingerprint, middle) if middle is not None and (status is not None or grown) else None
        shrunk = not reading.ended and 2 * len(found) < options.num_items
        self.joinable = status is None and not shrunk and 2 * len(found) <= 3 * options.num_items
        return PaginationResult[Any](
            page=found, is_done=end == END and reading.ended, continue_cursor=cursor, split_cursor=split, page_status=status
        )


class _Reading:
    """Reads the rows of one page within its budgets."""

    __slots__ = ("_bytes", "_keys", "_limits", "_most_bytes", "_most_rows", "_scan", "_stopped", "_tx")

    def __init__(self, scan: Scan, tx: Transaction, limits: Limits, options: PaginationOptions) -> None:
        self._scan = scan
        self._tx = tx
        self._limits = limits
        self._keys: list[bytes] = []
        self._bytes = 0
        self._stopped = False
        self._most_rows = options.maximum_rows_read or limits.documents_read
        self._most_bytes = options.maximum_bytes_read or limits.bytes_read

    @property
    def ended(self) -> bool:
        """Whether everything up to the end was read."""
        return self._scan.exhausted

    @property
    def last(self) -> bytes | None:
        """The key of the last row read."""
        return self._keys[-1] if self._keys else None

    async def rows(self, wanted: int | None, kept: Callable[[list[Row]], Awaitable[list[D]]]) -> list[D]:
        """Read until ``wanted`` documents were kept, or to the end with None."""
        found: list[D] = []
        while not self._scan.exhausted and (wanted is None or len(found) < wanted):
            step = self._step() if wanted is None else min(self._step(), wanted - len(found))
            if step < 1:
                self._stopped = True
                break
            rows = await self._scan.next(step)
            self._keys += [row.key for row in rows]
            self._bytes += sum(len(row.json) for row in rows)
            found += await kept(rows)
        return found

    def _step(self) -> int:
        """How many rows the budgets allow next."""
        usage, limits = self._tx.usage, self._limits
        rows = min(self._most_rows - len(self._keys), int(limits.documents_read * _REQUIRED) - usage.documents_read)
        left = min(self._most_bytes - self._bytes, int(limits.bytes_read * _REQUIRED) - usage.bytes_read)
        if left <= 0:
            return 0
        # As many as fit if they are like those before; a first few to find out.
        fit = left * len(self._keys) // self._bytes if self._bytes else 8
        return min(rows, max(1, fit), max(_STEP, len(self._keys)))

    def middle(self) -> bytes | None:
        """The key of a row inside the page to split it after."""
        return self._keys[(len(self._keys) - 1) // 2] if len(self._keys) > 1 else None

    def status(self, found: int) -> Literal["SplitRecommended", "SplitRequired"] | None:
        if self._stopped:
            return "SplitRequired"
        limits = self._limits
        large = found > limits.page_split_items
        if large or len(self._keys) > limits.documents_read * _RECOMMENDED or self._bytes > limits.bytes_read * _RECOMMENDED:
            return "SplitRecommended"
        return None


def _between(interval: Interval, reverse: bool, begin: bytes | None, end: bytes | None) -> Interval:
    """The part of ``interval`` after ``begin``, up to and including ``end``, in the order of reading."""
    lo, hi, prefix = interval.lo, interval.hi, interval.prefix
    if reverse:
        if begin is not None:
            hi = lo if begin == END else min(hi, begin)
        if end is not None and end != END:
            lo = max(lo, end)
    else:
        if begin is not None:
            lo = hi if begin == END else max(lo, begin + b"\x00")
        if end is not None and end != END:
            hi = min(hi, end + b"\x00")
    return Interval(lo, max(lo, hi), prefix)
