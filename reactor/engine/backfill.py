"""Bringing the stored data to a new schema beside live writes: new tables, indexes, and a check of every document.

The walk over the documents reads snapshots while commits go on; what they changed meanwhile is brought up through the
commit log. Only the last, short, catching-up happens with the committer paused. Nothing is switched before every document
fits: on a misfit the old schema goes on serving, and half-built indexes are left not ready, to be started anew next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reactor.engine.committer import Committer
from reactor.engine.snapshot import Pins
from reactor.engine.store import Row, Store, StoredTable, Ts
from reactor.schema.catalog import Catalog, IndexDef, Table
from reactor.values.interval import FULL

__all__ = ["push"]

#: Documents walked between two turns of the event loop.
STEP = 200


@dataclass(frozen=True, slots=True)
class _Change:
    """What one table needs before the new schema can serve."""

    table: Table
    indexes: tuple[IndexDef, ...]  # to be built
    check: bool  # whether documents must be validated

    async def take(self, store: Store, rows: Sequence[Row]) -> None:
        """Check ``rows`` and give the new indexes their keys."""
        if self.check:
            for row in rows:
                self.table.check_json(row.json)
        if not self.indexes:
            return
        keys = [self.table.keys_of_json(row.json) for row in rows]
        for index in self.indexes:
            await store.fill_index(
                self.table.name, index.name, [(row.id, row.ts, key[index.position]) for row, key in zip(rows, keys, strict=True)]
            )


async def push(store: Store, committer: Committer, pins: Pins, catalog: Catalog, switch: Callable[[], None] | None) -> None:
    """Make ``catalog`` the schema: all or nothing. Its tables get their numbers.

    Raises:
        SchemaError: a document does not fit; it is named, and the schema before goes on.
        StoreError: the database cannot be changed.

    Cancelling it leaves the schema before in force.
    """
    stored = await _create(store, catalog)
    changes = [change for table in catalog.tables.values() if (change := _change(table, stored[table.name]))]
    for change in changes:
        for index in change.indexes:
            await store.create_index(change.table.name, index.name, index.fields)
    since = await _walk(store, pins, changes)
    for change in changes:
        for index in change.indexes:
            await store.build_index(change.table.name, index.name)
    since = await _catch_up(store, pins, changes, since)
    async with committer.paused():
        await _catch_up(store, pins, changes, since)
        await store.finish_schema(list(catalog.tables.values()))
        committer.catalog = catalog
        if switch is not None:
            switch()


async def _create(store: Store, catalog: Catalog) -> dict[str, StoredTable]:
    """Give every table of the catalog its place and number in the database."""
    stored = dict(store.tables())
    for name in catalog.tables:
        if name not in stored:
            stored[name] = await store.create_table(name)
    catalog.bind({name: table.number for name, table in stored.items()})
    return stored


def _change(table: Table, stored: StoredTable) -> _Change | None:
    ready = {(index.name, index.fields) for index in stored.indexes if index.ready}
    missing = tuple(index for index in table.indexes if (index.name, index.fields) not in ready)
    check = stored.shape != table.shape
    return _Change(table, missing, check) if missing or check else None


async def _walk(store: Store, pins: Pins, changes: Sequence[_Change]) -> Ts:
    """Take every document of the changed tables; the ts as of which that is done, at least."""
    pin = pins.pin()
    since = pin.ts
    try:
        for change in changes:
            lo = FULL.lo
            while rows := await pin.snapshot.scan(change.table.by_id, lo, FULL.hi, reverse=False, limit=STEP):
                await change.take(store, rows)
                lo = rows[-1].key + b"\x00"
                # Each step on a snapshot of its own: one that is kept for minutes keeps all commits since in memory, and the database
                # from tidying up behind them. What is newer by then is in the log too.
                before, pin = pin, pins.pin()
                before.release()
                await asyncio.sleep(0)
        return since
    finally:
        pin.release()


async def _catch_up(store: Store, pins: Pins, changes: Sequence[_Change], since: Ts) -> Ts:
    """Take the documents that commits after ``since`` wrote; the ts as of which that is done."""
    by_table = {change.table.name: change for change in changes}
    pin = pins.pin()
    try:
        while by_table and since < pin.ts:
            entries = await store.log_after(since, until=pin.ts)
            if not entries:
                break
            changed = {write.id: write.table for entry in entries for write in entry.writes if write.table in by_table}
            for id, name in changed.items():
                row = await pin.snapshot.get(by_table[name].table, id)
                if row is not None:
                    await by_table[name].take(store, [row])
            since = entries[-1].ts
        return pin.ts
    finally:
        pin.release()
