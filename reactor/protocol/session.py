"""One connection's side of the sync protocol: what a client asked for, what it was told, and what it is owed.

::

    received ──► query set, identity version        (what the client believes it has said)
    sent     ──► state version of the last transition (what the client believes the world is)

    a round:  begin_round ── results of its queries, all at one ts ── end_round ──► one transition

Between them a client is owed a transition when a query of its set is dirty (new, invalidated, or under a new identity), when
a version it sent is not reflected yet, and after every response. There is at most one round at a time, and none while the
previous transition is unsent: a client that reads slowly skips to the latest state and holds back nothing but itself.

Most rounds are of one query that others watch too, whose sessions were all told the same before: ``step`` is such a round, and
the others ``follow``.

Responses wait in ``responses`` and go out before the next transition; the engine announces a commit before any snapshot shows
it, so a response always precedes the transition that covers it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from reactor.errors import ProtocolError
from reactor.limits import Limits
from reactor.protocol import server_messages as wire
from reactor.protocol.client_messages import Add, Authenticate, ModifyQuerySet, Remove
from reactor.protocol.version import IdentityVersion, QueryId, QuerySetVersion, RequestId, StateVersion

__all__ = ["Overload", "Query", "Result", "Round", "Session", "Step", "Steps"]


class Result(Protocol):
    """A query's outcome, as far as the session looks at it."""

    @property
    def ok(self) -> bool: ...
    @property
    def value(self) -> bytes: ...
    @property
    def error(self) -> Any: ...
    @property
    def log_lines(self) -> tuple[str, ...]: ...
    @property
    def journal(self) -> str | None: ...
    def same_as(self, other: Any) -> bool:
        """Whether the client could not tell the two apart."""
        ...


R = TypeVar("R", bound=Result)


class Overload(Exception):
    """The client has more under way than it may: the connection closes with 1013 and this reason, and the client retries."""


@dataclass(slots=True, eq=False)
class Query(Generic[R]):
    """One query of the query set.

    Attributes:
        resumed: the journal that the client came with.
        held_bytes: what it counts for in the session's.
        sent: what the client was last told.
        subscription: the owner's handle, set when it subscribes.
    """

    query_id: QueryId
    path: str
    args: bytes
    resumed: str | None
    held_bytes: int
    sent: R | None = None
    subscription: Any = None

    @property
    def journal(self) -> str | None:
        """Of its last result."""
        return self.resumed if self.sent is None else self.sent.journal


@dataclass(slots=True, eq=False)
class Step(Generic[R]):
    """What brings every session from one state, at which it had been told ``known`` of the query that it calls ``query_id``, to
    ``end``, at which that has ``result``.

    Attributes:
        source: of the result: whoever has a query of that source is owed the same result; None: it is to be asked for each.
        head: the transition but for its ``tail``.
        begun: the owner's: how it goes over the wire, by the length of the tail that follows.
    """

    query_id: QueryId
    known: R | None
    result: R
    source: object
    end: StateVersion
    head: bytes
    begun: dict[int, bytes] = field(default_factory=dict)


#: The last one from each state.
Steps = dict[StateVersion, Step[R]]

#: Kept of those at one ts, unless they are large.
_STEPS, _STEP_BYTES = 64, 32 * 1024


class Round(Struct, Generic[R], frozen=True):
    """The queries to be evaluated at one ts, and the versions that the transition will reflect."""

    queries: list[Query[R]]
    removed: list[QueryId]
    query_set: QuerySetVersion
    identity: IdentityVersion


