"""The engine: one store, one committer, all live queries."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from reactor.engine import backfill, history
from reactor.engine.commit_log import CommitLog, Published
from reactor.engine.committer import Answer, Committed, Committer, Conflict, MutationTransaction
from reactor.engine.live_query import LiveQueries
from reactor.engine.resident import Resident
from reactor.engine.runtime import Runtime
from reactor.engine.snapshot import Pin, Pins
from reactor.engine.store import RequestKey, RequestRecord, Store, Ts
from reactor.engine.transaction import Transaction
from reactor.errors import WriteConflict
from reactor.limits import Limits
from reactor.schema.catalog import Catalog
from reactor.schema.system import ENVIRONMENT

__all__ = ["Engine"]

T = TypeVar("T")

#: Attempts of a mutation that follow each other at once; later ones wait, longer each time.
IMMEDIATE_ATTEMPTS = 2
FIRST_BACKOFF_S = 0.02
LONGEST_BACKOFF_S = 2.0
#: Sessions whose newest request is known without asking the database.
SESSIONS_REMEMBERED = 20_000


class Engine:
    """Runs transactions against one store and keeps live queries current.

    Args:
        store: opened; the engine does not close it.
        catalog: the schema to begin with; ``push`` brings the store to it, or to another.

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
        self._committer = Committer(store, runtime, limits, catalog, head, self._publish)
        self._pins = Pins(store, self._committer)
        self._claims: dict[RequestKey, asyncio.Future[None] | None] = {}  # running; a future once somebody else waits
        self._newest: dict[str, int] = {}  # request of each session that ran lately; see _remembered
        self._pushing = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None
        self.live: LiveQueries[Any] = LiveQueries(self._log, runtime, limits)
        self.environment = Resident(ENVIRONMENT)  # loaded by the first push
        self._loaded = False

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

    async def stop(self) -> None:
        """Finish what was accepted, then write no more. The caller sees to it that no mutation begins."""
        await self._committer.drain()
        if self._writer is not None:
            self._writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._writer

    async def push(self, catalog: Catalog, switch: Callable[[], None] | None = None) -> None:
        """Make ``catalog`` the schema in force, all or nothing; see ``reactor.engine.backfill.push``.

        Args:
            switch: called in the same turn of the loop in which the schema comes into force, to swap the code with it.

        Live queries all run again.

        Raises:
            SchemaError: a document does not fit the new schema; the one before goes on.
        """
        async with self._pushing:
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

    def pin(self) -> Pin:
        """The newest published commit, kept readable until released."""
        return self._pins.pin()

    async def query(self, run: Callable[[Transaction], Awaitable[T]], *, at: Ts | None = None) -> tuple[T, Ts]:
        """Run a read-only transaction, on the newest published commit or as of ``at``. The result and its ts.

        Raises:
            QueryError, StoreError, LimitExceeded: ``at`` cannot be read; see ``reactor.engine.history``.
        """
        pin = self._pins.pin()
        try:
            base = pin.base if at is None else await history.base_at(self._store, pin, self.catalog, at)
            tx = Transaction(base, now_ms=self._runtime.now_ns() / 1e6, limits=self._limits, read_only=True)
            try:
                return await run(tx), pin.ts if at is None else at
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
        if request is None:
            return await self._attempts(run, None, on_durable)
        while (earlier := self._earlier(request)) is not None:
            # The same request is running, or being written, sent over another connection: its outcome decides.
            await asyncio.shield(earlier)
        self._claims[request] = None
        try:
            return await self._attempts(run, request, on_durable)
        finally:
            claim = self._claims.pop(request)
            if claim is not None:
                claim.set_result(None)

    async def trim(self, *, now_ns: int) -> None:
        """Forget what the log and the remembered requests keep past their retention."""
        log_before = now_ns - int(self._limits.log_retention_s * 1e9)
        requests_before = now_ns - int(self._limits.request_retention_s * 1e9)
        await self._store.trim(log_before=Ts(log_before), requests_before=Ts(requests_before))

    async def _attempts(
        self,
        run: Callable[[MutationTransaction], Awaitable[Answer]],
        request: RequestKey | None,
        on_durable: Callable[[Committed], None] | None,
    ) -> Committed:
        table = ""
        for attempt in range(self._limits.mutation_attempts):
            if attempt >= IMMEDIATE_ATTEMPTS:
                await self._runtime.sleep(self._backoff_s(attempt - IMMEDIATE_ATTEMPTS))
            tx = await self._committer.begin()
            accepted: asyncio.Future[Committed] | Exception
            try:
                if request is not None and (record := await self._remembered(tx, request)) is not None:
                    committed = Committed(record.ts, record.result, record.log_lines, None, replayed=True)
                    if on_durable is not None:
                        on_durable(committed)
                    return committed
                answer = await run(tx)
                accepted = self._committer.accept(tx, answer, request, on_durable)
            except Conflict as conflict:
                table = conflict.table
                continue
            except Exception as error:
                accepted = error
            finally:
                self._committer.end(tx)
            try:
                if not isinstance(accepted, Exception):
                    return await accepted
                await self._committer.confirm(tx)
            except Conflict as conflict:
                table = conflict.table
                continue
            raise accepted
        where = f"Documents in table {table!r}" if table else "Documents that it read"
        raise WriteConflict(
            f"{where} changed while the mutation ran, on each of its {self._limits.mutation_attempts} attempts. "
            "Nothing was written. Read less in the mutation, or retry it."
        )

    def _earlier(self, request: RequestKey) -> asyncio.Future[None] | None:
        """Resolves when the run or the commit of this request that is under way has ended; None when there is none."""
        if request not in self._claims:
            return self._committer.in_flight(request)
        claim = self._claims[request]
        if claim is None:
            claim = self._claims[request] = asyncio.get_running_loop().create_future()
        return claim

    async def _remembered(self, tx: Transaction, request: RequestKey) -> RequestRecord | None:
        """The answer that the request got the first time.

        Clients number their requests upwards: one above all that this session has had here was never answered, if nobody
        else answers any. Whoever runs it claims it meanwhile.
        """
        session, number = request
        if not self._store.exclusive:
            return await tx.base.snapshot.find_request(request)
        newest = self._newest.get(session)
        if newest is None:
            newest = await tx.base.snapshot.newest_request(session)
            if len(self._newest) >= SESSIONS_REMEMBERED:
                del self._newest[next(iter(self._newest))]
        self._newest[session] = max(number, newest)
        return None if number > newest else await tx.base.snapshot.find_request(request)

    def _backoff_s(self, step: int) -> float:
        jitter: int = struct.unpack("<H", self._runtime.random_bytes(2))[0]
        return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0**step) * (0.5 + jitter / 65536)

    def _publish(self, commits: Sequence[Published], head: Ts) -> None:
        """Called by the committer once a group is durable and answered."""
        for commit in commits:
            self._log.append(commit)
        self._log.advance(head)
        self.environment.apply(commits)
        self.live.publish(commits)
        self._log.trim(self._pins.oldest(head))
