"""Runs scheduled functions when they are due: the service behind ``ctx.scheduler``.

A scheduled function is a document. What makes a mutation run once is that document alone: the transaction that runs the
mutation finds it pending and leaves it ended, so of two nodes that try, one commits and the other finds it ended. An action
goes from pending to in progress in the transaction that claims it, and nothing ever takes it back.

Leases are there so that nodes do not try in vain, and so that what a dead node was running is noticed::

    pending ── claim: the node's lease names it ──► mutation: run and end in one transaction
                                                └─► action: in progress ── run ──► ended
    in progress, and in no lease that holds ──► failed

A node has one lease, renewed while it has anything claimed. Whatever it claims it first looks up in the newest snapshot, which
is not part of any read set: only claims of two nodes at the same moment conflict, and mutations that schedule never do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

from reactor.engine.live_query import Own, Subscription
from reactor.engine.snapshot import Pin
from reactor.engine.store import Row, Ts, Write
from reactor.engine.transaction import Transaction
from reactor.errors import AppError, FunctionNotFound, StoreError, WriteConflict
from reactor.functions.calls import Invocation
from reactor.functions.crons import proceed
from reactor.functions.database import Writer
from reactor.functions.function import Kind
from reactor.functions.identity import Caller
from reactor.functions.runner import Runner, Superseded
from reactor.functions.scheduling import finish, uncounted
from reactor.histogram import Histogram
from reactor.schema.index import IndexRange, gt, lte
from reactor.schema.system import CronJob, ScheduledFunction, ScheduledState, SchedulerLease
from reactor.values.ids import Id
from reactor.values.interval import END

__all__ = ["INTERRUPTED", "ScheduledRuns"]

_log = logging.getLogger(__name__)

#: The error of an action whose node died or was stopped under it.
INTERRUPTED = "Transient error while executing action"

#: Mutations that a node has claimed: some that run, and the next ones, so that a claim is not needed for each.
CLAIMED = 128
#: Rows looked at in one turn to find what to claim, besides those that other nodes have claimed.
LOOK_AHEAD = 512
NODES = 1000
CRONS = 10_000
#: Rows fetched at a time, and the text after which no more are: arguments may be large.
STEP = 16
LOOKED_AT_BYTES = 4 * 1024 * 1024
#: A mutation that conflicts, or a database that cannot write, is tried again after a wait that doubles.
FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 60.0
#: How long functions may go on that were canceled when their time at a stop was over.
CANCELED_S = 2.0
#: Upper bounds of the buckets in which beginnings are counted by how long after their time they came, seconds.
LATENESS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0)
#: How often ended functions past their retention are looked for, and how many are deleted in one transaction.
TRIM_EVERY_S = 600.0
TRIMMED_AT_ONCE = 100


class _Due(NamedTuple):
    """A scheduled function that may be claimed, as the newest snapshot has it."""

    row: Row
    name: str
    kind: Kind
    scheduled_ms: float


@dataclass(slots=True)
class _Lane:
    """Functions of one kind on their way to be claimed. Each kind has its own room, and one that waits is not before the other.

    Invariant: of what is pending below ``past``, all of this kind is claimed, but for what is at ``news`` or above it.
    """

    past: bytes = b""
    news: bytes = b""
    whole: bool = True  # what is due was looked at to its end


@dataclass(frozen=True, slots=True)
class _Watched:
    """The outcome of the live query that tells of changes; it never differs."""

    identity_used: bool = False
    journal: str | None = None
    lasting: bool = False
    joinable: bool = True

    def same_as(self, other: Any) -> bool:
        return True


class ScheduledRuns:
    """Runs what is due on one node. ``run`` until ``stop``; or ``run_due``, where the clock is moved by hand.

    Args:
        alone: no other node serves this database, so leases found at the start are of processes that are gone.

    Attributes:
        owner: names this node in its lease.
        lateness: of all that began here, in seconds after their time.
    """

    def __init__(self, runner: Runner, *, alone: bool) -> None:
        self.owner = runner.runtime.random_bytes(8).hex()
        self.lateness = Histogram(LATENESS_S)
        self._runner = runner
        self._runtime = runner.runtime
        self._alone = alone
        self._claimed: dict[str, asyncio.Task[None]] = {}
        self._actions: set[str] = set()  # of those claimed
        self._lanes: dict[Kind, _Lane] = {"mutation": _Lane(), "action": _Lane()}
        self._app = runner.app  # whose functions have the kinds that the lanes know
        self._slots = asyncio.Semaphore(runner.limits.scheduled_mutations_running)
        self._wake = asyncio.Event()
        self._turning = asyncio.Lock()  # a claim must know the one before
        self._stopping = False
        self._lease_until_ms: float | None = None  # None: there is no lease of ours
        self._reap_at_ms = 0.0
        self._trim_at_ms = 0.0
        self._pending = ScheduledFunction.by_state(state__kind="pending").interval
        for document in (ScheduledFunction, SchedulerLease):
            runner.engine.follow(runner.engine.catalog.table(document).name, self._follow, self._look_anew)

    # --- running

    async def run(self) -> None:
        """Run what falls due until ``stop``, or until cancelled, which leaves what runs to be found by another node."""
        watch: Subscription[_Watched] = self._runner.engine.live.subscribe(Own(("scheduled functions", self)), None, self._watch, self)
        backoff_s = FIRST_BACKOFF_S
        try:
            while not self._stopping:
                self._wake.clear()
                try:
                    await self._look(watch)
                    wait_s = await self.turn()
                    backoff_s = FIRST_BACKOFF_S
                except Exception as error:
                    # Of other nodes' making is a conflict only.
                    if not isinstance(error, WriteConflict):
                        _log.exception("Scheduled functions cannot be claimed; it is tried again in %g s", backoff_s)
                    wait_s, backoff_s = backoff_s, min(2 * backoff_s, LONGEST_BACKOFF_S)
                await self._pause(wait_s)
        finally:
            watch.close()

    async def stop(self, timeout_s: float) -> None:
        """Claim nothing more, let what runs end for up to ``timeout_s``, and give back the rest. Actions among it have failed."""
        self._stopping = True
        self._wake.set()
        async with self._turning:
            tasks = list(self._claimed.values())
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCELED_S)
        if self._lease_until_ms is not None:
            with contextlib.suppress(StoreError, WriteConflict):  # it expires by itself
                await self._release()

    async def run_due(self) -> None:
        """Run what is due now to its end, and what becomes due now by that."""
        while True:
            self._wake.clear()
            if await self.turn() <= 0:
                continue
            if self._claimed:
                await asyncio.wait(list(self._claimed.values()), return_when=asyncio.FIRST_COMPLETED)
            elif not self._wake.is_set():
                return  # and nothing ended during that turn, which had no room for more

    async def next_due_ms(self) -> float | None:
        """When the next pending function is due, which may have passed, ms since the epoch; None when there is none."""
        return await self._first_due_ms(ScheduledFunction.by_state(state__kind="pending"))

    async def overdue_s(self) -> float:
        """For how long the oldest function that has not ended has been due; 0 when none is.

        Raises:
            StoreError: the database does not say.
        """
        due_ms = await self.next_due_ms()
        return 0.0 if due_ms is None else max(0.0, self._now_ms() - due_ms) / 1000

    async def turn(self) -> float:
        """Do what is to be done now, and begin to run what is due.

        Returns: the seconds until there is more to do, if nothing changes before.

        Raises:
            StoreError, WriteConflict: something could not be written; it is left for the next turn.
        """
        async with self._turning:
            return await self._turn()

    async def _turn(self) -> float:
        now_ms = self._now_ms()
        limits = self._runner.limits
        lease_ms = limits.scheduler_lease_s * 1000
        until = [now_ms + lease_ms]
        if now_ms >= self._trim_at_ms:
            more = await self._trim(now_ms - limits.scheduled_retention_s * 1000)
            self._trim_at_ms = now_ms if more else now_ms + TRIM_EVERY_S * 1000
        until.append(self._trim_at_ms)
        if now_ms >= self._reap_at_ms:
            self._reap_at_ms = await self._reap(now_ms)
        until.append(self._reap_at_ms)
        if self._lease_until_ms is not None:
            if now_ms >= self._lease_until_ms - lease_ms * 2 / 3:
                await (self._claim(now_ms, []) if self._claimed else self._release())
            if self._lease_until_ms is not None:
                until.append(self._lease_until_ms - lease_ms * 2 / 3)
        if not self._stopping:
            found = await self._due(now_ms)
            if (found and not await self._claim(now_ms, found)) or not all(lane.whole for lane in self._lanes.values()):
                until.append(now_ms)  # other nodes were faster, or there is more to look at
            next_ms = await self._first_due_ms(ScheduledFunction.by_state(state__kind="pending", scheduled_time=gt(now_ms)))
            if next_ms is not None:
                until.append(next_ms)
        return max(0.0, (min(until) - now_ms) / 1000)

    # --- waiting

    def invalidated(self, subscription: Subscription[Any]) -> None:
        """Something was scheduled, here or on another node, or ended."""
        self._wake.set()

    async def _look(self, watch: Subscription[_Watched]) -> None:
        """Have the next change wake us. Before looking for what is due: what comes in between wakes too."""
        pin = self._runner.engine.pin()
        try:
            outcome = watch.at(pin)
            if isinstance(outcome, asyncio.Future):
                await outcome
        finally:
            pin.release()

    async def _watch(self, tx: Transaction, journal: str | None) -> _Watched:
        pending = ScheduledFunction.by_state(state__kind="pending")
        table = self._runner.engine.catalog.table(ScheduledFunction)
        # All of it without reading any of it.
        every = pending.interval
        tx.read_set.add(table.index(pending.index), every.lo, every.hi, every.prefix)
        return _Watched()

    async def _pause(self, seconds: float) -> None:
        """Wait until then, or for a change."""
        waits = [asyncio.ensure_future(self._runtime.sleep(seconds)), asyncio.ensure_future(self._wake.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _now_ms(self) -> float:
        return self._runtime.now_ns() / 1e6

    # --- claiming

    async def _first_due_ms(self, pending: IndexRange[ScheduledFunction]) -> float | None:
        rows = await self._scan(pending, limit=1)
        return orjson.loads(rows[0].json)["scheduledTime"] if rows else None

    async def _scan(self, range: IndexRange[Any], *, limit: int) -> list[Row]:
        """Rows of the newest snapshot, for nobody's read set and past no limit."""
        engine = self._runner.engine
        pin = engine.pin()
        try:
            index = engine.catalog.table(range.document).index(range.index)
            return await pin.snapshot.scan(index, range.interval.lo, range.interval.hi, reverse=False, limit=limit)
        finally:
            pin.release()

    async def _due(self, now_ms: float) -> list[_Due]:
        """What is due and claimed by nobody, as the newest snapshot has it: as much as there is room for."""
        engine, limits = self._runner.engine, self._runner.limits
        mutations, actions = len(self._claimed) - len(self._actions), len(self._actions)
        # In batches: one commit claims several. Of actions, which may run for long, whatever there is room for.
        room = {
            "mutation": CLAIMED - mutations if mutations <= CLAIMED // 2 else 0,
            "action": limits.scheduled_actions_running - actions,
        }
        if self._app is not self._runner.app:
            self._app = self._runner.app
            self._look_anew()
        for lane in self._lanes.values():
            # What is published from here on is not in the snapshot.
            lane.past, lane.news, lane.whole = min(lane.past, lane.news), END, True
        pin = engine.pin()
        try:
            every = SchedulerLease.by_creation_time()
            index = engine.catalog.table(SchedulerLease).index(every.index)
            leases = await pin.snapshot.scan(index, every.interval.lo, every.interval.hi, reverse=False, limit=NODES)
            # Ours may name what was changed meanwhile and not run, or what a claim that failed was about.
            others = [lease for row in leases if (lease := orjson.loads(row.json))["owner"] != self.owner]
            taken = {job for lease in others for job in lease["jobs"]} | self._claimed.keys()
            return [
                due
                for kind, lane in self._lanes.items()
                if room[kind] > 0
                for due in await self._due_in(pin, lane, kind, room[kind], taken, now_ms)
            ]
        finally:
            pin.release()

    async def _due_in(self, pin: Pin, lane: _Lane, kind: Kind, room: int, taken: Set[str], now_ms: float) -> list[_Due]:
        """What is due of one kind, oldest first."""
        due = ScheduledFunction.by_state(state__kind="pending", scheduled_time=lte(now_ms))
        index = self._runner.engine.catalog.table(ScheduledFunction).index(due.index)
        found: list[_Due] = []
        looked_at_bytes = 0
        left = LOOK_AHEAD + len(taken)
        lane.past = lo = max(lane.past, due.interval.lo)
        while len(found) < room:
            if left <= 0 or looked_at_bytes >= LOOKED_AT_BYTES:
                lane.whole = False
                break
            rows = await pin.snapshot.scan(index, lo, due.interval.hi, reverse=False, limit=STEP)
            for row in rows:
                looked_at_bytes += len(row.json)
                fields = orjson.loads(row.json) if row.id not in taken else None
                if fields is not None and self._kind(fields["name"]) == kind:
                    found.append(_Due(row, fields["name"], kind, fields["scheduledTime"]))
                    if len(found) == room:
                        break
                elif not found:
                    # Not past what was found: it may not come to be claimed.
                    lane.past = row.key + b"\x00"
            if len(rows) < STEP:
                break
            lo = rows[-1].key + b"\x00"
            left -= STEP
        return found

    def _look_anew(self) -> None:
        """Of what the lanes have looked at, some may be nobody's now."""
        for lane in self._lanes.values():
            lane.news = b""

    def _follow(self, ts: Ts, write: Write) -> None:
        """A write was published to a scheduled function, or to a lease."""
        if write.table.document is SchedulerLease:
            if write.after is None:
                self._look_anew()
        elif write.after is not None:
            key = write.after_keys[write.table.index("by_state").position]
            if self._pending.lo <= key < self._pending.hi:
                for lane in self._lanes.values():
                    lane.news = min(lane.news, key)

    def _kind(self, name: str) -> Kind:
        """As what a function is to be run; what is not there any more fails as any kind."""
        try:
            return self._runner.app.registry.find(name, None, internal=True).kind
        except FunctionNotFound:
            return "mutation"

    async def _claim(self, now_ms: float, found: list[_Due]) -> int:
        """Renew our lease with ``found`` in it, and begin to run them; how many there were that no other node has."""
        until_ms = now_ms + self._runner.limits.scheduler_lease_s * 1000

        async def claim(db: Writer, _: float) -> list[_Due]:
            leases = await db.query(SchedulerLease).collect()
            taken = {job for lease in leases if lease.owner != self.owner for job in lease.jobs}
            claimed: list[_Due] = []
            for due in found:
                if due.row.id in taken:
                    continue
                if due.kind == "action":
                    job = await db.get(ScheduledFunction, due.row.id)
                    if job is None or job.state.kind != "pending":
                        continue
                    await db.patch(job.id, state=ScheduledState(kind="inProgress"))
                claimed.append(due)
            if claimed or not found:
                lease = SchedulerLease(owner=self.owner, expires=until_ms, jobs=[*self._claimed, *(due.row.id for due in claimed)])
                ours = next((lease for lease in leases if lease.owner == self.owner), None)
                await (db.insert(lease) if ours is None else db.replace(ours.id, lease))
            return claimed

        try:
            claimed = await self._runner.transact(claim)
        except BaseException:
            # It may have been written all the same. What is in progress and not in what we know to be ours is found by that.
            self._reap_at_ms = now_ms
            raise
        if claimed or not found:
            self._lease_until_ms = until_ms
        for due in claimed:
            run = self._action if due.kind == "action" else self._mutation
            if due.kind == "action":
                self._actions.add(due.row.id)
            task = asyncio.create_task(run(due), name=f"reactor-scheduled-{due.name}")
            self._claimed[due.row.id] = task
            task.add_done_callback(lambda task, id=due.row.id: self._ended(id, task))  # type: ignore[misc]
        return len(claimed)

    def _ended(self, id: str, task: asyncio.Task[None]) -> None:
        is_action = id in self._actions
        del self._claimed[id]
        self._actions.discard(id)
        if not task.cancelled() and (error := task.exception()) is not None:
            # It may be pending still, and have been passed over because it was claimed.
            self._look_anew()
            if not isinstance(error, Superseded):
                _log.error("A scheduled function could not be run; it is taken up again", exc_info=error)
                self._reap_at_ms = 0.0
        if is_action or len(self._claimed) - len(self._actions) <= CLAIMED // 2:
            self._wake.set()

    async def _release(self) -> None:
        """Give up our lease, with all that is still in it."""

        async def release(db: Writer, _: float) -> None:
            for lease in await db.query(SchedulerLease).collect():
                if lease.owner == self.owner:
                    await db.delete(lease.id)

        await self._runner.transact(release)
        self._lease_until_ms = None

    # --- what dead nodes leave behind

    async def _reap(self, now_ms: float) -> float:
        """Delete leases that do not hold any more, and fail the actions that are in progress in none; when to look again."""
        alone, self._alone = self._alone, False

        async def expire(db: Writer, _: float) -> list[SchedulerLease]:
            leases = await db.query(SchedulerLease).collect()
            gone = [lease for lease in leases if lease.owner != self.owner and (alone or lease.expires <= now_ms)]
            for lease in gone:
                await db.delete(lease.id)
            return [lease for lease in leases if lease not in gone]

        if await self._scan(SchedulerLease.by_creation_time(), limit=1):
            leases = await self._runner.transact(expire)
        else:
            leases = []
        held = {job for lease in leases if lease.owner != self.owner for job in lease.jobs} | self._claimed.keys()
        running = ScheduledFunction.by_state(state__kind="inProgress")
        rows = await self._scan(running, limit=len(held) + STEP)
        for row in rows:
            if row.id not in held:
                await self._runner.transact(lambda db, now_ms, id=row.id: self._fail_orphan(db, now_ms, id))  # type: ignore[misc]
        if any(row.id not in held for row in rows):
            return now_ms  # there may be more
        await self._proceed_orphans(held)
        others = [lease.expires for lease in leases if lease.owner != self.owner]
        return min([now_ms + self._runner.limits.scheduler_lease_s * 1000, *others])

    async def _fail_orphan(self, db: Writer, now_ms: float, id: str) -> None:
        leases = await db.query(SchedulerLease).collect()
        job = await db.get(ScheduledFunction, id)
        held = any(id in lease.jobs for lease in leases if lease.owner != self.owner) or id in self._claimed
        if job is not None and job.state.kind == "inProgress" and not held:
            await finish(db, now_ms, job, "failed", INTERRUPTED)

    async def _proceed_orphans(self, held: Set[str]) -> None:
        """Have crons go on of which the run was canceled while it was in progress, on a node that died before it ended."""
        for cron in await self._scan(CronJob.by_creation_time(), limit=CRONS):
            id = orjson.loads(cron.json)["job"]
            rows = await self._scan(ScheduledFunction.by_id(id=id), limit=1)
            if id not in held and rows and orjson.loads(rows[0].json)["state"]["kind"] == "canceled":
                await self._end(id, "inProgress", "failed", INTERRUPTED)

    async def _trim(self, before_ms: float) -> bool:
        """Delete some that ended before then; whether there may be more."""
        ended = ScheduledFunction.by_completed_time(completed_time=gt(0.0) & lte(before_ms))
        rows = await self._scan(ended, limit=TRIMMED_AT_ONCE)

        async def delete(db: Writer, _: float) -> None:
            for row in rows:
                if await db.get(ScheduledFunction, row.id) is not None:
                    await db.delete(Id(row.id))

        if rows:
            await self._runner.transact(delete)
        return len(rows) == TRIMMED_AT_ONCE

    # --- one function

    async def _caller(self, due: _Due) -> Caller:
        origin = "scheduler"
        if any(cron.path == due.name for cron in self._runner.app.crons):
            with contextlib.suppress(StoreError):  # only the log wants to know
                if await self._scan(CronJob.by_job(job=Id(due.row.id)), limit=1):
                    origin = "cron"
        return Caller(None, True, self._runtime.random_bytes(8).hex(), origin, due.row.id)

    def _begun(self, due: _Due) -> None:
        # By a clock that went back, it may begin before its time.
        self.lateness.add(max(0.0, self._now_ms() - due.scheduled_ms) / 1000)

    async def _mutation(self, due: _Due) -> None:
        """Run a mutation until it has committed or failed.

        Raises:
            Superseded: it is not to be run any more, or not as it was claimed.
        """
        late = False

        async def attempt() -> None:
            nonlocal late
            async with self._slots:
                if not late:
                    self._begun(due)
                    late = True
                await self._attempt(due)

        await self._insist(attempt)

    async def _attempt(self, due: _Due) -> None:
        """Run a mutation and note its end in the same transaction; if it fails, note that in another."""
        runner, table = self._runner, self._runner.engine.catalog.table(ScheduledFunction)
        rows = await self._scan(ScheduledFunction.by_id(id=due.row.id), limit=1)
        if not rows:
            raise Superseded
        row = rows[0]
        fields = orjson.loads(row.json)
        if fields["state"]["kind"] != "pending" or fields["scheduledTime"] > self._now_ms():
            raise Superseded

        async def within(invocation: Invocation, run: Callable[[], Awaitable[bytes]]) -> bytes:
            tx = invocation.tx
            with uncounted(tx):
                current = await tx.get(table, row.id)
            if current is None or current.json != row.json:
                raise Superseded
            value = await run()
            db = runner.system_writer(tx)
            with uncounted(tx):
                job = await db.get(ScheduledFunction, row.id)
                assert job is not None and job.state.kind == "pending", "only this transaction ends it"
                await finish(db, tx.now_ms, job, "success")
            return value

        outcome = await runner.mutation(due.name, orjson.dumps(fields["args"][0]), await self._caller(due), within=within)
        if outcome.error is None:
            return
        error = outcome.error.exception
        if isinstance(error, StoreError | WriteConflict):
            raise error
        await self._end(row.id, "pending", "failed", self._text(error))

    async def _action(self, due: _Due) -> None:
        """Run an action that was claimed, and note its end."""
        self._begun(due)
        args = orjson.dumps(orjson.loads(due.row.json)["args"][0])
        try:
            outcome = await self._runner.action(due.name, args, await self._caller(due))
        except asyncio.CancelledError:
            await self._end(due.row.id, "inProgress", "failed", INTERRUPTED)
            raise
        error = None if outcome.error is None else self._text(outcome.error.exception)

        async def end() -> None:
            await self._end(due.row.id, "inProgress", "success" if error is None else "failed", error)

        await self._insist(end)

    async def _end(self, id: str, at: str, kind: Literal["success", "failed"], error: str | None) -> None:
        """Note the end of a function that is still in the state ``at``: else it was canceled, or another node ended it."""

        async def end(db: Writer, now_ms: float) -> None:
            job = await db.get(ScheduledFunction, id)
            if job is not None and job.state.kind == at:
                await finish(db, now_ms, job, kind, error)
            elif job is not None and job.state.kind == "canceled":
                await proceed(db, now_ms, job)

        await self._runner.transact(end)

    async def _insist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Attempt it until nothing of the system's own prevents it: conflicts, a database that cannot write, a bug of ours.

        Raises:
            Superseded: it is not to be attempted any more.
        """
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                return await attempt()
            except Superseded:
                raise
            except Exception as error:
                if not isinstance(error, WriteConflict):
                    _log.exception("A scheduled function could not be run; it is tried again in %g s", backoff_s)
            await self._runtime.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    def _text(self, error: Exception) -> str:
        text = str(error) if isinstance(error, AppError) else f"{type(error).__name__}: {error}"
        # Whatever an exception says has to be a value.
        return text[: self._runner.limits.error_message_chars].encode("utf-8", "replace").decode()
