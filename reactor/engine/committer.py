"""A node's only writer: admits mutations, writes them in groups, answers each when it is durable.

::

    accept ──► pending ──► hold the head ── learn ── group ── assign ts ── write ──► publish
    (local conflicts)                (other nodes' commits)            (durable)    (answers, log, live queries)

A mutation is accepted when no commit since it began wrote inside its read set. From then on later mutations read
through its writes, so that a hot document is not a queue of retries; nobody outside is told before it is durable, neither
its own caller nor that of one that failed on what it wrote. What was accepted and will never be, because another node's commit
changed what it had read, or because its group failed, is taken back by a change of its own at a later position: whoever has read
it runs again, and nobody else.

What each step waits for is why the order of commits is the order of ``ts`` and agrees with real time: a mutation that
begins after another was answered begins with that one's writes below it; ts are assigned in the order of acceptance
while the head is held, so no other node's commit falls in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from msgspec import Struct

from reactor.engine.commit_log import Published, hydrate
from reactor.engine.eager import Brief
from reactor.engine.read_set import ReadSet
from reactor.engine.recent import Change, Recent
from reactor.engine.row_cache import RowCache
from reactor.engine.runtime import Runtime
from reactor.engine.store import LOG_TRIMMED, OVER, Commit, LogEntry, RequestKey, RequestRepeated, Store, StoreSnapshot, Ts, Write
from reactor.engine.subscriptions import Subscriptions
from reactor.engine.transaction import NO_CACHE, Base, Transaction
from reactor.engine.write_set import Image, Overlay
from reactor.errors import StoreError, StoreUnavailable
from reactor.histogram import Histogram
from reactor.limits import Limits
from reactor.schema.catalog import Catalog

__all__ = ["Accepted", "Answer", "Committed", "Committer", "Conflict", "MutationTransaction"]

_log = logging.getLogger(__name__)

#: Turns of the loop for mutations that another node's commit made stale to run again, while the head is held. Those that find
#: what they read in the cache need two or three; the others come into a later group.
RERUN_TURNS = 4

#: How long a mutation may keep others from beginning; and after how long no further one is let.
FAVOUR_S = 0.5

#: Times that a group is written anew after its connection was lost.
WRITE_ATTEMPTS = 20

#: After an attempt to start over failed, another is made this long later.
START_OVER_S = 0.5

#: How long a reader waits for other nodes' commits.
REACH_S = 10.0

#: Upper bounds of the buckets in which groups are counted by their commits.
GROUP_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Conflict(Exception):
    """A mutation has to run again on a newer snapshot. Never leaves the engine.

    ``table`` is where the other commit wrote, for the error that a caller gets after the last attempt. ``repeated``: another
    node has answered one of the group's requests, perhaps this one. ``innocent``: it is only that what others had accepted
    before it, and it may have read, will never be; or that the head was lost, which would have kept other nodes from coming in its way.
    """

    def __init__(self, table: str = "", *, repeated: bool = False, innocent: bool = False) -> None:
        super().__init__(table)
        self.table = table
        self.repeated = repeated
        self.innocent = innocent


class Answer(Struct, frozen=True):
    """What a mutation's run gives to be committed with its writes."""

    value: bytes  # JSON text of the result: remembered for a resent request
    log_lines: tuple[str, ...] = ()
    result: Any = None  # handed through to the caller as it is


class Committed(Struct, frozen=True):
    """A mutation that is durable."""

    ts: Ts
    value: bytes
    log_lines: tuple[str, ...]
    result: Any  # the Answer's; None when replayed
    replayed: bool = False  # answered from the remembered first time; nothing ran


OnDurable = Callable[[Committed], None]


