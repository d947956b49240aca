"""The recent part of the commit log in memory: what snapshots that are still in use have not seen."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from reactor.engine.read_set import ReadSet
from reactor.engine.store import LogEntry, Ts, Write
from reactor.schema.catalog import Table

__all__ = ["CommitLog", "Published", "hydrate"]


class Published(Struct, frozen=True, gc=False):
    """A durable commit."""

    ts: Ts
    writes: Sequence[Write]


class CommitLog:
    """Durable commits in ``ts`` order, back to the oldest pinned snapshot.

    Invariants: entries ascend strictly by ``ts``; every commit with ``start < ts <= head`` is an entry.
    Only the committer appends; only the owner of the pins trims.
    """

    __slots__ = ("_entries", "head", "start")

    def __init__(self, head: Ts) -> None:
        self._entries: deque[Published] = deque()
        self.start = head
        self.head = head

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entry: Published) -> None:
        """Add the next durable commit."""
        assert entry.ts > self.head, "commits are published in ts order"
        self._entries.append(entry)
        self.head = entry.ts

    def advance(self, ts: Ts) -> None:
        """Move the head over commits that wrote no document."""
        assert ts >= self.head, "the head never goes back"
        self.head = ts

    def restart(self, head: Ts) -> None:
        """Go on at ``head``; what lies before it is not known, and counts as having touched everything."""
        assert head >= self.head, "the head never goes back"
        self._entries.clear()
        self.start = self.head = head

    def trim(self, upto: Ts) -> None:
        """Forget entries at or below ``upto``: no snapshot older than it is in use."""
        while self._entries and self._entries[0].ts <= upto:
            self._entries.popleft()
        self.start = max(self.start, min(upto, self.head))

    def first_overlap(self, read_set: ReadSet, after: Ts) -> Ts | None:
        """The first commit after ``after`` that wrote inside ``read_set``, or None.

        A window that no longer reaches back to ``after`` counts as an overlap at its end: better to run again
        than to miss one.
        """
        if after < self.start:
            return self.start
        for entry in self.after(after):
            if read_set.overlaps(entry.writes):
                return entry.ts
        return None

    def check_invariants(self) -> None:
        """Raise AssertionError when the entries are not in order. For simulations."""
        ts = [entry.ts for entry in self._entries]
        assert ts == sorted(set(ts)), "entries out of order"
        assert not ts or (self.start < ts[0] and ts[-1] <= self.head)

    def after(self, ts: Ts) -> Iterator[Published]:
        """The entries above ``ts``, in order. Nothing may be published meanwhile."""
        for back in range(1, len(self._entries) + 1):
            if self._entries[-back].ts <= ts:
                back -= 1
                break
        else:
            back = len(self._entries)
        for at in range(len(self._entries) - back, len(self._entries)):
            yield self._entries[at]


def hydrate(entry: LogEntry, tables: Mapping[str, Table]) -> list[Write]:
    """The writes of a stored log entry with their keys under a schema's ``tables``. Those it does not have are left out."""
    writes: list[Write] = []
    for logged in entry.writes:
        table = tables.get(logged.table)
        if table is not None:
            before = () if logged.before is None else table.keys_of_json(logged.before)
            after = () if logged.after is None else table.keys_of_json(logged.after)
            writes.append(Write(table, logged.id, logged.before, logged.after, before, after))
    return writes
