"""The engine: one store, one committer, all live queries."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from reactor.engine import backfill, history
from reactor.engine.commit_log import CommitLog, Published
from reactor.engine.committer import Accepted, Answer, Committed, Committer, Conflict, MutationTransaction
from reactor.engine.live_query import LiveQueries
from reactor.engine.resident import Resident
from reactor.engine.runtime import Runtime
from reactor.engine.snapshot import Pin, Pins
from reactor.engine.store import RequestKey, RequestRecord, Store, StoreSnapshot, Ts, Write
from reactor.engine.transaction import Transaction
from reactor.errors import StoreError, WriteConflict
from reactor.histogram import Histogram
from reactor.limits import Limits
from reactor.schema.catalog import Catalog
from reactor.schema.index import IndexRange
from reactor.schema.system import ENVIRONMENT

__all__ = ["Engine"]

T = TypeVar("T")

Follower = Callable[[Ts, Write], None]

#: Runs of a mutation for each attempt: those that come to nothing because of others are not counted, but are not endless.
RUNS = 10
#: Runs that came to nothing, whatever for, after which a mutation runs while no other does. Two are usual where nodes write the same:
#: a commit that came while it read, and another node's, after which it runs under the head anyway.
FAVOURED_AFTER = 3
#: At a time: each may hold all that was changed since.
READS_OF_THE_PAST = 4
#: Why a mutation runs again: a commit changed what it had read; what others had accepted before it could not be written, the head
#: was lost, or the schema was changed; another node answered a request of its group.
RERUNS = ("conflict", "innocent", "repeated")
#: Sessions whose newest request is known without asking the database.
SESSIONS_REMEMBERED = 20_000


class Engine:
    """Runs transactions against one store and keeps live queries current.

    Args:
        store: opened; the engine does not close it.
        catalog: the schema to begin with; ``push`` brings the store to it, or to another.

    Attributes:
        conflicts: how many runs of mutations came to nothing because of other commits, by the table in which those wrote.
        reruns: how many runs of mutations were made again, by cause.

    ``start`` before anything else, ``stop`` at the end; both once.
    """

    def __init__(self, store: Store, catalog: Catalog, runtime: Runtime, limits: Limits) -> None:
        snapshot = store.snapshot()
        head = snapshot.ts
        snapshot.release()
        self._store = store
        self._runtime = runtime
        self._limits = limits
        self._log = CommitLog(head)
        self._committer = Committer(store, runtime, limits, catalog, head, self._publish, self._restart)
        self._pins = Pins(store, self._committer)
        store.on_news(self._committer.hear)
        self._claims: dict[RequestKey, asyncio.Future[None] | None] = {}  # running; a future once somebody else waits
        self._newest: dict[str, int] = {}  # request of each session that ran lately; see _is_new
        self._pushing = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self.conflicts: dict[str, int] = {}
        self.reruns = dict.fromkeys(RERUNS, 0)
        self.live: LiveQueries[Any] = LiveQueries(self._log, runtime, limits)
        self.environment = Resident(ENVIRONMENT)  # loaded by the first push
        self._followers: dict[str, list[Follower]] = {}  # by table
        self._missed: list[Callable[[], None]] = []
        self._loaded = False
        self._past = asyncio.Semaphore(READS_OF_THE_PAST)

    @property
    def catalog(self) -> Catalog:
        """The schema in force."""
        return self._committer.catalog

    @property
    def head_ts(self) -> Ts:
        """The newest published commit."""
        return self._log.head

    async def start(self) -> None:
        """Begin to write."""
        self._writer = asyncio.create_task(self._committer.run(), name="reactor-committer")

    async def ended(self) -> None:
        """Wait until it can be used no more, for another reason than ``stop``.

        Raises:
            StoreError: the reason. An engine over a store opened anew may do.
        """
        assert self._writer is not None, "the engine was started"
        await asyncio.shield(self._writer)

    async def stop(self) -> None:
        """Finish what was accepted, then write no more. The caller sees to it that no mutation begins."""
        await self._committer.drain()
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, StoreError):
                await self._writer

    async def push(self, catalog: Catalog, switch: Callable[[], None] | None = None) -> None:
        """Make ``catalog`` the schema in force, all or nothing; see ``reactor.engine.backfill.push``.

        Args:
            switch: called in the same turn of the loop in which the schema comes into force, to swap the code with it.

        Live queries all run again.

        Raises:
            SchemaError: a document does not fit the new schema; the one before goes on.
        """
        async with self._pushing, self._store.pushing(list(catalog.tables.values())):
            await backfill.push(self._store, self._committer, self._pins, catalog, switch)
            if not self._loaded:
                await self._load_environment(catalog)
            self.live.restart_all()

    async def _load_environment(self, catalog: Catalog) -> None:
        table = catalog.tables.get(ENVIRONMENT)
        if table is None:
            return
        pin = self._pins.pin()
        try:
            await self.environment.load(pin.snapshot, table)
            self.environment.apply(list(self._log.after(pin.ts)))
            self._loaded = True
        finally:
            pin.release()

    @property
    def alone(self) -> bool:
        """Whether no other node commits."""
        return self._store.exclusive

    @property
    def behind_s(self) -> float:
        """For how long this node may have missed what other nodes committed, beyond the usual moment."""
        return self._store.behind_s

    @property
    def trouble(self) -> str | None:
        """Why this node should get no requests for now."""
        return self._store.trouble

    @property
    def group_sizes(self) -> Histogram:
        """How many mutations were committed at a time."""
        return self._committer.group_sizes

    @property
    def store_durations(self) -> Mapping[str, Histogram]:
        """How long the store's steps took; see ``Store.durations``."""
        return self._store.durations

    def follow(self, table: str, tell: Follower, missed: Callable[[], None]) -> None:
        """Have ``tell`` called with every published write to a table, in order, before live queries learn of it.

        Args:
            missed: called when there were commits that can no longer be learned.
        """
        self._followers.setdefault(table, []).append(tell)
        self._missed.append(missed)

    async def count(self, range: IndexRange[Any]) -> tuple[int, Ts]:
        """How many documents there are in a range, without reading any; see ``Store.count``."""
        index = self.catalog.table(range.document).index(range.index)
        return await self._store.count(index, range.interval.lo, range.interval.hi)

    async def catch_up(self) -> None:
        """Wait until what is published has every commit, of any node, that was durable when this was called.

        Raises:
            StoreError: the database does not answer.
        """
        if not self._store.exclusive:
            await self._committer.reached(await self._store.newest())

    def pin(self) -> Pin:
        """The newest published commit, kept readable until released."""
        return self._pins.pin()

    async def query(self, run: Callable[[Transaction], Awaitable[T]], *, at: Ts | None = None) -> tuple[T, Ts]:
        """Run a read-only transaction, on all that was durable when it was called or as of ``at``. The result and its ts.

        Raises:
            QueryError, StoreError, LimitExceeded: ``at`` cannot be read; see ``reactor.engine.history``.
        """
        if not self._store.exclusive and (at is None or at > self.head_ts):
            await self.catch_up()
        if at is None:
            return await self._query(run, None)
        async with self._past:
            return await self._query(run, at)

    async def _query(self, run: Callable[[Transaction], Awaitable[T]], at: Ts | None) -> tuple[T, Ts]:
        pin = self._pins.pin()
        try:
            base = pin.base if at is None else await history.base_at(self._store, pin, self.catalog, at)
            tx = Transaction(base, now_ms=self._runtime.now_ns() / 1e6, limits=self._limits, read_only=True)
            try:
                result = await run(tx)
                if tx.failed is not None:
                    raise tx.failed
                return result, pin.ts if at is None else at
            finally:
                tx.close()
        finally:
            pin.release()

    async def mutate(
        self,
        run: Callable[[MutationTransaction], Awaitable[Answer]],
        *,
        request: RequestKey | None = None,
        on_durable: Callable[[Committed], None] | None = None,
    ) -> Committed:
        """Run a mutation until it commits.

        Args:
            run: called anew, with a transaction of its own, for every attempt. What it raises is raised, nothing written.
            request: makes it happen once: when it has committed before, that answer is returned and nothing runs.
            on_durable: called with the answer in the turn of the loop that publishes the commit, before live queries
                learn of it.

        Raises:
            WriteConflict: other commits changed what it read at each of its attempts.
            StoreError: the database could not write; nothing was written.

        Cancelling it after the commit was accepted does not undo the commit.
        """
        if request is not None:
            while (earlier := self._earlier(request)) is not None:
                # The same request is running, or being written, sent over another connection: its outcome decides.
                await asyncio.shield(earlier)
            self._claims[request] = None
        table = ""
        ask = True  # for the request's first answer; one that another node gives from then on is met when this one is written
        attempt = runs = 0
        try:
            while attempt < self._limits.mutation_attempts and runs < RUNS * self._limits.mutation_attempts:
                runs += 1
                try:
                    if runs <= FAVOURED_AFTER:
                        accepted = await self._attempt(run, request, on_durable, ask=ask)
                    else:
                        async with self._committer.favour():
                            accepted = await self._attempt(run, request, on_durable, ask=ask, favoured=True)
                    if isinstance(accepted, Committed):
                        return accepted
                    if isinstance(accepted, Accepted):
                        return await accepted
                    tx, error = accepted
                    await self._committer.confirm(tx)
                except Conflict as conflict:
                    table, ask = conflict.table, conflict.repeated
                    attempt += not conflict.innocent
                    self._count(conflict, again=attempt < self._limits.mutation_attempts)
                    continue
                if request is not None and (record := await self._answered_elsewhere(request)) is not None:
                    return _replayed(record, on_durable)
                raise error
        finally:
            if request is not None and (claim := self._claims.pop(request)) is not None:
                claim.set_result(None)
        where = f"Documents in table {table!r}" if table else "Documents that it read"
        raise WriteConflict(
            f"{where} changed while the mutation ran, on each of its {self._limits.mutation_attempts} attempts. "
            "Nothing was written. Read less in the mutation, or retry it."
        )

    async def trim(self, *, now_ns: int) -> None:
        """Forget what the log and the remembered requests keep past their retention."""
        log_before = now_ns - int(self._limits.log_retention_s * 1e9)
        requests_before = now_ns - int(self._limits.request_retention_s * 1e9)
        await self._store.trim(log_before=Ts(log_before), requests_before=Ts(requests_before))

    def _count(self, conflict: Conflict, *, again: bool) -> None:
        if conflict.table:
            self.conflicts[conflict.table] = self.conflicts.get(conflict.table, 0) + 1
        if again:
            self.reruns["repeated" if conflict.repeated else "innocent" if conflict.innocent else "conflict"] += 1

    def _earlier(self, request: RequestKey) -> asyncio.Future[None] | None:
        """Resolves when the run or the commit of this request that is under way has ended; None when there is none."""
        if request not in self._claims:
            return self._committer.in_flight(request)
        claim = self._claims[request]
        if claim is None:
            claim = self._claims[request] = asyncio.get_running_loop().create_future()
        return claim

    async def _attempt(
        self,
        run: Callable[[MutationTransaction], Awaitable[Answer]],
        request: RequestKey | None,
        on_durable: Callable[[Committed], None] | None,
        *,
        ask: bool,
        favoured: bool = False,
    ) -> Committed | Accepted | tuple[MutationTransaction, Exception]:
        """Run a mutation once: its first answer, or what its acceptance resolves, or how it failed.

        Raises:
            Conflict: it has to run again.
            StoreError: the database could not be read.
        """
        committer = self._committer
        while (tx := committer.begin(favoured=favoured)) is None:
            await committer.opened()
        try:
            if ask and request is not None and not self._is_new(request) and (record := await self._remembered(tx, request)) is not None:
                return _replayed(record, on_durable)
            answer = await run(tx)
            if tx.failed is not None:
                raise tx.failed
            return committer.accept(tx, answer, request, on_durable)
        except Conflict:
            raise
        except Exception as error:
            failed = error if isinstance(error, StoreError) else tx.failed
            if failed is None:
                return tx, error
            if not committer.knows(tx):
                raise Conflict(innocent=True) from error  # what it asked for may be gone with what it began from
            if failed is error:
                raise
            raise failed from error
        finally:
            committer.end(tx)

    def _is_new(self, request: RequestKey) -> bool:
        """Whether it is known that the request was never answered before. It is its session's newest then, from now on.

        Clients number theirs upwards: one above all that this session has had here was never answered, unless by another node
        meanwhile. That is found out when it is written, or has failed. Whoever runs it claims it meanwhile.
        """
        session, number = request
        newest = self._newest.get(session)
        if newest is None or number <= newest:
            return False
        self._newest[session] = number
        return True

    async def _remembered(self, tx: Transaction, request: RequestKey) -> RequestRecord | None:
        """The answer that the request got the first time."""
        session, number = request
        newest = self._newest.get(session)
        if newest is None:
            newest = await tx.base.snapshot.newest_request(session)
            if len(self._newest) >= SESSIONS_REMEMBERED:
                del self._newest[next(iter(self._newest))]
        self._newest[session] = max(number, newest)
        return None if number > newest else await tx.base.snapshot.find_request(request)

    async def _answered_elsewhere(self, request: RequestKey) -> RequestRecord | None:
        """The answer that another node gave to a request that failed here, perhaps because of just that."""
        if self._store.exclusive:
            return None
        snapshot = self._store.snapshot()
        try:
            return await snapshot.find_request(request)
        finally:
            snapshot.release()

    @contextlib.asynccontextmanager
    async def _restart(self, snapshot: StoreSnapshot) -> AsyncIterator[None]:
        """Called by the committer when what lies before ``snapshot`` can no longer be learned."""
        table = self.catalog.tables.get(ENVIRONMENT)
        if self._loaded and table is not None:
            await self.environment.load(snapshot, table)
        yield
        self._log.restart(snapshot.ts)
        for missed in self._missed:
            missed()
        self.live.restart_all()

    def _publish(self, commits: Sequence[Published], head: Ts) -> None:
        """Called by the committer once a group is durable and answered."""
        for commit in commits:
            self._log.append(commit)
            for write in commit.writes:
                for tell in self._followers.get(write.table.name, ()):
                    tell(commit.ts, write)
        self._log.advance(head)
        self.environment.apply(commits)
        self.live.publish(commits)
        self._log.trim(self._pins.oldest(head))


def _replayed(record: RequestRecord, on_durable: Callable[[Committed], None] | None) -> Committed:
    """The first answer of a request, given again."""
    committed = Committed(record.ts, record.result, record.log_lines, None, replayed=True)
    if on_durable is not None:
        on_durable(committed)
    return committed
