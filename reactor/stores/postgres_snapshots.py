"""Reading on Postgres: snapshots at any recent ts, over few read transactions.

A *reader* is a connection in a REPEATABLE READ transaction, whose first statement read the head of the log: the database as of
that ts. Readers are opened when they are first needed, live for a moment, and are shared. A snapshot at another ts is made from
what the log says lies between the two:

- The node knows every commit up to the ts that it has applied. What they wrote since the oldest reader was opened is kept as
  images, which are laid over an older reader.
- A reader may also be older because it is on a hot standby; then images are kept from where that is. See ``postgres_standby``.
- A reader may be newer than the snapshot, by commits of other nodes, or when the one before it was lost with its connection.
  Then the log's entries between the two are taken back, as in a read of the past.

So a snapshot costs nothing until it is read, needs no connection of its own, and outlives the loss of a connection. What was
read or written lately is not asked for here at all: the engine's row cache has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import Context
from typing import Any, NamedTuple, TypeVar

from msgspec import structs

from reactor.engine.commit_log import hydrate
from reactor.engine.eager import detached
from reactor.engine.store import DURATION_S, LOG_TRIMMED, RequestKey, RequestRecord, Row, Ts, Write
from reactor.engine.write_set import Image, Overlay, scan_under
from reactor.errors import StoreError, StoreUnavailable
from reactor.histogram import Histogram
from reactor.schema.catalog import IndexDef, Table
from reactor.stores.postgres_connections import ANSWER_S, ERRORS, PATIENCE_S, Connection, Connections, Server, is_lost
from reactor.stores.postgres_log import read_log
from reactor.stores.postgres_standby import IMAGE_BYTES, STANDBY_ANSWER_S, Standby
from reactor.stores.postgres_tables import KeyRange, SqlTable, load_tables, table_of

__all__ = ["PostgresSnapshot", "Snapshots", "session_key"]

T = TypeVar("T")

#: A reader older than this is not joined while another can be opened, and ends when nobody holds it.
READER_AGE_S = 0.05

#: A reader with so many statements waiting is not joined while another can be opened.
READER_QUEUE = 3

#: Rows that are asked for in one statement, unless a single range is of more.
STATEMENT_ROWS = 4096

#: How long after a read failed it is tried again.
RETRY_S = 0.05

#: What is measured: opening a read transaction, the wait for a connection included; one statement in it.
STEPS = ("snapshot", "read")

#: Takes back what a row was at a later ts.
_UNDONE = 1


class Layer(NamedTuple):
    """What lies over a reader's rows: images at positions above ``above`` and up to ``upto``."""

    images: Overlay
    above: int
    upto: int

    def find(self, id: str) -> Image | None:
        return self.images.find(id, self.above, self.upto)

    def rows(self, index: IndexDef, lo: bytes, hi: bytes) -> list[Row]:
        return self.images.rows(index, lo, hi, self.above, self.upto)


class _Waiting(NamedTuple):
    statement: Callable[[Connection], Coroutine[Any, Any, Any]]
    future: asyncio.Future[Any]