@dataclass(slots=True, eq=False)
class Session(Generic[R]):
    """See the module. Fed with decoded messages and results; does no I/O.

    Invariants: ``sent`` never goes back in any part; a query is in ``queries`` from the message that adds it to the one that
    removes it; what is dirty are queries of ``queries`` only; what was received and is not reflected, or not answered, is ``owed``,
    and so is a transition for all that is ``dirty``.

    Attributes:
        stale: the query that was invalidated since the last round. It is dirty, and in most sessions the only one, so it has a place.
        dirty: those that are besides.
        anew: all are, since the identity has changed.
        owed: a transition, for more than what is dirty.
        lost: queries that a message removed which was refused. The session is over then, and its owner's subscriptions are not.
        responses: frames of answers, to be sent in order before the next transition; ``responses_bytes`` together.
        mutations_queued, actions_running: requests that have no answer yet.
        held_bytes: of the queries, and of requests that have not run yet.
        tail: of each transition: what is the client's own.
    """

    limits: Limits
    queries: dict[QueryId, Query[R]] = field(default_factory=dict)
    stale: Query[R] | None = None
    dirty: dict[Query[R], None] = field(default_factory=dict)
    anew: bool = False
    removed: list[QueryId] = field(default_factory=list)
    lost: list[Query[R]] = field(default_factory=list)
    responses: deque[bytes] = field(default_factory=deque)
    responses_bytes: int = 0
    sent: StateVersion = field(default_factory=lambda: StateVersion(QuerySetVersion(0), IdentityVersion(0), 0))
    query_set: QuerySetVersion = field(default=QuerySetVersion(0))
    identity: IdentityVersion = field(default=IdentityVersion(0))
    mutations_queued: int = 0
    actions_running: int = 0
    held_bytes: int = 0
    tail: bytes = wire.tail(None)
    owed: bool = False
    _chunked: int = 0

    # --- messages in

    def modify(self, message: ModifyQuerySet) -> tuple[list[Query[R]], list[Query[R]]]:
        """Take changes to the query set: the queries that were added and those that were removed.

        Raises:
            ProtocolError: the version or a query id does not follow.
            Overload: more queries than one session may have, or larger ones, or more removed than it was told of.
        """
        if message.base_version != self.query_set:
            raise ProtocolError(f"Base version {message.base_version} passed up doesn't match the current version {self.query_set}")
        if message.new_version <= message.base_version:
            raise ProtocolError(f"New version {message.new_version} is not above the base version {message.base_version}")
        added: list[Query[R]] = []
        removed: list[Query[R]] = []
        try:
            for item in message.modifications:
                if isinstance(item, Add):
                    added.append(self._add(item))
                else:
                    removed.append(self._remove(item))
        except (ProtocolError, Overload):
            self.lost = removed
            raise
        self.query_set = QuerySetVersion(message.new_version)
        self.owed = True
        return [query for query in added if self.queries.get(query.query_id) is query], removed

    def authenticate(self, message: Authenticate) -> None:
        """Take a change of identity that was verified: every query is evaluated anew under it.

        Raises:
            ProtocolError: the version does not follow.
        """
        self.check_identity_version(message)
        self.identity = IdentityVersion(self.identity + 1)
        self.owed = True
        self.anew = True  # noted only: of many changes in one turn the last counts

    def check_identity_version(self, message: Authenticate) -> None:
        """Raise ProtocolError when the message does not follow the last one."""
        if message.base_version != self.identity:
            raise ProtocolError(f"Base version {message.base_version} passed up doesn't match the current identity version {self.identity}")

    def begin_mutation(self, size_bytes: int) -> None:
        """A mutation was received, and is kept until its size is let go of.

        Raises:
            Overload: too many have no answer yet, or are kept.
        """
        self.hold(size_bytes)
        self.mutations_queued += 1
        if self.mutations_queued > self.limits.mutations_queued_per_session:
            raise Overload("TooManyConcurrentMutations")

    def begin_action(self) -> None:
        """An action was received.

        Raises:
            Overload: too many have no answer yet.
        """
        self.actions_running += 1
        if self.actions_running > self.limits.actions_running_per_session:
            raise Overload("TooManyInflightActionsForSingleClient")

    def hold(self, size_bytes: int) -> None:
        """So much of what was received is kept, until it is let go of.

        Raises:
            Overload: more than one session may have kept.
        """
        self.held_bytes += size_bytes
        if self.held_bytes > self.limits.session_requests_bytes:
            raise Overload("TooManyBytesForSingleClient")

    def let_go(self, size_bytes: int) -> None:
        """It is kept no more."""
        self.held_bytes -= size_bytes

    # --- results in

    def answer_mutation(self, request_id: RequestId, result: R, ts: int) -> None:
        """A mutation ended: its answer is owed, and then a transition."""
        if result.ok:
            self._respond(wire.mutation_response(request_id, value=result.value, ts=ts, log_lines=result.log_lines))
        else:
            self._fail("Mutation", request_id, result)

    def answer_action(self, request_id: RequestId, result: R) -> None:
        """An action ended."""
        if result.ok:
            self._respond(wire.action_response(request_id, value=result.value, log_lines=result.log_lines))
        else:
            self._fail("Action", request_id, result)

    def invalidated(self, query: Query[R]) -> None:
        """What the query's result was computed from has changed. Not told of one that was removed."""
        if self.stale is None:
            self.stale = query
        elif self.stale is not query:
            self.dirty[query] = None
            self.owed = True

    # --- out

    @property
    def is_full(self) -> bool:
        """Whether more answers wait for the client to take them than may: nothing is to be run that adds to them."""
        return self.responses_bytes > self.limits.session_answers_bytes

    def take_response(self) -> bytes:
        """The next answer to send."""
        frame = self.responses.popleft()
        self.responses_bytes -= len(frame)
        if frame.startswith(b'{"type":"M'):
            self.mutations_queued -= 1
        else:
            self.actions_running -= 1
        return frame

    @property
    def wants_round(self) -> bool:
        """Whether the client is owed a transition."""
        return self.owed or self.stale is not None

    def begin_round(self) -> Round[R]:
        """The queries to evaluate, all at one ts that is not below ``sent.ts``; then ``end_round``."""
        if self.stale is not None:
            self.dirty[self.stale] = None
            self.stale = None
        if self.anew:
            self.dirty.update(dict.fromkeys(self.queries.values()))
            self.anew = False
        round = Round(list(self.dirty), self.removed, self.query_set, self.identity)
        self.dirty.clear()
        if self.removed:
            self.removed = []
        self.owed = False
        return round

    def end_round(self, round: Round[R], ts: int, results: Iterable[tuple[Query[R], R]], server_ns: int) -> bytes:
        """The transition to ``ts``.

        Args:
            results: of the round's queries, all true at ``ts``.
            server_ns: the time, since the epoch.
        """
        assert ts >= self.sent.ts, "a client's ts never goes back"
        modifications = [wire.query_removed(query_id) for query_id in round.removed] if round.removed else []
        for query, result in results:
            if self.queries.get(query.query_id) is not query:
                # Removed while it was evaluated: the next transition says so. It was never told of, or is left as it was.
                continue
            modification = _modification(query.query_id, query.sent, result)
            query.sent = result
            if modification is not None:
                modifications.append(modification)
        end = _state(round.query_set, round.identity, ts)
        head = wire.transition(self.sent, end, modifications, server_ns)
        self.sent = end
        return head + self.tail

    def follow(self, query: Query[R], source: object, steps: Steps[R]) -> Step[R] | None:
        """A round of the query that was ``stale``, while nothing else is owed, if another session took the same step before: that one.

        Args:
            source: of the query's result at the ts that the steps lead to.
            steps: of all sessions that step to that ts at this time.
        """
        step = steps.get(self.sent)
        if step is None or step.source is not source or step.known is not query.sent or step.query_id != query.query_id:
            return None
        query.sent = step.result
        self.sent = step.end
        return step

    def step(self, query: Query[R], result: R, source: object, ts: int, server_ns: int, steps: Steps[R]) -> Step[R]:
        """The same round, where ``follow`` gives none.

        Args:
            result: of the query, true at ``ts``.
            source: who has a query of the same may follow; None: nobody may.
            server_ns: the time, since the epoch.
            steps: see ``follow``.
        """
        assert ts >= self.sent.ts, "a client's ts never goes back"
        modification = _modification(query.query_id, query.sent, result)
        end = _state(self.query_set, self.identity, ts)
        head = wire.transition(self.sent, end, () if modification is None else (modification,), server_ns)
        step = Step(query.query_id, query.sent, result, source, end, head)
        if source is not None and len(head) <= _STEP_BYTES and (self.sent in steps or len(steps) < _STEPS):
            steps[self.sent] = step
        query.sent = result
        self.sent = end
        return step

    def next_chunked(self) -> str:
        """Names a transition that is sent in chunks among this connection's."""
        self._chunked += 1
        return str(self._chunked)

    def _add(self, item: Add) -> Query[R]:
        if item.query_id in self.queries:
            raise ProtocolError(f"Query id {item.query_id} is in the query set already")
        if len(self.queries) >= self.limits.queries_per_session:
            raise Overload("TooManyQueriesForSingleClient")
        size_bytes = len(item.path) + len(item.args) + len(item.journal or "")
        self.hold(size_bytes)
        query: Query[R] = Query(item.query_id, item.path, item.args, item.journal, size_bytes)
        self.queries[item.query_id] = query
        self.dirty[query] = None
        return query

    def _remove(self, item: Remove) -> Query[R]:
        if item.query_id not in self.queries:
            raise ProtocolError(f"Query id {item.query_id} is not in the query set")
        if len(self.removed) >= self.limits.queries_per_session:
            # It adds and removes and never reads.
            raise Overload("TooManyQueriesForSingleClient")
        query = self.queries.pop(item.query_id)
        self.dirty.pop(query, None)
        if self.stale is query:
            self.stale = None
        self.let_go(query.held_bytes)
        self.removed.append(item.query_id)
        return query

    def _respond(self, frame: bytes) -> None:
        self.responses.append(frame)
        self.responses_bytes += len(frame)
        self.owed = True

    def _fail(self, kind: str, request_id: RequestId, result: R) -> None:
        error = result.error
        self._respond(wire.failure_response(kind, request_id, message=error.message, data=error.data, log_lines=result.log_lines))


class _Modifications:
    """The last result that was encoded: it goes to one watcher after another, most of whom were told the same before and gave it
    the same id.
    """

    def __init__(self) -> None:
        self._known: Result | None = None
        self._result: Result | None = None
        self._body = b""
        self._query_id = QueryId(-1)
        self._modification = b""

    def of(self, query_id: QueryId, known: Result | None, result: Result) -> bytes | None:
        """What brings a client from ``known`` to ``result``; None when it could not tell the two apart."""
        if result is known:
            return None
        if result is not self._result or known is not self._known:
            if known is not None and known.journal == result.journal and known.same_as(result):
                return None
            self._known = known
        if result is not self._result:
            if result.ok:
                self._body = wire.updated_body(result.value, result.log_lines, result.journal)
            else:
                error = result.error
                self._body = wire.failed_body(error.message, error.data, result.log_lines, result.journal)
            self._result = result
        elif query_id == self._query_id:
            return self._modification
        self._query_id = query_id
        self._modification = (wire.query_updated if result.ok else wire.query_failed)(query_id, self._body)
        return self._modification


_modification = _Modifications().of

#: One object for all clients that are at the same state, who are many after a commit.
_state = lru_cache(maxsize=64)(StateVersion)
