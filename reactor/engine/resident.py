"""A small table held in memory, so that functions can read it without waiting, as of any ts in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from reactor.engine.commit_log import Published
from reactor.engine.store import StoreSnapshot, Ts
from reactor.schema.catalog import Table
from reactor.values.interval import FULL

__all__ = ["Resident"]

#: Rows read at a time when the table is loaded.
STEP = 500
#: A version is kept for this long after the next one. No run of a query or mutation lasts as long.
KEPT_NS = 3600 * 10**9


class Resident:
    """The rows of one table, by id, as the log's published commits left them.

    Invariant: ``_versions`` ascend by ts, and the last one is the table as of the newest published commit. A transaction whose
    snapshot is newer than that is validated against what it does not see here, as against any commit of another node.
    """

    __slots__ = ("_table", "_versions")

    def __init__(self, table: str) -> None:
        self._table = table
        self._versions: list[tuple[Ts, Mapping[str, str]]] = [(Ts(0), MappingProxyType({}))]

    @property
    def newest(self) -> Mapping[str, str]:
        """The rows as of the newest published commit."""
        return self._versions[-1][1]

    @property
    def changed_ts(self) -> Ts:
        """When they changed last."""
        return self._versions[-1][0]

    def at(self, ts: Ts) -> Mapping[str, str]:
        """The rows as of ``ts``."""
        for version_ts, rows in reversed(self._versions):
            if version_ts <= ts:
                return rows
        return self._versions[0][1]

    async def load(self, snapshot: StoreSnapshot, table: Table) -> None:
        """Take the rows of a snapshot. What was published after it has to be applied in the same turn of the loop."""
        rows: dict[str, str] = {}
        lo = FULL.lo
        while found := await snapshot.scan(table.by_id, lo, FULL.hi, reverse=False, limit=STEP):
            rows |= {row.id: row.json for row in found}
            lo = found[-1].key + b"\x00"
        self._versions = [(snapshot.ts, MappingProxyType(rows))]

    def apply(self, commits: Sequence[Published]) -> None:
        """Follow commits as they are published."""
        for commit in commits:
            writes = [write for write in commit.writes if write.table.name == self._table]
            if writes:
                rows = dict(self.newest)
                for write in writes:
                    if write.after is None:
                        rows.pop(write.id, None)
                    else:
                        rows[write.id] = write.after
                self._versions.append((commit.ts, MappingProxyType(rows)))
                while self._versions[1][0] < commit.ts - KEPT_NS:
                    del self._versions[0]
