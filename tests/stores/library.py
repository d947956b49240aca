"""A small schema for the stores' tests, and a writer that keeps what each document is, so that tests say only what changes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Generic

import orjson
from typing_extensions import TypeVar

from reactor.engine.store import Commit, RequestKey, Store, StoreSnapshot, Ts, Write
from reactor.schema import Document, Index
from reactor.schema.catalog import Catalog, Table
from reactor.values.ids import new_id
from reactor.values.order import encode_key, prefix_end

S = TypeVar("S", bound=Store, default=Store)


class Book(Document, table="books"):
    title: str
    shelf: str = ""
    year: float = 0.0

    by_shelf = Index("shelf", "year")
    by_title = Index("title")


class Reader(Document, table="readers"):
    name: str

    by_name = Index("name")


def catalog_of(*documents: type[Document]) -> Catalog:
    return Catalog.of({document.__name__: document for document in documents})


async def push(store: Store, catalog: Catalog) -> Catalog:
    """What a push does on tables without documents."""
    for name, table in catalog.tables.items():
        stored = store.tables().get(name) or await store.create_table(name)
        ready = {(index.name, index.fields) for index in stored.indexes if index.ready}
        for index in table.indexes:
            if (index.name, index.fields) not in ready:
                await store.create_index(name, index.name, index.fields)
                await store.build_index(name, index.name)
    await store.finish_schema(list(catalog.tables.values()))
    catalog.bind({name: stored.number for name, stored in store.tables().items()})
    return catalog


class Library(Generic[S]):
    """Writes books, one ts after another."""

    def __init__(self, store: S, catalog: Catalog, ts: int = 0) -> None:
        self.store = store
        self.catalog = catalog
        self.books = catalog.tables["books"]
        self.ts = ts
        self.now: dict[str, str] = {}  # each document that there is, as JSON
        self._numbers = itertools.count(ts + 1)

    def new_id(self, table: Table | None = None) -> str:
        """The ids sort in the order in which they are made."""
        number = (table or self.books).number
        return new_id(number, next(self._numbers).to_bytes(14, "big"), 20_000)

    def add(self, title: str, table: Table | None = None, **fields: object) -> Write:
        id = self.new_id(table)
        fields = {"name": title} if table is not None else {"title": title, "shelf": "", "year": 0.0} | fields
        return self._write(table or self.books, id, {"_id": id, "_creationTime": float(len(self.now)), **fields})

    def change(self, id: str, **fields: object) -> Write:
        return self._write(self.books, id, orjson.loads(self.now[id]) | fields)

    def remove(self, id: str) -> Write:
        return self._write(self.books, id, None)

    def _write(self, table: Table, id: str, fields: dict[str, object] | None) -> Write:
        before = self.now.pop(id, None)
        after = None if fields is None else orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()
        if after is not None:
            self.now[id] = after
        return Write(table, id, before, after, keys_of(table, before), keys_of(table, after))

    def next_ts(self) -> Ts:
        self.ts += 10
        return Ts(self.ts)

    def commit(self, *writes: Write, request: RequestKey | None = None, result: bytes = b"null", log_lines: tuple[str, ...] = ()) -> Commit:
        return Commit(writes, request, result, log_lines, self.next_ts())

    async def write(self, *commits: Commit) -> None:
        async with self.store.head() as head:
            await head.write(commits)
        await asyncio.sleep(0)  # as there is a turn of the loop between two groups of the committer

    async def put(self, *writes: Write) -> Ts:
        """Commit ``writes`` alone."""
        commit = self.commit(*writes)
        await self.write(commit)
        return commit.ts


def keys_of(table: Table, json: str | None) -> tuple[bytes, ...]:
    return () if json is None else table.keys_of_json(json)


def title(json: str) -> str:
    return str(orjson.loads(json)["title"])


async def titles(
    snapshot: StoreSnapshot, table: Table, index: str = "by_creation_time", *equal: object, reverse: bool = False
) -> list[str]:
    """The titles in a range of an index, all of it unless its first fields are said."""
    prefix = b"".join(encode_key(value) for value in equal)
    rows = await snapshot.scan(table.index(index), prefix, prefix_end(prefix), reverse=reverse, limit=10_000)
    return [title(row.json) for row in rows]


def ids_of(writes: Sequence[Write]) -> list[str]:
    return [write.id for write in writes]
