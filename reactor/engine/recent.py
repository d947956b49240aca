"""What was written lately, and whether that was inside what a mutation has read.

A mutation that waited for its database is checked against all that was written meanwhile: hundreds of commits, where many wait at
a time. So once there are many, the last position at which anything was written under each equality prefix is noted, each commit
once: a mutation under whose prefixes nothing was written, as most are, is checked by looking those up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from reactor.engine.read_set import ReadSet, places
from reactor.engine.store import Write

__all__ = ["Change", "Recent"]

#: Changes above a position that are looked through one by one.
FEW = 4

#: Prefixes that are noted before those of forgotten changes are.
NOTED = 20_000


class Change(Struct, frozen=True, gc=False):
    """What was written at a position.

    Attributes:
        undone: it takes back what was accepted.
    """

    position: int
    writes: Sequence[Write]
    undone: bool


class Recent:
    """Changes at growing positions.

    Invariant: ``_written`` has, of each index and prefix, the last position up to ``_upto`` at which a kept change wrote there.
    """

    __slots__ = ("_changes", "_upto", "_written")

    def __init__(self) -> None:
        self._changes: deque[Change] = deque()
        self._written: dict[tuple[str, bytes], int] = {}
        self._upto = 0

    def add(self, change: Change) -> None:
        """The next change."""
        self._changes.append(change)

    def overlapping(self, read_set: ReadSet, after: int, *, undone_only: bool = False) -> Change | None:
        """The newest change above ``after`` that put, moved or removed a document inside what was read."""
        changes = self._changes
        if len(changes) > FEW and changes[-FEW].position > after and not self._may_overlap(read_set, after):
            return None
        for change in reversed(changes):
            if change.position <= after:
                break
            if (change.undone or not undone_only) and read_set.overlaps(change.writes):
                return change
        return None

    def drop_upto(self, position: int) -> None:
        """Forget the changes at or below ``position``."""
        changes = self._changes
        while changes and changes[0].position <= position:
            changes.popleft()
        if len(self._written) > NOTED:
            self._written.clear()
            self._upto = changes[0].position - 1 if changes else 0

    def clear(self) -> None:
        """Forget all."""
        self._changes.clear()

    def _may_overlap(self, read_set: ReadSet, after: int) -> bool:
        """Whether anything was written above ``after`` under a prefix that was read under."""
        written = self._written
        fresh = 0
        for change in reversed(self._changes):
            if change.position <= self._upto:
                break
            fresh += 1
        for at in range(len(self._changes) - fresh, len(self._changes)):
            change = self._changes[at]
            for place in places(change.writes):
                written[place] = change.position
            self._upto = change.position
        for ref, by_prefix in read_set.spans.items():
            for prefix in by_prefix:
                if written.get((ref, prefix), 0) > after:
                    return True
        return False
