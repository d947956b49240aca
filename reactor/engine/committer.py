"""A node's only writer: admits mutations, writes them in groups, answers each when it is durable.

::

    accept ──► pending ──► group ── hold the head ── validate ── assign ts ── write ──► publish
    (local conflicts)               (other nodes' commits)              (durable)      (answers, log, live queries)

A mutation is accepted when no commit since it began wrote inside its read set. From then on later mutations read
through its writes, so that a hot document is not a queue of retries; nobody outside is told before it is durable, neither
its own caller nor that of one that failed on what it wrote. If its group fails, all that was accepted after it runs again.

What each step waits for is why the order of commits is the order of ``ts`` and agrees with real time: a mutation that
begins after another was answered begins with that one's writes below it; ts are assigned in the order of acceptance
while the head is held, so no other node's commit falls in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from reactor.engine.commit_log import Published, hydrate
from reactor.engine.read_set import ReadSet
from reactor.engine.row_cache import RowCache
from reactor.engine.runtime import Runtime
from reactor.engine.store import Commit, Head, RequestKey, Store, Ts, Write
from reactor.engine.transaction import NO_CACHE, Base, Transaction
from reactor.engine.write_set import Image, Overlay
from reactor.limits import Limits
from reactor.schema.catalog import Catalog

__all__ = ["Answer", "Committed", "Committer", "Conflict", "MutationTransaction"]

_log = logging.getLogger(__name__)


class Conflict(Exception):
    """A mutation has to run again on a newer snapshot. Never leaves the engine.

    ``table`` is where the other commit wrote, for the error that a caller gets after the last attempt.
    """

    def __init__(self, table: str = "") -> None:
        super().__init__(table)
        self.table = table


class Answer(NamedTuple):
    """What a mutation's run gives to be committed with its writes."""

    value: bytes  # JSON text of the result: remembered for a resent request
    log_lines: tuple[str, ...] = ()
    result: Any = None  # handed through to the caller as it is


class Committed(NamedTuple):
    """A mutation that is durable."""

    ts: Ts
    value: bytes
    log_lines: tuple[str, ...]
    result: Any  # the Answer's; None when replayed
    replayed: bool = False  # answered from the remembered first time; nothing ran


OnDurable = Callable[[Committed], None]


@dataclass(slots=True, eq=False)
class Accepted:
    """A mutation on its way into the store."""

    position: int
    commit: Commit
    read_set: ReadSet
    answer: Answer
    future: asyncio.Future[Committed]
    on_durable: OnDurable | None
    settled: asyncio.Future[None] | None = None  # for whoever waits without being the caller; see ``Committer.in_flight``

    def settle(self, outcome: Committed | Exception) -> None:
        """Tell the caller, who may be gone, and whoever else waits."""
        if not self.future.done():
            if isinstance(outcome, Committed):
                self.future.set_result(outcome)
            else:
                self.future.set_exception(outcome)
        if self.settled is not None and not self.settled.done():
            self.settled.set_result(None)


class MutationTransaction(Transaction):
    """A transaction that the committer began, and may accept."""

    __slots__ = ("epoch",)

    def __init__(self, base: Base, *, epoch: int, now_ms: float, limits: Limits, creation_time: float) -> None:
        super().__init__(base, now_ms=now_ms, limits=limits, read_only=False, creation_time=creation_time)
        self.epoch = epoch


