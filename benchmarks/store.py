"""What a commit and a read cost on the SQLite store, beside the same SQL run by apsw alone on the same disk.

    make benchmark-store [ARGS="--seconds 16 --documents 20000 --folder ."]

The bound has nothing to decide and nobody to wait for: one thread, rows ready to be bound, the store's own statements and
settings. What the store takes beyond it is what it costs to keep the event loop free, to read at a pinned commit, and to
turn commits into rows. The two take turns, so that a slow moment of the disk meets both. Times are medians.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Literal, NamedTuple, Protocol

import uvloop

from reactor.engine.store import Commit, Ts, Write
from reactor.schema import Document, Index
from reactor.schema.catalog import Catalog
from reactor.stores.sqlite import SqliteStore
from reactor.stores.sqlite_checkpoints import CHECKPOINT_PAGES
from reactor.stores.sqlite_file import DatabaseFile
from reactor.stores.sqlite_group import HEAD, LOG
from reactor.stores.sqlite_tables import load_tables
from reactor.values.ids import new_id
from reactor.values.interval import END

LEVELS: tuple[Literal["full", "normal"], ...] = ("full", "normal")
GROUPS = (1, 16, 256)
ROUNDS = 4
POINT_READS = 100  # timed together, for the clock costs something too
RANGE_READS = 10
RANGE_ROWS = 50


class Message(Document, table="messages"):
    author: str
    body: str

    by_author = Index("author")


class Source:
    """Makes documents, and knows those that were there at the beginning."""

    def __init__(self, catalog: Catalog) -> None:
        self.table = catalog.tables["messages"]
        self.ids: list[str] = []
        self.keys: list[bytes] = []  # in by_author
        self._rng = random.Random(1)  # noqa: S311 (draws no secrets)

    def write(self) -> Write:
        id = new_id(self.table.number, secrets.token_bytes(14), 20_000)
        author = f"author {self._rng.randrange(100)}"
        fields = {"_creationTime": self._rng.random(), "_id": id, "author": author, "body": "Good morning! " * 4}
        text = json.dumps(fields)
        return Write(self.table, id, None, text, (), self.table.keys_of_json(text))

    def some_ids(self) -> list[str]:
        return self._rng.choices(self.ids, k=POINT_READS)

    def some_keys(self) -> list[bytes]:
        """Each has a full range above it."""
        return self._rng.choices(self.keys[:-RANGE_ROWS], k=RANGE_READS)


class Side(Protocol):
    """One that does the work. Each call returns the seconds that it took, without the making of documents."""

    async def commit(self, group: int) -> float: ...
    async def point_reads(self) -> float: ...
    async def range_reads(self) -> float: ...


class StoreSide:
    """The store, as the engine uses it."""

    def __init__(self, store: SqliteStore, source: Source) -> None:
        self._store = store
        self._source = source
        self._index = source.table.index("by_author")

    async def commit(self, group: int) -> float:
        commits = [Commit([self._source.write()]) for _ in range(group)]
        begin = perf_counter()
        async with self._store.head() as head:
            for ts, commit in enumerate(commits, head.ts + 1):
                commit.ts = Ts(ts)
            await head.write(commits)
        return perf_counter() - begin

    async def point_reads(self) -> float:
        ids, table = self._source.some_ids(), self._source.table
        snapshot = self._store.snapshot()
        begin = perf_counter()
        for id in ids:
            await snapshot.get(table, id)
        seconds = perf_counter() - begin
        snapshot.release()
        return seconds

    async def range_reads(self) -> float:
        keys = self._source.some_keys()
        snapshot = self._store.snapshot()
        begin = perf_counter()
        for key in keys:
            await snapshot.scan(self._index, key, END, reverse=False, limit=RANGE_ROWS)
        seconds = perf_counter() - begin
        snapshot.release()
        return seconds


class Bound:
    """The same statements on two connections of its own, one that writes and one that reads."""

    def __init__(self, file: DatabaseFile, source: Source) -> None:
        self._source = source
        self._writer = file.writer
        self._writer.wal_autocheckpoint(CHECKPOINT_PAGES)
        table = load_tables(self._writer)["messages"]
        self._insert = table.writer(source.table).insert
        self._get = table.get_sql
        self._scan = table.statements(source.table.index("by_author"))[False]
        self._ts: int = self._writer.execute("SELECT head_ts FROM _reactor_meta").get
        self._file = file
        self._reader = file.connect_reader()

    async def commit(self, group: int) -> float:
        writes = list(enumerate((self._source.write() for _ in range(group)), self._ts + 1))
        self._ts += group
        rows = [(write.id, ts, write.after, *write.after_keys) for ts, write in writes]
        log = [(ts, 0, "messages", write.id, None, write.after) for ts, write in writes]
        connection = self._writer
        begin = perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(LOG, log)
        connection.executemany(self._insert, rows)
        connection.execute(HEAD, (self._ts,))
        connection.execute("COMMIT")
        return perf_counter() - begin

    async def point_reads(self) -> float:
        ids = self._source.some_ids()
        execute = self._reader.cursor().execute
        execute("BEGIN")
        begin = perf_counter()
        for id in ids:
            _ = execute(self._get, (id,)).get
        seconds = perf_counter() - begin
        execute("COMMIT")
        return seconds

    async def range_reads(self) -> float:
        keys = self._source.some_keys()
        execute = self._reader.cursor().execute
        execute("BEGIN")
        begin = perf_counter()
        for key in keys:
            execute(self._scan, (key, END, RANGE_ROWS)).fetchall()
        seconds = perf_counter() - begin
        execute("COMMIT")
        return seconds

    def close(self) -> None:
        self._reader.close()
        self._file.close()


class Case(NamedTuple):
    name: str
    operations: int  # that one call of ``work`` does
    work: Callable[[Side], Awaitable[float]]


def commit(group: int, side: Side) -> Awaitable[float]:
    return side.commit(group)


async def fill(path: Path, documents: int) -> Source:
    """Make the database that each side gets a copy of."""
    catalog = Catalog.of({"Message": Message})
    store = SqliteStore.open(path)
    catalog.bind({"messages": (await store.create_table("messages")).number})
    source = Source(catalog)
    for index in source.table.indexes[1:]:
        await store.create_index("messages", index.name, index.fields)
        await store.build_index("messages", index.name)
    await store.finish_schema([source.table])
    writes = [source.write() for _ in range(documents)]
    source.ids = [write.id for write in writes]
    source.keys = sorted(write.after_keys[1] for write in writes)
    async with store.head() as head:
        await head.write([Commit([write], ts=Ts(ts)) for ts, write in enumerate(writes, 1)])
    await store.close()
    return source


async def measure(sides: tuple[Side, Side], case: Case, seconds: float) -> list[float]:
    """µs that each side takes for one operation of the case."""
    samples: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for side, taken in zip(sides, samples, strict=True):
            until = perf_counter() + seconds / ROUNDS / len(sides)
            while not taken or perf_counter() < until:
                taken.append(await case.work(side))
    return [median(taken) / case.operations * 1e6 for taken in samples]


async def main(seconds: float, documents: int, folder: Path) -> None:
    commits = [Case(f"commit, {group} in a group", group, partial(commit, group)) for group in GROUPS]
    reads = [
        Case("point read", POINT_READS, lambda side: side.point_reads()),
        Case(f"read of {RANGE_ROWS} rows", RANGE_READS, lambda side: side.range_reads()),
    ]
    each = seconds / (len(LEVELS) * len(commits) + len(reads))
    with TemporaryDirectory(prefix="reactor-benchmark-", dir=folder) as place:
        made = Path(place) / "made.db"
        source = await fill(made, documents)
        print(f"{'µs':<40}{'store':>10}{'bound':>10}{'ratio':>8}")
        for level in LEVELS:
            paths = [Path(shutil.copyfile(made, Path(place) / f"{level}-{number}.db")) for number in range(2)]
            store, file = SqliteStore.open(paths[0], synchronous=level), DatabaseFile(paths[1], level)
            bound = Bound(file, source)
            for case in [*commits, *(reads if level == LEVELS[-1] else ())]:
                ours, least = await measure((StoreSide(store, source), bound), case, each)
                name = case.name if case in reads else f"{case.name}, synchronous={level}"
                print(f"{name:<40}{ours:>10.1f}{least:>10.1f}{ours / least:>8.2f}", flush=True)
            await store.close()
            bound.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=16, help="of measuring, in all (default: 16)")
    parser.add_argument("--documents", type=int, default=20_000, help="in the database at the beginning (default: 20000)")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure (default: this one)")
    uvloop.run(main(**vars(parser.parse_args())))
