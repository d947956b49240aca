"""Live queries: one run, one result, many watchers.

A live query is a function with arguments, and an identity if the function looked at it. However many watch it, it runs
once for each commit that touched what it read. Its result is whatever the run gave, an ``Outcome``; this module never
looks inside.

The registration race (a commit between the end of a run and the registration of its read set) is closed in
``LiveQuery._settle``: the commit log is asked from the run's ts on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, get_args

from reactor.engine.commit_log import CommitLog, Published
from reactor.engine.eager import start
from reactor.engine.read_set import ReadSet
from reactor.engine.runtime import Runtime
from reactor.engine.snapshot import Pin
from reactor.engine.store import Ts
from reactor.engine.subscriptions import Subscriptions
from reactor.engine.transaction import Transaction
from reactor.errors import StoreUnavailable
from reactor.limits import Limits
from reactor.schema.system import ENVIRONMENT

__all__ = ["Cause", "LiveQueries", "LiveQuery", "Outcome", "Own", "Run", "Subscription", "Watcher"]

#: Why a query runs again: a commit touched what it read, or an environment variable that it read was changed; code was pushed;
#: its watcher is somebody else now; or it is asked for as of a snapshot that its newest result is not of.
Cause = Literal["commit", "environment", "push", "identity", "snapshot"]


class Outcome(Protocol):
    """What one run of a query gave, a failure included. Immutable."""

    @property
    def identity_used(self) -> bool:
        """Whether the function looked at who calls: then the result is that caller's alone."""
        ...

    @property
    def journal(self) -> str | None:
        """Passed to the next run: what lets a page keep its end."""
        ...

    @property
    def lasting(self) -> bool:
        """Whether it may be given to one who asks for it later: not of a failure, whose text names a request, nor of a page, a clock
        or dice, and not large."""
        ...

    @property
    def joinable(self) -> bool:
        """Whether a newcomer would be served by this result; else it gets a run of its own."""
        ...

    def same_as(self, other: Any) -> bool:
        """Whether a watcher could not tell this result from ``other``."""
        ...


O = TypeVar("O", bound=Outcome)  # noqa: E741 - the outcome's type

#: Runs the query once. Gives an outcome for every failure of the function; raises only for our own bugs. What it gives of a
#: database that did not answer is no result, and raises that.
Run = Callable[[Transaction, str | None], Coroutine[Any, Any, O]]


#: Where newcomers find a live query: its key, the journal it began with, and its identity, or ``_SHARED``.
Slot = tuple[Hashable, str | None, Hashable]


class Watcher(Protocol):
    """Who holds subscriptions: one client session."""

    def invalidated(self, subscription: Subscription[Any]) -> None:
        """The result is stale. Called in the turn of the loop that published the commit: note it, schedule, return."""
        ...


