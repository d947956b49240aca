"""Any history of groups, snapshots and trims reads as a few dictionaries would."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reactor.engine.store import StoreSnapshot, Ts
from reactor.schema.catalog import Table
from reactor.values.interval import END
from tests.stores.library import Book, Library, catalog_of, push
from tests.support.databases import Databases
from tests.support.examples import examples

NAMES = st.sampled_from(["", "a", "a\0", "aa", "b", "é", "\U0001f600"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("group"), st.lists(st.lists(st.tuples(st.integers(0, 9), NAMES, NAMES), max_size=4), max_size=4)),
        st.tuples(st.just("pin"), st.none()),
        st.tuples(st.just("release"), st.integers(0, 9)),
        st.tuples(st.just("scan"), st.tuples(st.integers(0, 9), st.integers(0, 99), st.integers(0, 99), st.booleans(), st.integers(0, 5))),
    ),
    max_size=25,
)


async def check(snapshot: StoreSnapshot, table: Table, model: dict[str, str], a: int, b: int, reverse: bool, limit: int) -> None:
    """One scan of each index between two keys out of the model, or just beside them."""
    for index in (table.by_id, *table.indexes):
        keys = {(id.encode() if index.position < 0 else table.keys_of_json(json)[index.position]): id for id, json in model.items()}
        edges = [b"", END, *(key + end for key in keys for end in (b"", b"\x00"))]
        lo, hi = edges[a % len(edges)], edges[b % len(edges)]
        rows = await snapshot.scan(index, lo, hi, reverse=reverse, limit=limit)
        wanted = sorted((key for key in keys if lo <= key < hi), reverse=reverse)[:limit]
        assert [(row.key, row.id, row.json) for row in rows] == [(key, keys[key], model[keys[key]]) for key in wanted]


async def run(databases: Databases, steps: list[tuple[str, Any]]) -> None:
    catalog = catalog_of(Book)
    store = await databases.open_with(catalog)
    library = Library(store, await push(store, catalog))
    slots: dict[int, str] = {}  # ten documents that come and go
    pins: list[tuple[StoreSnapshot, dict[str, str]]] = []
    for kind, what in steps:
        match kind:
            case "group":
                commits = []
                for writes in what:
                    done = {}
                    for slot, title, shelf in writes:
                        if slot in done:
                            continue
                        if slot not in slots:
                            done[slot] = library.add(title, shelf=shelf)
                            slots[slot] = done[slot].id
                        elif title:
                            done[slot] = library.change(slots[slot], title=title, shelf=shelf)
                        else:
                            done[slot] = library.remove(slots.pop(slot))
                    commits.append(library.commit(*done.values()))
                await library.write(*commits)
            case "pin":
                pins.append((store.snapshot(), dict(library.now)))
            case "release" if pins:
                pins.pop(what % len(pins))[0].release()
            case "scan":
                which, a, b, reverse, limit = what
                pinned = [*pins, (store.snapshot(), library.now)]
                snapshot, model = pinned[which % len(pinned)]
                await check(snapshot, library.books, model, a, b, reverse, limit)
                pinned[-1][0].release()
    for snapshot, model in [*pins, (store.snapshot(), library.now)]:
        await check(snapshot, library.books, model, 0, 1, False, 99)
        assert {id: row.json for id in model if (row := await snapshot.get(library.books, id))} == model
        snapshot.release()
    replayed: dict[str, str] = {}
    for entry in await store.log_after(Ts(0)):
        for write in entry.writes:
            assert replayed.pop(write.id, None) == write.before
            if write.after is not None:
                replayed[write.id] = write.after
    assert replayed == library.now
    await store.close()


@settings(max_examples=examples(30))
@given(steps=STEPS)
def test_a_store_reads_as_dictionaries_would(databases: Databases, steps: list[tuple[str, Any]]) -> None:
    asyncio.run(run(databases, steps))
