"""The Protocols a store fulfils, with the promises the engine relies on.

Split by who calls: a ``StoreSnapshot`` reads, a ``Head`` writes groups of commits while it holds the head of the
commit log, a ``Store`` opens, pins snapshots, reads the log, and changes the stored schema.

Words: ``ts`` is the position of a commit in the log. A *durable* commit survives ``kill -9`` and power loss.
On an embedded store no coroutine here suspends but ``Head.write`` and the schema operations.

A store that is not *exclusive* has other nodes. What they commit is found in the log by ``Store.news`` or
``Head.entries_after``, and snapshots have it from ``Store.learn`` on: the engine decides when, so that snapshots never run
ahead of what it has published.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, NewType, Protocol

from msgspec import Struct

from reactor.errors import StoreError
from reactor.histogram import Histogram
from reactor.schema.catalog import IndexDef, Table

__all__ = [
    "DURATION_S",
    "LOG_BYTES",
    "LOG_TRIMMED",
    "OVER",
    "UNCOMMITTED",
    "UNSEEN",
    "WENT_BACK",
    "Commit",
    "Head",
    "LogEntry",
    "LoggedWrite",
    "News",
    "RequestKey",
    "RequestRecord",
    "RequestRepeated",
    "Row",
    "Store",
    "StoreSnapshot",
    "StoredIndex",
    "StoredTable",
    "Ts",
    "Write",
]

Ts = NewType("Ts", int)

#: Code of the error of asking the log for what has been trimmed away, or is more than one node can take up.
LOG_TRIMMED = "LogTrimmed"

#: Code of the error of a database that lacks commits which this node has served.
WENT_BACK = "DatabaseWentBack"

#: Code of the error of a commit that is durable and cannot be read. Its ts must not be given away again, nor what it changed be served.
UNSEEN = "CommitUnseen"

#: Codes of errors after which a store can be used no more. One that is opened anew may do.
OVER = frozenset((WENT_BACK, UNSEEN))

#: Of the texts of documents in the entries that ``Store.log_after`` gives at a time, unless one entry has more.
LOG_BYTES = 8 * 1024 * 1024

#: The ts of rows that are not durable yet; it is never read as a position in the log.
UNCOMMITTED = Ts(0)


class Row(Struct, eq=False, gc=False):
    """One version of a document. ``json`` is its whole text in the wire's encoding, ``_id`` and ``_creationTime`` included.

    A store makes it of its columns alone. The rest is set by whoever first computes it, so that it is computed once for all
    who get the same version from the row cache.

    A struct of msgspec's, as everything that each mutation makes and reads: a class with slots of Python's own takes three times as
    long to make, and a named tuple twice as long to read too. ``gc=False``, where nothing that it holds can lead back to it, makes
    that a fifth less, and spares the collector the look at the many that are kept.

    Attributes:
        ts: of the commit that wrote it; 0 while it is not committed.
        key: in the index that was scanned; empty after a get.
        keys: in ``table.indexes``, in that order; empty while not computed.
        document: what functions read it as, if it can be shared between them.
        since: the committer's position from which on it is known to be the newest version; see ``reactor.engine.row_cache``.
        born: where the document was inserted, if this is its first version and this node saw that.
    """

    id: str
    ts: Ts
    json: str
    key: bytes = b""
    keys: tuple[bytes, ...] = ()
    document: Any = None
    since: float = math.inf
    born: float = -math.inf

    def __eq__(self, other: object) -> bool:
        """Whether the columns are the same."""
        if type(other) is not Row:
            return NotImplemented
        return (self.id, self.ts, self.json, self.key) == (other.id, other.ts, other.json, other.key)


class Write(Struct, gc=False):
    """One document changed by a commit. ``before`` is None for an insert, ``after`` for a delete.

    ``before_keys`` and ``after_keys`` are the document's keys in ``table.indexes``, in that order; empty where
    there is no document. ``row`` is ``after`` with what was computed of it, if this node wrote it.
    """

    table: Table
    id: str
    before: str | None
    after: str | None
    before_keys: tuple[bytes, ...]
    after_keys: tuple[bytes, ...]
    row: Row | None = None


#: Upper bounds of the buckets, seconds, in which a store counts how long its steps take.
DURATION_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RequestKey(NamedTuple):
    """Names one mutation of one client session: what makes it happen once however often it is sent."""

    session: str
    request: int


class RequestRecord(NamedTuple):
    """The remembered answer of a mutation that committed: what its caller got the first time."""

    ts: Ts
    result: bytes  # JSON text of the value
    log_lines: tuple[str, ...]


class Commit(Struct, gc=False):
    """A mutation to be written. ``ts`` is assigned by the committer while it holds the head."""

    writes: Sequence[Write]
    request: RequestKey | None = None
    result: bytes = b"null"
    log_lines: tuple[str, ...] = ()
    ts: Ts = Ts(0)


class LoggedWrite(NamedTuple):
    """One document of a log entry."""

    table: str
    id: str
    before: str | None
    after: str | None


class LogEntry(NamedTuple):
    """One commit as the log keeps it."""

    ts: Ts
    writes: tuple[LoggedWrite, ...]


class News(NamedTuple):
    """Where the log stands, and all of it after some ts."""

    head: Ts
    entries: list[LogEntry]


class RequestRepeated(StoreError):
    """A request of a group was answered before, by another node. Nothing of the group was written. Never leaves the engine."""


class StoreSnapshot(Protocol):
    """The durable database as of ``ts``, for as long as it is not released. Several may be open at once."""

    ts: Ts

    async def get(self, table: Table, id: str) -> Row | None:
        """The document with this id in this table, or None."""
        ...

    async def scan(self, index: IndexDef, lo: bytes, hi: bytes, *, reverse: bool, limit: int) -> list[Row]:
        """At most ``limit`` rows with ``lo <= key < hi``, by ascending key, or descending with ``reverse``."""
        ...

    async def find_request(self, key: RequestKey) -> RequestRecord | None:
        """The remembered answer of this request, or None."""
        ...

    async def newest_request(self, session: str) -> int:
        """The largest request of this session that is remembered; −1 for none."""
        ...

    def release(self) -> None:
        """End the snapshot. Idempotent; no call may be in progress and none may follow."""
        ...


class Head(Protocol):
    """The head of the commit log, held exclusively among all nodes."""

    ts: Ts  # of the newest durable commit, any node's

    async def entries_after(self, ts: Ts) -> list[LogEntry]:
        """What other nodes committed after ``ts``, which is the newest that was learned, in order. Empty on a store of one process."""
        ...

    async def write(self, commits: Sequence[Commit]) -> None:
        """Write rows, key columns, log entries and request records of all ``commits`` in one database transaction.

        Each commit's ``ts`` is set, is above ``self.ts``, and grows along the sequence. Several writes of one
        document follow each other in that order. Durable when it returns; a snapshot pinned from then on is at
        the last commit's ``ts``. A commit without writes and without a request leaves no trace.

        Raises:
            StoreUnavailable: nothing was written, and the same may succeed when the head is held again.
            RequestRepeated, StoreFull, StoreError: nothing of the group was written and the store goes on at the old head.

        Cancelling the caller does not cancel the write: it runs to its end, and the caller waits for it.
        """
        ...


class StoredIndex(NamedTuple):
    """An index as the database has it."""

    name: str
    fields: tuple[str, ...]  # dotted paths by wire name, without the implicit ones
    ready: bool  # False while it is being backfilled


class StoredTable(NamedTuple):
    """A table as the database has it, whether the schema still names it or not."""

    name: str
    number: int  # in ids; never reused
    indexes: tuple[StoredIndex, ...]
    shape: str  # description of the documents that all of its rows are known to fit; "" when never checked


class Store(Protocol):
    """A database. Made and opened by the assembly, closed once.

    Attributes:
        exclusive: whether no other process writes to it: then what this one knows of it stays right.
        durations: in seconds, of what it does over and over, by the step's name; in ``DURATION_S``.
    """

    @property
    def durations(self) -> Mapping[str, Histogram]: ...

    @property
    def exclusive(self) -> bool: ...

    @property
    def behind_s(self) -> float:
        """For how long this node may have missed what others committed, beyond the usual moment."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why this node should get no requests for now: the database does not answer, or has another schema."""
        ...

    def snapshot(self) -> StoreSnapshot:
        """Pin the newest commit that ``Head.write`` has returned for, or that was learned. Never blocks, never waits."""
        ...

    def head(self) -> AbstractAsyncContextManager[Head]:
        """Hold the log's head. Commits of all nodes take turns in it.

        Raises, when it is entered:
            StoreUnavailable, StoreError: it cannot be held.
            SchemaOutdated: another node has pushed another schema than this one's.
        """
        ...

    def head_for_push(self) -> AbstractAsyncContextManager[Head]:
        """The same for the end of a push, whatever schema is in force. The schema operations may be called inside."""
        ...

    async def news(self, after: Ts) -> News:
        """What other nodes committed after ``after``, the newest that was learned. Nothing on a store of one process.

        Raises:
            StoreError: code ``LogTrimmed``: the log does not reach back to ``after``, or has too much after it. ``skip`` goes on without
                it. So does entering ``head``. Code ``DatabaseWentBack``: this store can be used no more, a new one can.
        """
        ...

    def skip(self) -> AbstractAsyncContextManager[StoreSnapshot]:
        """A snapshot at the newest commit of any node. From its end on snapshots are at that one, what lies between was never learned,
        and those from before may fail with StoreUnavailable. The loop does not run between the end and the return.

        Raises, when it is entered:
            StoreError: the database cannot be read.
        """
        ...

    def learn(self, ts: Ts, writes: Sequence[Write] = ()) -> None:
        """Snapshots from now on have the next commit of another node; without writes, all up to ``ts``, which wrote no document."""
        ...

    def on_news(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called whenever there may be news."""
        ...

    async def newest(self) -> Ts:
        """The newest durable commit of any node, at some moment after the call.

        Raises:
            StoreError: the database does not answer.
        """
        ...

    async def count(self, index: IndexDef, lo: bytes, hi: bytes) -> tuple[int, Ts]:
        """How many rows have ``lo <= key < hi``, and as of which ts: that of the newest durable commit, or one after the call.

        By the index alone: no row is read.
        """
        ...

    async def log_after(self, ts: Ts, *, until: Ts | None = None, limit: int = 1000) -> list[LogEntry]:
        """Durable entries with ``ts < entry.ts <= until`` in order, at most ``limit``, and fewer where they are large; none: no more.

        Raises:
            StoreError: code ``LogTrimmed``, when entries after ``ts`` have been trimmed away.
        """
        ...

    async def trim(self, *, log_before: Ts, requests_before: Ts) -> None:
        """Forget log entries and request records below these positions, in bounded steps."""
        ...

    # --- the stored schema: called by a push only, one push at a time

    def pushing(self, tables: Sequence[Table]) -> AbstractAsyncContextManager[None]:
        """No other node pushes meanwhile. Entering it waits for that.

        Raises:
            SchemaOutdated: these tables were the schema before, and another one has replaced them.
        """
        ...

    def tables(self) -> Mapping[str, StoredTable]:
        """What the database has, by table name."""
        ...

    async def create_table(self, name: str) -> StoredTable:
        """Add a table, empty, with ``by_creation_time`` ready.

        Its number is the next free one from 10001 up, or from 1 up if its name begins with '_': then it is a system table.
        """
        ...

    async def create_index(self, table: str, name: str, fields: tuple[str, ...]) -> None:
        """Add an index, not ready: commits do not write its key column yet and rows have none.

        A ready index of the same name and other fields goes on serving until ``finish_schema``. One that is
        already there and not ready is started anew.
        """
        ...

    async def fill_index(self, table: str, name: str, rows: Sequence[tuple[str, Ts, bytes]]) -> None:
        """Set the key of the not-ready index ``name`` of the rows ``(id, ts, key)`` that are still at version ``ts``."""
        ...

    async def build_index(self, table: str, name: str) -> None:
        """Build the b-tree of a not-ready index over the keys filled so far. May take long; reads go on, writes wait."""
        ...

    async def finish_schema(self, tables: Sequence[Table]) -> None:
        """In one transaction: make every not-ready index of ``tables`` ready, drop indexes that they no longer have,
        and remember each table's ``shape``. Tables not named keep their data and indexes.

        The caller guarantees that no commit is in flight and that every row of a not-ready index has its key.
        """
        ...

    async def close(self) -> None:
        """Finish what is being written and release the file or the connections. Idempotent."""
        ...