class Subscription(Generic[O]):
    """One watcher's hold on a live query. Made by ``LiveQueries.subscribe``; closed once.

    Attributes:
        live: which is another one's when a result turns out to depend on who calls: a result that does not is that of all who
            hold the same.
    """

    __slots__ = ("_asked", "_closed", "_identity", "_journal", "_key", "_queries", "_run", "live", "watcher")

    def __init__(
        self,
        queries: LiveQueries[O],
        key: Hashable,
        identity: Hashable,
        journal: str | None,
        run: Run[O],
        watcher: Watcher,
        cause: Cause | None,
    ) -> None:
        self._queries = queries
        self._key = key
        self._identity = identity
        self._journal = journal
        self._run = run
        self._asked = Ts(0)  # by ``at``, the last time
        self._closed = False
        self.watcher = watcher
        self.live = queries._join(self, key, identity, journal, run, (_SHARED, identity), cause)

    def at(self, pin: Pin) -> O | asyncio.Future[O]:
        """The result as of the pinned ts: at once when it is known or the run did not suspend, else a future.

        If others have a newer one by then, the watcher is told that this is stale: it was not when that one came to be.

        Cancelling the future cancels this wait, not the run, which others may share.

        Raises, as the future does:
            StoreUnavailable: the database did not answer. Ask again, at a later pin.
        """
        live = self.live
        self._asked = pin.ts
        outcome = live.at(pin)
        if isinstance(outcome, asyncio.Future):
            pin.retain()
            later = asyncio.ensure_future(self._later(live, outcome, pin))
            # Not in the task itself: one that is cancelled before its first step never comes to its `finally`.
            later.add_done_callback(lambda _: pin.release())
            return later
        if outcome.identity_used and self._foreign(live, outcome):
            return self.at(pin)
        if live.ts > pin.ts:
            self._tell_overtaken(pin.ts)
        return outcome

    def known(self, ts: Ts) -> O | None:
        """The result as of ``ts``, if an earlier run tells: what most watchers find that the first one had computed."""
        live = self.live
        outcome = live.outcome
        if (
            outcome is not None
            and live.ts <= ts
            and (live.invalid_at is None or ts < live.invalid_at)
            and (not outcome.identity_used or live.identity == self._identity)
        ):
            return outcome
        return None

    def now(self, pin: Pin) -> O | None:
        """The result as of the pinned ts, if nothing has to be waited for to tell; else ``running`` may have the run that tells."""
        outcome = self.known(pin.ts)
        if outcome is None and pin.ts not in self.live._running:
            live = self.live
            asked = live.at(pin)
            if not isinstance(asked, asyncio.Future) and not self._foreign(live, asked):
                return asked
        return outcome

    def running(self, ts: Ts) -> asyncio.Future[O] | None:
        """The run as of ``ts``, if one was begun and suspends. What it gives is not always this watcher's: ``known`` says."""
        return self.live._running.get(ts)

    def close(self) -> None:
        """Stop watching. Idempotent."""
        self._closed = True
        self.live.leave(self)

    async def _later(self, live: LiveQuery[O], running: asyncio.Future[O], pin: Pin) -> O:
        outcome = await asyncio.shield(running)
        if self._foreign(live, outcome):
            try:
                again = self.at(pin)
                return await again if isinstance(again, asyncio.Future) else again
            finally:
                if self._closed:
                    self.live.leave(self)
        if live.ts > pin.ts:
            self._tell_overtaken(pin.ts)
        return outcome

    def _tell_overtaken(self, ts: Ts) -> None:
        """The result as of ``ts`` is not the newest, and no commit to come makes it stale: only the newest is registered."""
        if ts == self._asked and not self._closed:
            self.watcher.invalidated(self)

    def _foreign(self, live: LiveQuery[O], outcome: O) -> bool:
        """Whether ``outcome``, of ``live``, turned out to depend on another's identity. Then this holds a live query of its own."""
        if not outcome.identity_used or live.identity == self._identity:
            return False
        if self.live is not live:
            return True  # since another wait for the same
        live.leave(self)
        # Not the shared one again: at another ts it may be fit to share, and at this one foreign for ever.
        cause = self.live._cause
        self.live = self._queries._join(self, self._key, self._identity, self._journal, self._run, (self._identity,), cause)
        return True