class Reader:
    """A read transaction, used by many. Statements wait for each other; ranges of one index that wait are sent as one statement.

    Args:
        primary: of what it is to read.
        standby: where it is to be opened, if it can.

    Attributes:
        floor: it is at this ts or a later one.
        ts: where it is, once ``opened`` is done.
        standby: where it is; None: on the primary.
        holders: snapshots that hold it.
        lost: why it can be used no more.
    """

    def __init__(self, primary: Snapshots, standby: Standby | None) -> None:
        self.floor = primary.ts if standby is None or standby.floor is None else standby.floor
        self.ts = Ts(0)
        self.standby = standby
        self.holders = 0
        self.lost: StoreError | None = None
        self._tables_version, self.tables = primary.tables
        self.born = asyncio.get_running_loop().time()
        self._primary = primary
        self._connection: Connection | None = None
        self._ranges: dict[str, dict[tuple[Any, ...], list[asyncio.Future[list[Row]]]]] = {}  # by statement, bounds and limit
        self._statements: list[_Waiting] = []
        self._undone: dict[Ts, asyncio.Future[Layer]] = {}
        self._work: asyncio.Task[None] | None = None
        self.opened = detached(self._open())

    @property
    def queue(self) -> int:
        """How much waits."""
        return len(self._statements) + len(self._ranges)

    async def scan(self, range: KeyRange, limit: int) -> list[Row]:
        """At most ``limit`` rows of a range."""
        future: asyncio.Future[list[Row]] = asyncio.get_running_loop().create_future()
        self._ranges.setdefault(range.sql, {}).setdefault((*range.bounds, limit), []).append(future)
        self._go_on()
        return await future

    async def run(self, statement: Callable[[Connection], Coroutine[Any, Any, Any]]) -> Any:
        """What ``statement`` gives, when its turn has come."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._statements.append(_Waiting(statement, future))
        self._go_on()
        return await future

    async def taken_back_to(self, ts: Ts, schema: Mapping[str, Table]) -> Layer:
        """What makes this reader the database as of ``ts``, before its own."""
        undone = self._undone.get(ts)
        if undone is None:
            undone = self._undone[ts] = detached(self._take_back(ts, schema))
        return await asyncio.shield(undone)

    def drop(self, error: StoreError) -> None:
        """Let nobody use it any more."""
        self._lose(error)

    async def end(self) -> None:
        """Give the connection back. Nobody holds the reader."""
        await asyncio.wait((self.opened,))
        if self._work is not None:
            await asyncio.wait((self._work,))
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.execute("COMMIT")
        except ERRORS:
            self._connections.drop(connection)
        else:
            self._connections.give_back(connection)

    @property
    def _server(self) -> Server:
        return (self.standby or self._primary).server

    @property
    def _connections(self) -> Connections:
        return (self.standby or self._primary).connections

    async def _open(self) -> None:
        try:
            if self.standby is not None and not await self._begin_on(self.standby):
                self.standby = self.lost = None
            if self._connection is None:
                await self._begin()
        except StoreError as error:
            self._lose(error)
        else:
            if self.lost is not None:  # while it was opened
                self._lose(self.lost)

    async def _begin_on(self, standby: Standby) -> bool:
        """Begin the transaction on the standby. Whether that does."""
        try:
            version, in_recovery = await self._begin(STANDBY_ANSWER_S)
        except StoreError as error:
            standby.lose(error)
            return False
        if standby.opened(self.ts, version, in_recovery, self.floor):
            return True
        assert self._connection is not None
        standby.connections.drop(self._connection)
        self._connection = None
        return False

    async def _begin(self, timeout_s: float = ANSWER_S) -> tuple[int, bool]:
        """Begin the transaction. The version of its tables, and whether it is on a standby.

        Raises:
            StoreUnavailable, StoreError: it cannot be begun.
        """
        connection: Connection | None = None
        try:
            connection = await self._connections.take()
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", timeout=timeout_s)
            self.ts, version, in_recovery = await connection.fetchrow(
                "SELECT head_ts, tables_version, pg_is_in_recovery() FROM _reactor_head", timeout=timeout_s
            )
            if version != self._tables_version:
                self.tables = await load_tables(connection)
        except Exception as error:
            if connection is not None:
                self._connections.drop(connection)
            raise self._server.error(error) from error
        self._primary.durations["snapshot"].add(asyncio.get_running_loop().time() - self.born)
        self._connection = connection
        return version, in_recovery

    async def _take_back(self, ts: Ts, schema: Mapping[str, Table]) -> Layer:
        images = Overlay()
        seen: set[str] = set()
        for entry in await self.run(lambda connection: read_log(connection, ts, self.ts, NO_LIMIT, NO_LIMIT)):
            for write in hydrate(entry, schema):
                # The first change after ts has what was there at ts.
                if write.id not in seen:
                    seen.add(write.id)
                    images.put(Image(_UNDONE, write.table, write.id, write.before, write.before_keys))
        return Layer(images, 0, _UNDONE)

    def _go_on(self) -> None:
        if self._work is None and self.lost is None:
            self._work = detached(self._answer())
        elif self.lost is not None:
            self._lose(self.lost)

    async def _answer(self) -> None:
        """Send what waits until nothing does."""
        try:
            while self._connection is not None and (self._statements or self._ranges):
                if self._statements:
                    await self._answer_statement(self._connection, self._statements.pop(0))
                if self._ranges and self._connection is not None:
                    await self._answer_ranges(self._connection, next(iter(self._ranges)))
        finally:
            self._work = None

    async def _answer_statement(self, connection: Connection, waiting: _Waiting) -> None:
        if waiting.future.done():
            return  # nobody waits any more
        started = time.perf_counter()
        try:
            found = await waiting.statement(connection)
            self._primary.durations["read"].add(time.perf_counter() - started)
        except Exception as error:
            self._fail([waiting.future], error)
        else:
            if not waiting.future.done():
                waiting.future.set_result(found)

    async def _answer_ranges(self, connection: Connection, sql: str) -> None:
        waiting = self._ranges.pop(sql)
        asked: dict[tuple[Any, ...], list[asyncio.Future[list[Row]]]] = {}
        rows = 0
        while waiting and rows < STATEMENT_ROWS:
            range = next(iter(waiting))
            futures = waiting.pop(range)
            if not all(future.done() for future in futures):
                asked[range] = futures
                rows += range[-1]
        if waiting:
            self._ranges[sql] = waiting  # after what waits for other statements
        if not asked:
            return
        started = time.perf_counter()
        try:
            records: list[Any] = await connection.fetch(sql, *map(list, zip(*asked, strict=True)))
            self._primary.durations["read"].add(time.perf_counter() - started)
        except Exception as error:
            self._fail([future for futures in asked.values() for future in futures], error)
            return
        found: list[list[Row]] = [[] for _ in asked]
        for record in records:
            found[record[0] - 1].append(Row(*record[1:]))
        for futures, answer in zip(asked.values(), found, strict=True):
            for future in futures:
                if not future.done():
                    future.set_result(answer.copy())

    def _fail(self, futures: Sequence[asyncio.Future[Any]], error: Exception) -> None:
        """A statement failed, and the transaction with it. Whatever it was, nobody is left waiting."""
        translated = self._server.error(error)
        if translated is not error:
            translated.__cause__ = error
        for future in futures:
            if not future.done():
                future.set_exception(translated)
        # Whoever else waits is not at fault.
        self._lose(translated if is_lost(error) else StoreUnavailable(translated.message))

    def _lose(self, error: StoreError) -> None:
        self.lost = error
        if self._connection is not None:
            self._connections.drop(self._connection)
            self._connection = None
        waiting: list[asyncio.Future[Any]] = [waiting.future for waiting in self._statements]
        waiting += [future for ranges in self._ranges.values() for futures in ranges.values() for future in futures]
        self._statements.clear()
        self._ranges.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)


#: Entries that are taken back, and their bytes, are bounded by how old a snapshot can be.
NO_LIMIT = 1 << 62


class PostgresSnapshot:
    """A ``StoreSnapshot``."""

    __slots__ = ("_reader", "_released", "_space", "ts")

    def __init__(self, space: Space, ts: Ts) -> None:
        self.ts = ts
        self._space = space
        self._reader: Reader | None = None
        self._released = False

    async def get(self, table: Table, id: str) -> Row | None:
        space, ts = self._space, self.ts
        if self._released:
            raise StoreError("the snapshot has been released")
        image = space.images.find(id, 0, ts)
        if image is not None and image.table.name == table.name:
            return None if image.json is None else Row(id, Ts(image.position), image.json)
        if not id.isascii() or "\0" in id:
            return None
        return await self._read(lambda reader, layer: self._get(reader, layer, table, id))

    async def scan(self, index: IndexDef, lo: bytes, hi: bytes, *, reverse: bool, limit: int) -> list[Row]:
        if limit <= 0 or lo >= hi:
            return []
        return await self._read(lambda reader, layer: self._scan(reader, layer, index, lo, hi, reverse, limit))

    async def find_request(self, key: RequestKey) -> RequestRecord | None:
        sql = "SELECT ts, result, log_lines FROM _reactor_requests WHERE session = $1 AND request = $2 AND ts <= $3"
        rows = await self._look_up(sql, session_key(key.session), key.request, self.ts)
        if not rows:
            return None
        ts, result, lines = rows[0]
        return RequestRecord(ts, result.encode(), tuple(json.loads(lines)) if lines != "[]" else ())

    async def newest_request(self, session: str) -> int:
        # One that is newer than this snapshot only makes more requests be looked for.
        rows = await self._look_up("SELECT coalesce(max(request), -1) FROM _reactor_requests WHERE session = $1", session_key(session))
        return int(rows[0][0])

    async def _look_up(self, sql: str, *args: Any) -> list[Any]:
        """Rows about requests as they are now. No image has those, so an older reader would not do; and they never change."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            try:
                return await asyncio.shield(detached(self._space.look_up(sql, args)))
            except StoreUnavailable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(RETRY_S)

    def release(self) -> None:
        if not self._released:
            self._released = True
            if self._reader is not None:
                self._space.leave(self._reader)
                self._reader = None

    async def _read(self, read: Callable[[Reader, Layer], Coroutine[Any, Any, T]]) -> T:
        """What ``read`` gives. A reader that is lost meanwhile is replaced."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        while True:
            reader = self._hold()
            try:
                await asyncio.shield(reader.opened)
                if reader.lost is not None:
                    raise reader.lost
                if reader.ts <= self.ts:
                    layer = Layer(self._space.images, reader.ts, self.ts)
                else:
                    layer = await reader.taken_back_to(self.ts, self._space.schema)
                return await read(reader, layer)
            except StoreUnavailable:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(RETRY_S)
            except StoreError as error:
                if error.code != LOG_TRIMMED:
                    raise
                raise StoreUnavailable(f"The state at ts {self.ts} can no longer be read ({error}). Ask for a later one") from error

    def _hold(self) -> Reader:
        """The reader that this snapshot holds, or now begins to."""
        if self._released:
            raise StoreError("the snapshot has been released")
        reader = self._reader
        if reader is None or reader.lost is not None:
            if reader is not None:
                self._space.leave(reader)
            reader = self._reader = self._space.join()
        return reader

    async def _get(self, reader: Reader, layer: Layer, table: Table, id: str) -> Row | None:
        image = layer.find(id)
        if image is not None:
            return None if image.json is None or image.table.name != table.name else Row(id, Ts(0), image.json)
        key = id.encode()
        rows = await reader.scan(table_of(reader.tables, table.name).scan(table.by_id, key, key + b"\0", reverse=False), 1)
        return structs.replace(rows[0], key=b"") if rows else None

    async def _scan(self, reader: Reader, layer: Layer, index: IndexDef, lo: bytes, hi: bytes, reverse: bool, limit: int) -> list[Row]:
        table = table_of(reader.tables, index.table)

        async def below(lo: bytes, hi: bytes, limit: int) -> list[Row]:
            return await reader.scan(table.scan(index, lo, hi, reverse=reverse), limit)

        over = layer.rows(index, lo, hi)
        if not over and not layer.images.touches(index.table):
            return await below(lo, hi, limit)
        rows = await scan_under(over, layer.find, below, lo, hi, reverse=reverse, limit=limit)
        return [row if row.ts else self._with_ts(layer, row) for row in rows]

    def _with_ts(self, layer: Layer, row: Row) -> Row:
        image = layer.find(row.id)
        # What was taken back does not say when it had been written.
        return row if image is None or layer.images is not self._space.images else structs.replace(row, ts=Ts(image.position))


def session_key(session: str) -> bytes:
    """A session's name, which may be any text, as Postgres can hold it."""
    return session.encode("utf-8", "surrogatepass")