class Committer:
    """See the module.

    Positions count what was accepted here or learned from other nodes. Invariants: ``flushed <= position``; the overlay
    and ``_recent`` hold every accepted write above the smallest base of a running mutation; ``pending`` is what is above
    the group being written, in order. ``position``, ``flushed`` and the log's head are advanced by this class alone.
    """

    def __init__(
        self, store: Store, runtime: Runtime, limits: Limits, catalog: Catalog, head: Ts, publish: Callable[[Sequence[Published], Ts], None]
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._limits = limits
        self._publish = publish
        self.catalog = catalog
        self.position = 0
        self.flushed = 0
        self.head = head
        self._epoch = 0  # grows whenever what was accepted, or the catalog, ceases to hold for running mutations
        self._creation_time = 0.0  # above that of every document inserted here, also when the clock stands still
        self._overlay = Overlay()
        self.cache = RowCache(limits.row_cache_bytes)
        self._recent: deque[tuple[int, Sequence[Write]]] = deque()
        self._running: dict[MutationTransaction, None] = {}
        self._pending: list[Accepted] = []
        self._requests: dict[RequestKey, Accepted] = {}  # accepted, and neither durable nor failed yet
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = asyncio.Event()
        self._open.set()

    # --- mutations

    async def begin(self) -> MutationTransaction:
        """A transaction on the newest accepted state. Waits while a push switches the schema. Must be ended with ``end``."""
        while not self._open.is_set():
            await self._open.wait()
        snapshot = self._store.snapshot()
        base = Base(snapshot, self._overlay, self.flushed, self.position, self.cache_at(snapshot.ts))
        now_ms = self._runtime.now_ns() / 1e6
        tx = MutationTransaction(base, epoch=self._epoch, now_ms=now_ms, limits=self._limits, creation_time=self._creation_time)
        self._running[tx] = None
        return tx

    def cache_at(self, ts: Ts) -> RowCache:
        """The row cache, if it has just what a snapshot at ``ts`` has. Another node's commit may be in that and not be learned."""
        return self.cache if ts == self.head else NO_CACHE

    def end(self, tx: MutationTransaction) -> None:
        """Close ``tx``, whether it was accepted or not."""
        tx.close()
        del self._running[tx]
        tx.base.snapshot.release()

    def accept(
        self, tx: MutationTransaction, answer: Answer, request: RequestKey | None, on_durable: OnDurable | None
    ) -> asyncio.Future[Committed]:
        """Validate ``tx`` and queue its writes.

        Returns: a future that resolves when they are durable. It raises Conflict when the mutation has to run again, or a
            StoreError when nothing was written. Cancelling it cancels the wait, not the commit.

        Raises:
            Conflict: a commit since ``tx`` began wrote inside its read set.
        """
        if tx.epoch != self._epoch:
            raise Conflict
        for position, writes in reversed(self._recent):
            if position <= tx.base.upto:
                break
            if tx.read_set.overlaps(writes):
                raise Conflict(writes[0].table.name)
        writes = tx.writes()
        future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        if not writes and request is None and tx.base.upto <= self.flushed:
            # It only read, and nothing that could still be lost: there is nothing to make durable.
            committed = Committed(max(self.head, tx.ts), answer.value, answer.log_lines, answer.result)
            if on_durable is not None:
                on_durable(committed)
            future.set_result(committed)
            return future
        self._creation_time = max(self._creation_time, tx.creation_time)
        position = self.position + 1
        if writes:
            self._recent.append((position, writes))
            self.cache.apply(writes, position)
            for write in writes:
                self._overlay.put(Image(position, write.table, write.id, write.after, write.after_keys, write.row))
        commit = Commit(writes, request, answer.value, answer.log_lines)
        accepted = Accepted(position, commit, tx.read_set, answer, future, on_durable)
        if request is not None:
            self._requests[request] = accepted
        self._queue(accepted)
        return future

    async def confirm(self, tx: MutationTransaction) -> None:
        """Wait until all that ``tx`` may have read is durable: only then is a mutation that failed told so.

        Raises:
            Conflict: some of it will never be; the mutation has to run again.
            StoreError: the database cannot write.
        """
        if tx.epoch != self._epoch:
            raise Conflict
        if tx.base.upto > self.flushed:
            future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
            self._queue(Accepted(self.position + 1, Commit(()), ReadSet(), Answer(b"null"), future, None))
            await future

    def _queue(self, accepted: Accepted) -> None:
        self.position = self.cache.position = accepted.position
        self._pending.append(accepted)
        self._idle.clear()
        self._wake.set()

    def in_flight(self, request: RequestKey) -> asyncio.Future[None] | None:
        """Resolves when the accepted commit of this request is durable or has failed; None when there is none.

        Its caller may have gone away: that does not make it unaccepted.
        """
        accepted = self._requests.get(request)
        if accepted is None:
            return None
        if accepted.settled is None:
            accepted.settled = asyncio.get_running_loop().create_future()
        return accepted.settled

    # --- writing

    async def run(self) -> None:
        """Write groups until cancelled; ``drain`` first to lose none. One task of the engine runs this.

        Cancelling it waits for the group that is being written.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                group, self._pending = self._pending, []
                await self._write_group(group)
            self._idle.set()

    async def drain(self) -> None:
        """Wait until nothing that was accepted is neither durable nor failed. The caller goes on in that very turn of the loop."""
        while not self._idle.is_set():
            await self._idle.wait()

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """No commit is in flight inside, and none begins; mutations that were running begin anew after it."""
        self._open.clear()
        try:
            await self.drain()
            self._forget_accepted()
            yield
            # Once more: keys may be others now than when a query read something meanwhile.
            self._forget_accepted()
        finally:
            self._open.set()

    async def _write_group(self, group: list[Accepted]) -> None:
        last = group[-1].position
        try:
            async with self._store.head() as head:
                foreign = await self._learn(head)
                holds, rejected = self._validate(group, foreign)
                self._assign(holds, max(head.ts, self.head))
                await head.write([accepted.commit for accepted in holds])
                # No turn of the loop between durable and published: whoever pins a snapshot finds it published.
                self._finish(holds, foreign, last)
        except Exception as error:
            self._fail(group, error)
            return
        if rejected or (foreign and self._validate(self._pending, foreign)[1]):
            self._reject(rejected)

    async def _learn(self, head: Head) -> list[Published]:
        """What other nodes committed since this one last looked. They are validated against, then published."""
        entries = await head.entries_after(self.head)
        return [Published(entry.ts, hydrate(entry, self.catalog)) for entry in entries]

    def _validate(self, group: list[Accepted], foreign: Sequence[Published]) -> tuple[list[Accepted], list[Accepted]]:
        """Split ``group`` into what holds and what other nodes' commits, or another's rejection, made stale."""
        if not foreign:
            return group, []
        against: list[Sequence[Write]] = [entry.writes for entry in foreign]
        holds: list[Accepted] = []
        rejected: list[Accepted] = []
        for accepted in group:
            if any(accepted.read_set.overlaps(writes) for writes in against):
                rejected.append(accepted)
                # Whoever read its writes read what will never be.
                against.append(accepted.commit.writes)
            else:
                holds.append(accepted)
        return holds, rejected

    def _assign(self, group: Sequence[Accepted], after: Ts) -> None:
        """Give each commit its ts: above every earlier one of any node, near the clock, which may stand still or go back."""
        ts = after
        now = self._runtime.now_ns() - len(group)
        for accepted in group:
            commit = accepted.commit
            if commit.writes or commit.request is not None:
                ts = Ts(max(ts + 1, now))
            # One that leaves no trace has the ts of what it read.
            commit.ts = ts

    # --- publishing

    def _finish(self, group: Sequence[Accepted], foreign: Sequence[Published], last: int) -> None:
        """The group is durable: answer, remember, make live queries stale, in this order and in one turn of the loop."""
        self.flushed = last
        published = list(foreign)
        published += [Published(a.commit.ts, a.commit.writes) for a in group if a.commit.writes]
        for entry in foreign:
            # Above every running mutation: none of them has it in its snapshot.
            self.position += 1
            self._recent.append((self.position, entry.writes))
            self.cache.apply(entry.writes, self.position)
            self.head = entry.ts
        if group:
            self.head = max(self.head, group[-1].commit.ts)
        self._prune()
        for accepted in group:
            committed = Committed(accepted.commit.ts, accepted.answer.value, accepted.answer.log_lines, accepted.answer.result)
            # Before live queries: a client gets its response before the transition that covers it.
            if accepted.on_durable is not None:
                try:
                    accepted.on_durable(committed)
                except Exception:
                    # The commit stands, and so do those after it: they must not be told that nothing was written.
                    _log.exception("whoever waited for a commit could not be told of it")
            self._settle(accepted, committed)
        self._publish(published, self.head)

    def _fail(self, group: Sequence[Accepted], error: Exception) -> None:
        """Nothing of ``group`` was written: its callers get ``error``, and all that built on it runs again."""
        for accepted in group:
            self._settle(accepted, error)
        self._abandon()

    def _reject(self, rejected: Sequence[Accepted]) -> None:
        for accepted in rejected:
            self._settle(accepted, Conflict())
        self._abandon()

    def _abandon(self) -> None:
        """Forget every accepted write that is not durable. Running mutations may have read it: they begin anew."""
        for accepted in self._pending:
            self._settle(accepted, Conflict())
        self._pending = []
        self._forget_accepted()

    def _forget_accepted(self) -> None:
        """Begin anew from what is durable."""
        self._epoch += 1
        self._overlay.clear()
        self._recent.clear()
        # Above every running transaction: what they read is not the newest.
        self.position += 1
        self.flushed = self.position
        self.cache.clear(self.position)

    def _settle(self, accepted: Accepted, outcome: Committed | Exception) -> None:
        if accepted.commit.request is not None:
            del self._requests[accepted.commit.request]
        accepted.settle(outcome)

    def _prune(self) -> None:
        """Forget what every running mutation's snapshot, and every later one, has."""
        above = min((tx.base.above for tx in self._running), default=self.flushed)
        self._overlay.drop_upto(above)
        while self._recent and self._recent[0][0] <= above:
            self._recent.popleft()