class LiveQuery(Generic[O]):
    """See the module. Owned by ``LiveQueries``; lives as long as it has subscriptions.

    Invariants: ``outcome`` is the result at every ts with ``ts <= t < invalid_at`` (without end while None, as far as
    commits are published); while it has one, its read set is registered as of ``ts``.
    """

    __slots__ = ("_cause", "_journal", "_queries", "_run", "_running", "identity", "invalid_at", "outcome", "slot", "subscriptions", "ts")

    def __init__(
        self, queries: LiveQueries[O], slot: Slot, identity: Hashable, journal: str | None, run: Run[O], cause: Cause | None
    ) -> None:
        self._queries = queries
        self._run = run
        self._journal = journal
        self._running: dict[Ts, asyncio.Future[O]] = {}
        self._cause = cause  # of the run that is next if there is no result, or it is stale; None: it is the first
        self.slot = slot
        self.identity = identity
        self.outcome: O | None = None
        self.ts = Ts(0)
        self.invalid_at: Ts | None = None
        self.subscriptions: dict[Subscription[O], None] = {}

    def at(self, pin: Pin) -> O | asyncio.Future[O]:
        """The result as of ``pin.ts``, running the query there if no known one covers it."""
        ts = pin.ts
        if self.outcome is not None and self.ts <= ts and (self.invalid_at is None or ts < self.invalid_at):
            return self.outcome
        running = self._running.get(ts)
        if running is not None:
            return running
        cause = "snapshot" if self.outcome is not None and ts < self.ts else self._cause
        if cause is not None:
            self._queries.reruns[cause] += 1
        result = start(self._evaluate(pin.retain()))
        if isinstance(result, asyncio.Task):
            self._running[ts] = result
            result.add_done_callback(lambda task: self._ended(ts, task))
        return result

    def leave(self, subscription: Subscription[O]) -> None:
        """One subscription fewer; the last one ends the live query."""
        if self.subscriptions.pop(subscription, self) is None and not self.subscriptions:
            self._queries._end(self)

    def invalidate(self, ts: Ts, cause: Cause) -> None:
        """A commit at ``ts`` overlapped what the result was computed from."""
        if self.invalid_at is None:
            self.invalid_at = ts
            self._cause = cause
            for subscription in list(self.subscriptions):
                subscription.watcher.invalidated(subscription)

    def restart(self) -> None:
        """The code changed: no result so far holds at any ts, those being computed included."""
        self._running = {}
        self.outcome = None
        self._cause = "push"
        self._queries._subscriptions.remove(self)
        for subscription in list(self.subscriptions):
            subscription.watcher.invalidated(subscription)

    async def _evaluate(self, pin: Pin) -> O:
        queries = self._queries
        generation = queries.generation
        tx = Transaction(pin.base, now_ms=queries.runtime.now_ns() / 1e6, limits=queries.limits, read_only=True)
        try:
            outcome = await self._run(tx, self._journal)
        finally:
            tx.close()
            pin.release()
        if isinstance(tx.failed, StoreUnavailable):
            raise tx.failed
        queries.runs += 1
        if generation == queries.generation and pin.ts >= self.ts and self.subscriptions:
            return self._settle(outcome, pin.ts, tx.read_set)
        return outcome

    def _settle(self, outcome: O, ts: Ts, read_set: ReadSet) -> O:
        """Keep ``outcome`` as the newest, registered for what it read."""
        known = self.outcome
        if (
            known is not None
            and known.journal == outcome.journal
            and known.identity_used == outcome.identity_used
            and known.same_as(outcome)
        ):
            outcome = known  # so that watchers see by identity that nothing changed
        self.outcome = outcome
        self.ts = ts
        self.invalid_at = None
        self._journal = outcome.journal
        self._queries._subscriptions.replace(self, read_set)
        self._queries._place(self)
        overlap = self._queries.log.first_overlap(read_set, ts)
        if overlap is not None:
            self.invalidate(overlap, "commit")
        return outcome

    def _ended(self, ts: Ts, task: asyncio.Future[O]) -> None:
        if self._running.get(ts) is task:
            del self._running[ts]


_SHARED = object()


class Own(NamedTuple):
    """Key of a query that no client watches, which is not counted."""

    key: Hashable


class _Forget:
    """Watches for one who asked once and is not waiting: a stale result is not computed anew, but forgotten."""

    __slots__ = ("_asked", "_queries")

    def __init__(self, queries: LiveQueries[Any], asked: Hashable) -> None:
        self._queries = queries
        self._asked = asked

    def invalidated(self, subscription: Subscription[Any]) -> None:
        self._queries._forget(self._asked)