class Accepted(Brief[Committed]):
    """A mutation on its way into the store, and what it comes to there. Filled by ``Committer._queue``: to pass a future through an
    ``__init__`` of ours would take three times as long.

    Attributes:
        handed: what the run hands through to its caller.
        settled: for whoever waits without being the caller; see ``Committer.in_flight``.
    """

    __slots__ = ("commit", "handed", "on_durable", "position", "read_set", "settled")

    position: int
    commit: Commit
    read_set: ReadSet
    handed: Any
    on_durable: OnDurable | None
    settled: asyncio.Future[None] | None

    def settle(self, outcome: Committed | Exception) -> None:
        """Tell the caller, who may be gone, and whoever else waits."""
        if not self.done():
            if isinstance(outcome, Committed):
                self.set_result(outcome)
            else:
                self.set_exception(outcome)
        if self.settled is not None and not self.settled.done():
            self.settled.set_result(None)


class _Favoured(NamedTuple):
    """A mutation that is to run while no other does."""

    granted: asyncio.Future[None]
    over: asyncio.Future[None]


class MutationTransaction(Transaction):
    """A transaction that the committer began, and may accept."""

    epoch: int = 0


class Committer:
    """See the module.

    Positions count what was accepted here or learned from other nodes. Invariants: ``flushed <= position``; the overlay
    and ``_recent`` hold every accepted write above the smallest base of a running mutation; ``pending`` is what is above
    the group being written, in order. ``position``, ``flushed`` and the log's head are advanced by this class alone.

    Args:
        publish: told of durable commits, and where the head is now.
        restart: told of a snapshot to go on from, since what was committed before it can no longer be learned: entered before
            anything else goes on from there, left in the turn of the loop in which it does.
    Attributes:
        group_sizes: of the groups that became durable.
    """

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        limits: Limits,
        catalog: Catalog,
        head: Ts,
        publish: Callable[[Sequence[Published], Ts], None],
        restart: Callable[[StoreSnapshot], AbstractAsyncContextManager[None]],
    ) -> None:
        self._store = store
        self._runtime = runtime
        self._limits = limits
        self._publish = publish
        self._restart = restart
        self.catalog = catalog
        self.position = 0
        self.flushed = 0
        self.head = head
        self._epoch = 0  # grows whenever what running mutations began from ceases to be known: the catalog, or the log
        self._creation_time = 0.0  # above that of every document inserted here, also when the clock stands still
        self._overlay = Overlay()
        self.cache = RowCache(limits.row_cache_bytes)
        self._recent = Recent()
        self._running: dict[MutationTransaction, None] = {}
        self._pending: list[Accepted] = []
        self._requests: dict[RequestKey, Accepted] = {}  # accepted, and neither durable nor failed yet
        self._waiting: list[tuple[Ts, asyncio.Future[None]]] = []  # for the head to reach a ts
        self._news = False  # whether other nodes may have committed
        self._ended: StoreError | None = None
        self._failures = 0  # in a row, to write the group that is pending first
        self._head_lost = False  # since a group was durable: what held other nodes back may not have
        self.group_sizes = Histogram(GROUP_SIZES)
        self._favoured: deque[_Favoured] = deque()  # waiting for it
        self._quiet: asyncio.Future[None] | None = None  # resolves when no mutation runs, for the one that is favoured
        self._unfavoured = asyncio.Event()  # cleared while one mutation is favoured
        self._unfavoured.set()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = asyncio.Event()
        self._open.set()

    # --- mutations

    def begin(self, *, favoured: bool = False) -> MutationTransaction | None:
        """A transaction on the newest accepted state. Must be ended with ``end``.

        None, while a push switches the schema, and, unless it is ``favoured`` itself, while another one is: see ``opened``.

        Raises:
            StoreError: the committer has ended.
        """
        if self._ended is not None:
            raise self._ended
        if not self._open.is_set() or not (favoured or self._unfavoured.is_set()):
            return None
        snapshot = self._store.snapshot()
        base = Base(snapshot, self._overlay, self.flushed, self.position, self.cache_at(snapshot.ts))
        now_ms = self._runtime.now_ns() / 1e6
        tx = MutationTransaction(base, now_ms, self._limits, False, self._creation_time)
        tx.epoch = self._epoch
        self._running[tx] = None
        return tx

    async def opened(self) -> None:
        """Wait while what keeps a mutation from beginning now does."""
        await (self._open if not self._open.is_set() else self._unfavoured).wait()

    @contextlib.asynccontextmanager
    async def favour(self) -> AsyncIterator[None]:
        """Inside, one mutation that others kept coming in the way of runs, and no other does, here or on another node: the head
        is held meanwhile. For a moment only: one that takes longer is not waited for.

        Raises, when it is entered:
            StoreError: the committer has ended.
        """
        if self._ended is not None:
            raise self._ended
        loop = asyncio.get_running_loop()
        favoured = _Favoured(loop.create_future(), loop.create_future())
        self._favoured.append(favoured)
        self._idle.clear()
        self._wake.set()
        try:
            await favoured.granted
            yield
        finally:
            _resolve(favoured.over)

    @property
    def _to_be_favoured(self) -> bool:
        """Whether any may run now: a push that waits for what is pending would be waited for by each."""
        return bool(self._favoured) and self._open.is_set()

    async def _let_favoured_run(self) -> None:
        """The head is held, and every commit is learned: let those that are to be favoured run, one after the other."""
        loop = asyncio.get_running_loop()
        until = loop.time() + FAVOUR_S
        self._unfavoured.clear()
        try:
            while self._to_be_favoured and loop.time() < until:
                granted, over = self._favoured.popleft()
                if granted.done():
                    continue  # its caller went away
                patience = loop.call_later(FAVOUR_S, _resolve, over)
                if self._running:
                    self._quiet = loop.create_future()
                    await asyncio.wait((self._quiet, over), return_when=asyncio.FIRST_COMPLETED)
                    self._quiet = None
                _resolve(granted)
                await over
                patience.cancel()
        finally:
            self._unfavoured.set()

    def cache_at(self, ts: Ts) -> RowCache:
        """The row cache, if it has just what a snapshot at ``ts`` has. Another node's commit may be in that and not be learned."""
        return self.cache if ts == self.head else NO_CACHE

    def end(self, tx: MutationTransaction) -> None:
        """Close ``tx``, whether it was accepted or not."""
        tx.close()
        del self._running[tx]
        if self._quiet is not None and not self._running:
            _resolve(self._quiet)
        tx.base.snapshot.release()

    def accept(
        self, tx: MutationTransaction, answer: Answer, request: RequestKey | None, on_durable: OnDurable | None
    ) -> Committed | Accepted:
        """Validate ``tx`` and queue its writes.

        Returns: a future that resolves when they are durable. It raises Conflict when the mutation has to run again, or a
            StoreError when nothing was written. Cancelling it cancels the wait, not the commit. Its result at once where nothing
            has to be made durable.

        Raises:
            Conflict: a commit since ``tx`` began wrote inside its read set.
        """
        self._check(tx)
        writes = tx.writes()
        if not writes and request is None and tx.base.upto <= self.flushed and self._store.exclusive:
            # It only read, and nothing that could still be lost: there is nothing to make durable. Where there are other nodes,
            # only holding the head tells whether one of them had changed what it read before it began.
            committed = Committed(max(self.head, tx.ts), answer.value, answer.log_lines, answer.result)
            if on_durable is not None:
                on_durable(committed)
            return committed
        self._creation_time = max(self._creation_time, tx.creation_time)
        position = self.position + 1
        if writes:
            self._lay(position, writes, pending=True)
        commit = Commit(writes, request, answer.value, answer.log_lines)
        accepted = self._queue(position, commit, tx.read_set, answer.result, on_durable)
        if request is not None:
            self._requests[request] = accepted
        return accepted

    def _lay(self, position: int, writes: Sequence[Write], *, pending: bool = False, undone: bool = False) -> None:
        """Have what was written at the next position read by all that begin from now on, and stand in the way of what runs."""
        self.position = position
        self._recent.add(Change(position, writes, undone))
        self.cache.apply(writes, position, pending=pending)
        put = self._overlay.put
        for write in writes:
            put(Image(position, write.table, write.id, write.after, write.after_keys, write.row))

    def knows(self, tx: MutationTransaction) -> bool:
        """Whether what ``tx`` began from is still known: the schema is the same, and the log reaches back to it."""
        return tx.epoch == self._epoch

    def _check(self, tx: MutationTransaction, *, undone_only: bool = False) -> None:
        """Raise Conflict if something was accepted, learned or taken back since ``tx`` began that wrote inside its read set."""
        if tx.epoch != self._epoch:
            raise Conflict(innocent=True)
        change = self._recent.overlapping(tx.read_set, tx.base.upto, undone_only=undone_only)
        if change is not None:
            raise Conflict(innocent=True) if change.undone else Conflict(change.writes[0].table.name)

    async def confirm(self, tx: MutationTransaction) -> None:
        """Wait until all that ``tx`` may have read is durable, and no node has changed it: only then is a mutation that failed told so.

        Raises:
            Conflict: some of it will never be; the mutation has to run again.
            StoreError: the database cannot write.
        """
        self._check(tx, undone_only=self._store.exclusive)
        if tx.base.upto > self.flushed or not self._store.exclusive:
            await self._queue(self.position + 1, Commit(()), tx.read_set, None, None)

    def _queue(self, position: int, commit: Commit, read_set: ReadSet, handed: Any, on_durable: OnDurable | None) -> Accepted:
        accepted = Accepted()
        accepted.position = self.position = self.cache.position = position
        accepted.commit = commit
        accepted.read_set = read_set
        accepted.handed = handed
        accepted.on_durable = on_durable
        accepted.settled = None
        if not self._pending:
            self._idle.clear()
            self._wake.set()
        self._pending.append(accepted)
        return accepted

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
        """Write groups, and follow other nodes, until cancelled; ``drain`` first to lose none. One task of the engine runs this.

        Cancelling it waits for the group that is being written.

        Raises:
            StoreError: the store can be used no more.
        """
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._news:
                    await self._follow()
                while self._pending or self._to_be_favoured:
                    await self._write_group()
                self._idle.set()
        except Exception as error:
            # Nobody is left waiting for what nobody does.
            self._ended = error if isinstance(error, StoreError) else StoreError(f"The committer ended ({error!r}). Start the node again")
            self._abandon({accepted: self._ended for accepted in self._pending})
            for granted, _ in self._favoured:
                _resolve(granted)
            self._idle.set()
            raise self._ended from error

    async def drain(self) -> None:
        """Wait until nothing that was accepted is neither durable nor failed. The caller goes on in that very turn of the loop."""
        while not self._idle.is_set():
            await self._idle.wait()

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """No commit is in flight inside, of any node, and none begins; mutations that were running begin anew after it."""
        self._open.clear()
        try:
            await self.drain()
            self._forget_accepted()
            async with self._store.head_for_push() as head:
                if head.ts > self.head:
                    self._learn(await head.entries_after(self.head), head.ts)
                yield
                # Once more: keys may be others now than when a query read something meanwhile.
                self._forget_accepted()
        finally:
            self._open.set()
            if self._favoured and self._ended is None:
                self._idle.clear()
                self._wake.set()

    async def _write_group(self) -> None:
        group: list[Accepted] = []
        try:
            async with self._store.head() as head:
                if head.ts > self.head:
                    stale = self._learn(await head.entries_after(self.head), head.ts)
                    # They run again while the head is held: no other node's commit can come in their way a second time.
                    for _ in range(RERUN_TURNS if stale else 0):
                        await asyncio.sleep(0)
                if self._to_be_favoured:
                    await self._let_favoured_run()
                group, self._pending = self._pending, []
                if group:
                    self._assign(group, max(head.ts, self.head))
                    await head.write([accepted.commit for accepted in group])
                    # No turn of the loop between durable and published: whoever pins a snapshot finds it published.
                    self._finish(group)
        except RequestRepeated:
            self._pending = group + self._pending
            self._abandon({**dict.fromkeys(self._pending), **{accepted: Conflict(repeated=True) for accepted in group}})
        except Exception as error:
            self._pending = group + self._pending
            self._head_lost = True
            if isinstance(error, StoreError) and error.code == LOG_TRIMMED:
                await self._start_over(error)
                return
            over = isinstance(error, StoreError) and error.code in OVER
            if isinstance(error, StoreUnavailable) and not over and group and self._failures < WRITE_ATTEMPTS:
                # Nothing was written, and all of it still holds: the same is tried again, on another connection.
                self._failures += 1
                return
            self._abandon({**dict.fromkeys(self._pending), **dict.fromkeys(group or self._pending, error)})
            if over:
                raise
            if self._to_be_favoured:
                # The head cannot be held. They run all the same, and are told of it when they are to be written.
                await self._let_favoured_run()
        self._failures = 0

    # --- other nodes

    def hear(self) -> None:
        """Other nodes may have committed: look, soon."""
        self._news = True
        self._wake.set()

    async def reached(self, ts: Ts) -> None:
        """Wait until every commit up to ``ts``, which is one, is published.

        Raises:
            StoreUnavailable: other nodes' commits cannot be read.
        """
        if self.head >= ts:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ts, waiting))
        self.hear()

        def give_up() -> None:
            if not waiting.done():
                waiting.set_exception(StoreUnavailable(f"What other nodes committed up to {ts} could not be read in {REACH_S:g} s"))

        # Not asyncio.timeout, which wants a task.
        timer = asyncio.get_running_loop().call_later(REACH_S, give_up)
        try:
            await waiting
        finally:
            timer.cancel()

    async def _follow(self) -> None:
        self._news = False
        try:
            head, entries = await self._store.news(self.head)
        except StoreError as error:
            if error.code == LOG_TRIMMED:
                await self._start_over(error)
                return
            if error.code in OVER:
                raise
            # The store calls again.
            _log.warning("What other nodes committed could not be read: %s", error)
            return
        self._learn(entries, head)

    async def _start_over(self, why: StoreError) -> None:
        """Go on from the newest commit, since the log no longer has what other nodes committed after the last that was learned, or
        has more of it than can be learned.

        Whatever was read, accepted or shown may be stale: all mutations and live queries run again.
        """
        _log.warning("This node was cut off for too long: %s. It starts over from the database as it is", why)
        while True:
            try:
                async with self._store.skip() as snapshot, self._restart(snapshot):
                    pass
            except StoreError as error:
                if error.code in OVER:
                    raise
                _log.warning("The database could not be read: %s", error)
                self._abandon({accepted: error for accepted in self._pending})
                await self._runtime.sleep(START_OVER_S)
            else:
                break
        # In the turn in which the store's snapshots moved on.
        self._abandon(dict.fromkeys(self._pending))
        self._forget_accepted()
        self.head = snapshot.ts
        self._announce([])

    def _learn(self, entries: Sequence[LogEntry], head: Ts) -> bool:
        """Publish what other nodes committed up to ``head``. Whether accepted mutations had read what they changed, and begin anew."""
        foreign = [Published(entry.ts, hydrate(entry, self.catalog.tables)) for entry in entries if entry.ts > self.head]
        stale = self._stale(foreign)
        if stale:
            self._abandon(stale)
        for entry in foreign:
            # Above every running mutation: none of them has it in its snapshot.
            self._lay(self.position + 1, entry.writes)
            self._store.learn(entry.ts, entry.writes)
        if head > self.head:
            self._store.learn(head)
            self.head = head
            self._flush()
            self._announce(foreign)
        return bool(stale)

    def _stale(self, foreign: Sequence[Published]) -> dict[Accepted, Exception | None]:
        """The accepted mutations that had read what others changed, and those that had read what these wrote, in order."""
        stale: dict[Accepted, Exception | None] = {}
        if not foreign or not self._pending:
            return stale
        readers: Subscriptions[Accepted] = Subscriptions()
        for accepted in self._pending:
            readers.replace(accepted, accepted.read_set)
        for entry in foreign:
            for accepted in readers.overlapping(entry.writes):
                readers.remove(accepted)
                stale[accepted] = Conflict(entry.writes[0].table.name, innocent=self._head_lost)
        built_on = list(stale)
        while built_on:
            below = built_on.pop()
            for accepted in readers.overlapping(below.commit.writes):
                # One that was accepted before had not read it.
                if accepted.position > below.position:
                    readers.remove(accepted)
                    stale[accepted] = None
                    built_on.append(accepted)
        return {accepted: stale[accepted] for accepted in self._pending if accepted in stale}

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

    def _finish(self, group: Sequence[Accepted]) -> None:
        """The group is durable: answer, remember, make live queries stale, in this order and in one turn of the loop."""
        self.head = max(self.head, group[-1].commit.ts)
        self._head_lost = False
        self.group_sizes.add(len(group))
        self._flush()
        for accepted in group:
            commit = accepted.commit
            committed = Committed(commit.ts, commit.result, commit.log_lines, accepted.handed)
            # Before live queries: a client gets its response before the transition that covers it.
            if accepted.on_durable is not None:
                try:
                    accepted.on_durable(committed)
                except Exception:
                    # The commit stands, and so do those after it: they must not be told that nothing was written.
                    _log.exception("whoever waited for a commit could not be told of it")
            self._settle(accepted, committed)
        self._announce([Published(a.commit.ts, a.commit.writes) for a in group if a.commit.writes])

    def _flush(self) -> None:
        """All that is not pending is durable."""
        self.flushed = self._pending[0].position - 1 if self._pending else self.position
        self._prune()

    def _announce(self, published: Sequence[Published]) -> None:
        self._publish(published, self.head)
        if self._waiting:
            for ts, waiting in self._waiting:
                if ts <= self.head and not waiting.done():
                    waiting.set_result(None)
            self._waiting = [(ts, waiting) for ts, waiting in self._waiting if not waiting.done()]

    def _abandon(self, outcomes: Mapping[Accepted, Exception | None]) -> None:
        """Take back accepted writes that will never be durable.

        Args:
            outcomes: whose, in order, all that have read any of it included; what their callers get, None: they run again.
        """
        self._pending = [accepted for accepted in self._pending if accepted not in outcomes]
        undone = [
            Write(write.table, write.id, write.after, write.before, write.after_keys, write.before_keys)
            for accepted in reversed(list(outcomes))
            for write in reversed(accepted.commit.writes)
        ]
        self._lay(self.position + 1, undone, undone=True)
        self._flush()
        for accepted, outcome in outcomes.items():
            self._settle(accepted, outcome or Conflict(innocent=True))

    def _forget_accepted(self) -> None:
        """Begin anew from what is durable, with nothing that is known of it. Nothing is pending."""
        self._epoch += 1
        self._overlay.clear()
        self._recent.clear()
        self.position += 1
        self.flushed = self.position
        self.cache.clear(self.position)

    def _settle(self, accepted: Accepted, outcome: Committed | Exception) -> None:
        if accepted.commit.request is not None:
            del self._requests[accepted.commit.request]
        accepted.settle(outcome)

    def _prune(self) -> None:
        """Forget what every running mutation's snapshot, and every later one, has."""
        # The one that has run for longest began with the least.
        oldest = next(iter(self._running), None)
        above = self.flushed if oldest is None else oldest.base.above
        self._overlay.drop_upto(above)
        self._recent.drop_upto(above)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