class Space:
    """What the snapshots under one schema share. Replaced as a whole when the schema changes; those that are held keep theirs.

    Invariants: every open reader is at its ``floor`` or later; ``images`` has what every commit above the lowest floor wrote, that
    of the standby included as long as no other schema is in force.
    """

    def __init__(self, snapshots: Snapshots, schema: Mapping[str, Table]) -> None:
        self.schema = schema
        self.images = Overlay()
        self._snapshots = snapshots
        self._readers: list[Reader] = []  # in the order in which they were opened

    async def look_up(self, sql: str, args: tuple[Any, ...]) -> list[Any]:
        """The rows of a statement, as the database is now."""
        async with self._snapshots.connections.one() as connection:
            rows: list[Any] = await connection.fetch(sql, *args)
        return rows

    def join(self) -> Reader:
        """A reader for one more snapshot: a young one, or a new one, or, when no connection is left for that, the newest."""
        snapshots = self._snapshots
        snapshots.check_open()
        newest = self._readers[-1] if self._readers else None
        now = asyncio.get_running_loop().time()
        if newest is None or (
            (newest.queue >= READER_QUEUE or now - newest.born > READER_AGE_S or newest.lost is not None)
            and (snapshots.standby_of(self) or snapshots).connections.free
        ):
            newest = snapshots.reader(self)
            self._readers.append(newest)
        newest.holders += 1
        return newest

    def leave(self, reader: Reader) -> None:
        """One snapshot fewer holds it."""
        reader.holders -= 1
        if not reader.holders:
            age = asyncio.get_running_loop().time() - reader.born
            if age >= READER_AGE_S or reader.lost is not None:
                self._end(reader)
            else:
                asyncio.get_running_loop().call_later(READER_AGE_S - age, self._end, reader, context=Context())

    def apply(self, ts: Ts, writes: Sequence[Write]) -> None:
        """A commit that snapshots from now on have."""
        if self._readers or self._snapshots.keeps_from(self) is not None:
            for write in writes:
                self.images.put(Image(ts, write.table, write.id, write.after, write.after_keys))

    def trim(self) -> None:
        """Forget the images that no reader needs, nor one that may be opened on the standby."""
        floors = [reader.floor for reader in self._readers]
        kept_from = self._snapshots.keeps_from(self)
        if kept_from is not None:
            floors.append(kept_from)
        if floors:
            self.images.drop_upto(min(floors))
        else:
            self.images.clear()

    def _end(self, reader: Reader) -> None:
        if not reader.holders and reader in self._readers:
            self._readers.remove(reader)
            self._snapshots.end(reader)
            self.trim()