class LiveQueries(Generic[O]):
    """All live queries of a node.

    Attributes:
        runs: how often any query ran.
        reruns: how often one ran again, by cause.
        generation: grows with every push of code.
    """

    def __init__(self, log: CommitLog, runtime: Runtime, limits: Limits) -> None:
        self.log = log
        self.runtime = runtime
        self.limits = limits
        self.runs = 0
        self.reruns: dict[Cause, int] = dict.fromkeys(get_args(Cause), 0)
        self.generation = 0
        self._slots: dict[Slot, LiveQuery[O]] = {}
        self._all: dict[LiveQuery[O], None] = {}
        self._subscriptions: Subscriptions[LiveQuery[O]] = Subscriptions()
        self._recent: dict[Hashable, Subscription[O]] = {}
        self._own = 0  # of those, with a key that is ``Own``

    def __len__(self) -> int:
        """How many clients watch."""
        return len(self._all) - self._own

    def subscribe(
        self,
        key: Hashable,
        identity: Hashable,
        run: Run[O],
        watcher: Watcher,
        *,
        journal: str | None = None,
        cause: Cause | None = None,
    ) -> Subscription[O]:
        """Watch a query. Nothing runs before ``Subscription.at``.

        Args:
            key: function and arguments: who gives equal keys gives runs that differ in their identity only.
            identity: who calls. Results that did not look at it are shared between all identities.
            journal: of the client's last result, when it resumes a page.
            cause: why it has to run for this watcher, if it was watched before.
        """
        return Subscription(self, key, identity, journal, run, watcher, cause)

    async def once(self, key: Hashable, identity: Hashable, run: Run[O], pin: Pin) -> O:
        """The result as of ``pin``, to be asked for once: kept for whoever asks again until a commit touches it.

        Args: as for ``subscribe``. Who asks once shares with others who do, not with watchers, whose pages keep their ends.
        """
        asked = (key, identity)
        subscription = self._recent.get(asked)
        if subscription is None:
            subscription = self._recent[asked] = self.subscribe(Own(key), identity, run, _Forget(self, asked))
            if len(self._recent) > self.limits.results_cached:
                self._forget(next(iter(self._recent)))
        try:
            outcome = subscription.at(pin)
            result = await outcome if isinstance(outcome, asyncio.Future) else outcome
        except BaseException:
            self._forget(asked)
            raise
        if not result.lasting:
            self._forget(asked)
        return result

    def _forget(self, asked: Hashable) -> None:
        subscription = self._recent.pop(asked, None)
        if subscription is not None:
            subscription.close()

    def publish(self, commits: Sequence[Published]) -> None:
        """Make stale what ``commits`` touched, and tell the watchers. Called once for each group, in ts order."""
        for commit in commits:
            stale = self._subscriptions.overlapping(commit.writes)
            if stale:
                cause: Cause = "environment" if commit.writes[0].table.name == ENVIRONMENT else "commit"
                for live in stale:
                    live.invalidate(commit.ts, cause)

    def restart_all(self) -> None:
        """New code is in force: every live query runs again with it."""
        self.generation += 1
        for live in list(self._all):
            live.restart()

    def check_invariants(self) -> None:
        """Raise AssertionError when the structures contradict each other. For simulations."""
        self._subscriptions.check_invariants()
        for slot, live in self._slots.items():
            assert live.slot == slot and live in self._all
        assert self._own == sum(isinstance(live.slot[0], Own) for live in self._all)
        for live in self._all:
            assert live.subscriptions, "a live query without subscriptions"
            assert all(subscription.live is live for subscription in live.subscriptions)

    def _join(
        self,
        subscription: Subscription[O],
        key: Hashable,
        identity: Hashable,
        journal: str | None,
        run: Run[O],
        owners: Sequence[Hashable],
        cause: Cause | None,
    ) -> LiveQuery[O]:
        """Let ``subscription`` hold the first live query of ``owners`` that it can join, or a new one."""
        for owner in owners:
            live = self._slots.get((key, journal, owner))
            if live is not None and (live.outcome is None or live.outcome.joinable):
                break
        else:
            slot = (key, journal, identity)
            live = self._slots[slot] = LiveQuery(self, slot, identity, journal, run, cause)
            self._all[live] = None
            self._own += isinstance(key, Own)
        live.subscriptions[subscription] = None
        return live

    def _place(self, live: LiveQuery[O]) -> None:
        """Put ``live`` where newcomers find it: under its identity, or for all when it did not look at that."""
        assert live.outcome is not None
        key, journal, owner = live.slot
        wanted = live.identity if live.outcome.identity_used else _SHARED
        if owner == wanted or self._slots.get(live.slot) is not live:
            return
        slot = (key, journal, wanted)
        if slot not in self._slots:
            del self._slots[live.slot]
            live.slot = slot
            self._slots[slot] = live

    def _end(self, live: LiveQuery[O]) -> None:
        self._subscriptions.remove(live)
        del self._all[live]
        self._own -= isinstance(live.slot[0], Own)
        if self._slots.get(live.slot) is live:
            del self._slots[live.slot]