class Snapshots:
    """The snapshots of one store.

    Args:
        spawn: runs a task that the store waits for when it is closed.

    Attributes:
        ts: the newest commit that was applied; advanced by ``apply`` alone.
        tables: as the database had them last, and their version.
        durations: of each of ``STEPS``, in seconds.
        standby: serves the reads, whenever it can; None: the primary does.
    """

    def __init__(
        self,
        server: Server,
        connections: Connections,
        ts: Ts,
        tables: tuple[int, Mapping[str, SqlTable]],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.server = server
        self.connections = connections
        self.ts = ts
        self.tables = tables
        self.spawn = spawn
        self.durations = {step: Histogram(DURATION_S) for step in STEPS}
        self.standby: Standby | None = None
        self._closed = False
        self._open: set[Reader] = set()
        self._space = Space(self, {})

    def snapshot(self) -> PostgresSnapshot:
        """Pin the newest commit that was applied."""
        self.check_open()
        return PostgresSnapshot(self._space, self.ts)

    def apply(self, ts: Ts, writes: Sequence[Write] = ()) -> None:
        """Move on to the next commit, or with nothing written, over commits that left no document."""
        if ts > self.ts:
            self._space.apply(ts, writes)
            self.ts = ts
            if self.standby is not None and writes:
                self.standby.applied(ts, sum(len(write.after or "") + IMAGE_BYTES for write in writes))

    def restart(self, schema: Mapping[str, Table]) -> None:
        """Another schema is in force: whatever was kept of keys was of the one before."""
        self._space = Space(self, schema)
        if self.standby is not None:
            self.standby.start_anew()

    @contextlib.contextmanager
    def skipping(self, ts: Ts) -> Iterator[PostgresSnapshot]:
        """Inside, a snapshot at ``ts`` that misses nothing. From its end on that is what was applied."""
        space = Space(self, self._space.schema)
        snapshot = PostgresSnapshot(space, ts)
        try:
            yield snapshot
        finally:
            snapshot.release()
        self._space = space
        self.ts = ts
        if self.standby is not None:
            self.standby.start_anew()

    def reader(self, space: Space) -> Reader:
        """A new reader: on the standby if that serves, else on the primary, at the newest commit or after it."""
        reader = Reader(self, self.standby_of(space))
        self._open.add(reader)
        return reader

    def standby_of(self, space: Space) -> Standby | None:
        """The standby, if it can serve these snapshots."""
        return self.standby if self.standby is not None and self.standby.serves and space is self._space else None

    def keeps_from(self, space: Space) -> Ts | None:
        """The ts from which on images are kept for the standby."""
        return None if self.standby is None or space is not self._space else self.standby.floor

    def standby_changed(self, lost: StoreError | None) -> None:
        """The standby has come further; or with an error: its readers are of no more use."""
        if lost is not None:
            for reader in list(self._open):
                if reader.standby is not None:
                    reader.drop(lost)
        self._space.trim()

    def end(self, reader: Reader) -> None:
        """End a reader that nobody holds. ``close`` has ended all."""
        if self._closed:
            return

        async def end() -> None:
            await reader.end()
            self._open.discard(reader)

        self.spawn(end())

    def check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")

    async def close(self) -> None:
        """Drop every reader, also those of snapshots that nobody released."""
        self._closed = True
        if self.standby is not None:
            await self.standby.close()
        for reader in list(self._open):
            reader.drop(StoreError("the store is closed"))
        for reader in list(self._open):
            await reader.end()
