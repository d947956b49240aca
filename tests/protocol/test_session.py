"""The session's rules, driven by hand and by machine against a model of a client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reactor.errors import ProtocolError
from reactor.limits import DEFAULT_LIMITS
from reactor.protocol import server_messages as wire
from reactor.protocol.client_messages import Add, Authenticate, ModifyQuerySet, Remove
from reactor.protocol.session import Overload, Query, Round, Session, Steps
from reactor.protocol.version import QueryId, RequestId, decode_ts

LIMITS = replace(DEFAULT_LIMITS, queries_per_session=5, mutations_queued_per_session=3, actions_running_per_session=3)


@dataclass(frozen=True)
class Failure:
    message: str
    data: bytes | None = None


@dataclass(frozen=True)
class Result:
    value: bytes = b"null"
    error: Failure | None = None
    log_lines: tuple[str, ...] = ()
    journal: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    def same_as(self, other: Any) -> bool:
        return (self.value, self.error) == (other.value, other.error)


def add(query_id: int, journal: str | None = None) -> Add:
    return Add(QueryId(query_id), "notes:list", b"{}", journal)


def modify(session: Session[Result], *items: Add | Remove, new: int | None = None) -> tuple[list[Query[Result]], list[Query[Result]]]:
    base = session.query_set
    return session.modify(ModifyQuerySet(base, base + 1 if new is None else new, items))


def round_of(session: Session[Result], ts: int, result: Result) -> dict[str, Any]:
    """One round in which every query gives this."""
    begun = session.begin_round()
    frame: dict[str, Any] = json.loads(session.end_round(begun, ts, [(query, result) for query in begun.queries], 1))
    return frame


@pytest.fixture
def session() -> Session[Result]:
    return Session(LIMITS)


@pytest.mark.parametrize(("base", "new"), [(1, 2), (0, 0), (2, 1), (2**32 - 1, 2**32 - 1)])
def test_a_query_set_version_that_does_not_follow_is_refused(session: Session[Result], base: int, new: int) -> None:
    with pytest.raises(ProtocolError):
        session.modify(ModifyQuerySet(base, new, ()))


def test_a_query_set_version_may_not_go_back(session: Session[Result]) -> None:
    modify(session)
    modify(session)
    with pytest.raises(ProtocolError, match="Base version 0 passed up doesn't match the current version 2"):
        session.modify(ModifyQuerySet(0, 1, ()))


@pytest.mark.parametrize("items", [(add(1), add(1)), (Remove(QueryId(1)),), (add(1), Remove(QueryId(1)), Remove(QueryId(1)))])
def test_a_query_id_is_added_and_removed_once(session: Session[Result], items: tuple[Add | Remove, ...]) -> None:
    with pytest.raises(ProtocolError, match="Query id 1"):
        modify(session, *items)


def test_a_query_id_of_an_earlier_message_is_in_the_query_set_already(session: Session[Result]) -> None:
    modify(session, add(1))
    with pytest.raises(ProtocolError, match="Query id 1"):
        modify(session, add(1))


@pytest.mark.parametrize("base", [1, 2**32 - 1])
def test_an_identity_version_that_does_not_follow_is_refused(session: Session[Result], base: int) -> None:
    with pytest.raises(ProtocolError, match="identity version 0"):
        session.authenticate(Authenticate(base, "None", None))


def test_only_queries_that_remain_are_to_be_subscribed(session: Session[Result]) -> None:
    added, removed = modify(session, add(1), Remove(QueryId(1)), add(1), add(2))
    assert [query.query_id for query in added] == [1, 2]
    assert added[0] is session.queries[QueryId(1)] and removed[0] is not added[0]


def test_more_queries_than_allowed_are_an_overload(session: Session[Result]) -> None:
    with pytest.raises(Overload, match="TooManyQueries"):
        modify(session, *(add(number) for number in range(6)))


def test_adding_and_removing_without_ever_reading_is_an_overload(session: Session[Result]) -> None:
    with pytest.raises(Overload, match="TooManyQueries"):
        for number in range(6):
            modify(session, add(number))
            modify(session, Remove(QueryId(number)))


def test_more_requests_than_allowed_are_an_overload(session: Session[Result]) -> None:
    for _ in range(3):
        session.begin_mutation(1)
        session.begin_action()
    with pytest.raises(Overload, match="TooManyConcurrentMutations"):
        session.begin_mutation(1)
    with pytest.raises(Overload, match="TooManyInflightActionsForSingleClient"):
        session.begin_action()


def test_requests_count_until_their_answer_is_taken(session: Session[Result]) -> None:
    for number in range(20):
        session.begin_mutation(1)
        session.begin_action()
        session.answer_mutation(RequestId(number), Result(), 1)
        session.answer_action(RequestId(number), Result(error=Failure("no")))
        session.take_response()
        session.take_response()
    assert (session.mutations_queued, session.actions_running) == (0, 0)


def test_a_result_is_sent_again_when_its_journal_or_its_text_changed_and_only_then(session: Session[Result]) -> None:
    (query,) = modify(session, add(1, journal="old"))[0]
    assert query.journal == "old"
    results = [
        Result(b"1"),
        Result(b"1"),
        Result(b"1", journal="new"),
        Result(error=Failure("a")),
        Result(error=Failure("a")),
        Result(b"1"),
    ]
    sent = []
    for ts, result in enumerate(results):
        session.invalidated(query)
        sent.append(len(round_of(session, ts, result)["modifications"]))
        assert query.journal == result.journal
    assert sent == [1, 0, 1, 1, 0, 1]


@dataclass
class Client:
    """What an official client knows after each message: everything it asserts, it asserts here."""

    version: tuple[int, int, int] = (0, 0, 0)
    values: dict[int, str] = field(default_factory=dict)
    answered: list[int] = field(default_factory=list)
    owed_ts: int | None = None

    def response(self, message: dict[str, Any]) -> None:
        self.answered.append(message["requestId"])
        if message["success"]:
            assert decode_ts(message["ts"]) > self.version[2], "a transition that covers a mutation came before its answer"
        self.owed_ts = max(self.owed_ts or 0, decode_ts(message["ts"]) if message["success"] else 0)

    def transition(self, message: dict[str, Any]) -> None:
        start, end = (
            (version["querySet"], version["identity"], decode_ts(version["ts"]))
            for version in (message["startVersion"], message["endVersion"])
        )
        assert start == self.version
        assert all(after >= before for before, after in zip(start, end, strict=True))
        ids = [item["queryId"] for item in message["modifications"]]
        assert len(set(ids)) == len(ids)
        for item in message["modifications"]:
            if item["type"] == "QueryRemoved":
                self.values.pop(item["queryId"], None)
            else:
                self.values[item["queryId"]] = item.get("value") or item["errorMessage"]
        self.version = end
        if self.owed_ts is not None and end[2] >= self.owed_ts:
            self.owed_ts = None


def watching(query_id: int, known: Result, *, skew_ms: int | None = None, journal: str | None = None) -> Session[Result]:
    """A session whose one query has this result, and is dirty."""
    session: Session[Result] = Session(LIMITS)
    session.tail = wire.tail(skew_ms)
    modify(session, add(query_id, journal))
    round_of(session, 1, known)
    session.invalidated(session.queries[QueryId(query_id)])
    return session


def stepped(session: Session[Result], result: Result, steps: Steps[Result], source: object = "source") -> bytes:
    query = session.stale
    assert query is not None and not session.owed
    session.stale = None
    step = session.follow(query, source, steps) or session.step(query, result, source, 2, 7, steps)
    assert step.result is result
    return step.head


OLD, NEW = Result(b"1.0"), Result(b"2.0", log_lines=("[LOG] 'a'",), journal="j")


@pytest.mark.parametrize("result", [NEW, OLD, Result(b"1.0"), Result(error=Failure("no")), Result(error=Failure("no"), journal="k")])
def test_a_step_is_what_a_round_of_the_one_dirty_query_is(result: Result) -> None:
    stepping, rounding = watching(3, OLD, skew_ms=-5), watching(3, OLD, skew_ms=-5)
    steps: Steps[Result] = {}
    for _ in range(2):
        begun = rounding.begin_round()
        frame = rounding.end_round(begun, 2, [(query, result) for query in begun.queries], 7)
        assert stepped(stepping, result, steps) + stepping.tail == frame
        assert not stepping.wants_round
        assert (stepping.sent, stepping.queries[QueryId(3)].journal) == (rounding.sent, rounding.queries[QueryId(3)].journal)
        for session in (stepping, rounding):
            session.invalidated(session.queries[QueryId(3)])


def test_sessions_that_were_told_the_same_share_a_step() -> None:
    steps: Steps[Result] = {}
    first, second = watching(3, OLD, skew_ms=1), watching(3, OLD)
    head = stepped(first, NEW, steps)
    assert stepped(second, NEW, steps) is head
    assert first.sent is second.sent
    assert json.loads(head + first.tail)["clientClockSkew"] == 1 and "clientClockSkew" not in json.loads(head + second.tail)


def test_a_session_that_was_told_something_else_takes_its_own_step() -> None:
    steps: Steps[Result] = {}
    stepped(watching(3, OLD), NEW, steps)
    assert json.loads(stepped(watching(4, OLD), NEW, steps) + b"}")["modifications"][0]["queryId"] == 4
    assert json.loads(stepped(watching(3, NEW), NEW, steps) + b"}")["modifications"] == []
    assert json.loads(stepped(watching(3, OLD), OLD, steps) + b"}")["modifications"] == []
    assert json.loads(stepped(watching(3, OLD), Result(b"3.0"), steps, "another") + b"}")["modifications"][0]["value"] == 3.0
    other = watching(3, OLD)
    modify(other, add(5), Remove(QueryId(5)))
    round_of(other, 1, OLD)
    other.invalidated(other.queries[QueryId(3)])
    assert json.loads(stepped(other, NEW, steps) + b"}")["startVersion"]["querySet"] == 2
    assert {(state.query_set, step.query_id) for state, step in steps.items()} == {(1, 3), (2, 3)}


def test_nobody_follows_a_step_to_a_result_without_a_source() -> None:
    steps: Steps[Result] = {}
    stepped(watching(3, OLD), NEW, steps, None)
    other = Result(b"3.0")
    assert json.loads(stepped(watching(3, OLD), other, steps, None) + b"}")["modifications"][0]["value"] == 3.0
    assert not steps


def test_the_steps_that_are_kept_are_few_and_small() -> None:
    steps: Steps[Result] = {}
    for version in range(1, 200):
        session = watching(0, OLD)
        for _ in range(version):
            modify(session)
        round_of(session, 1, OLD)
        session.invalidated(session.queries[QueryId(0)])
        stepped(session, NEW, steps)
    assert len(steps) == 64
    large: Steps[Result] = {}
    stepped(watching(0, OLD), Result(b'"%s"' % (b"x" * 100_000)), large)
    assert not large


class SessionMachine(RuleBasedStateMachine):
    """Any order of messages, commits, rounds and answers, with the writer of ``reactor.server.connection`` played by the rules.

    The database: what each query gives changes with the commits that touch it, and with the identity.
    """

    def __init__(self) -> None:
        super().__init__()
        self.session: Session[Result] = Session(replace(DEFAULT_LIMITS))
        self.client = Client()
        self.head = 1
        self.touched: dict[int, list[int]] = {}  # the commits that changed each query's result
        self.sets: dict[int, frozenset[int]] = {0: frozenset()}  # the queries of each version
        self.requests = 0
        self.queued: list[int] = []
        self.running: tuple[Round[Result], int, list[tuple[Query[Result], Result]]] | None = None
        self.next_id = 0
        self.steps: dict[int, Steps[Result]] = {}
        self.sources: dict[object, object] = {}

    def truth(self, query_id: int, ts: int, identity: int) -> str:
        changed = max((commit for commit in self.touched[query_id] if commit <= ts), default=0)
        # Every third query fails now and then; every second looks at the identity.
        return f"{'failed ' if changed % 3 == 1 else ''}{query_id} at {changed} for {identity if query_id % 2 else 'all'}"

    def result(self, query_id: int, ts: int, identity: int) -> Result:
        value = self.truth(query_id, ts, identity)
        return Result(error=Failure(value)) if value.startswith("failed") else Result(json.dumps(value).encode())

    @initialize(added=st.integers(0, 3))
    def connect(self, added: int) -> None:
        self.add(added)

    @rule(count=st.integers(0, 3))
    def add(self, count: int) -> None:
        ids = range(self.next_id, self.next_id + count)
        self.next_id += count
        self.touched |= {query_id: [] for query_id in ids}
        modify(self.session, *map(add, ids))
        self.sets[self.session.query_set] = self.sets[self.session.query_set - 1] | set(ids)

    @precondition(lambda self: self.session.queries)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        query_id = data.draw(st.sampled_from(sorted(self.session.queries)))
        modify(self.session, Remove(query_id))
        self.sets[self.session.query_set] = self.sets[self.session.query_set - 1] - {query_id}

    @rule()
    def authenticate(self) -> None:
        self.session.authenticate(Authenticate(self.session.identity, "None", None))

    @rule()
    def request_mutation(self) -> None:
        self.session.begin_mutation(1)
        self.queued.append(self.requests)
        self.requests += 1

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """Somebody else's commit."""
        self.publish(data)

    @precondition(lambda self: self.queued)
    @rule(data=st.data(), ok=st.booleans())
    def mutate(self, data: st.DataObject, ok: bool) -> None:
        """The mutation at the head of the queue ends; its answer is there before anybody sees its commit."""
        request = RequestId(self.queued.pop(0))
        if ok:
            self.session.answer_mutation(request, Result(b"1.0"), self.head + 1)
            self.publish(data)
        else:
            self.session.answer_mutation(request, Result(error=Failure("no")), self.head)

    def publish(self, data: st.DataObject) -> None:
        self.head += 1
        for query in data.draw(st.lists(st.sampled_from(sorted(self.session.queries)), unique=True)) if self.session.queries else []:
            self.touched[query].append(self.head)
            self.session.invalidated(self.session.queries[query])

    @precondition(lambda self: self.running is None and self.session.stale and not self.session.owed)
    @rule()
    def step(self) -> None:
        """The writer wakes, and the one query that is dirty has a result already."""
        query = self.session.stale
        assert query is not None
        self.session.stale = None
        steps = self.steps.setdefault(self.head, {})
        # Every second query looks at the identity.
        source = self.sources.setdefault((query.query_id, self.session.identity if query.query_id % 2 else None), object())
        step = self.session.follow(query, source, steps)
        if step is None:
            result = self.result(query.query_id, self.head, self.session.identity)
            step = self.session.step(query, result, source, self.head, 1, steps)
        self.client.transition(json.loads(step.head + self.session.tail))
        self.check_snapshot()

    @precondition(lambda self: self.running is None)
    @rule()
    def write(self) -> None:
        """The writer wakes: answers first, then a round, if one is owed."""
        self.send_responses()
        if self.session.wants_round:
            identity = self.session.identity
            round = self.session.begin_round()
            results = [(query, self.result(query.query_id, self.head, identity)) for query in round.queries]
            self.running = (round, self.head, results)

    @precondition(lambda self: self.running is not None)
    @rule()
    def finish_round(self) -> None:
        assert self.running is not None
        (round, ts, results), self.running = self.running, None
        self.send_responses()
        self.client.transition(json.loads(self.session.end_round(round, ts, results, server_ns=1)))
        self.check_snapshot()

    def send_responses(self) -> None:
        while self.session.responses:
            self.client.response(json.loads(self.session.take_response()))

    def check_snapshot(self) -> None:
        """All that the client knows of the query set that it was told of is true at one ts."""
        query_set, identity, ts = self.client.version
        assert self.sets[query_set] & set(self.session.queries) <= set(self.client.values), "a query was added and has no result"
        for query_id in self.sets[query_set] & set(self.session.queries):
            assert self.client.values[query_id] == self.truth(query_id, ts, identity)

    @invariant()
    def answers_come_once_and_in_order(self) -> None:
        assert self.client.answered == list(range(len(self.client.answered)))
        assert len(self.client.answered) + len(self.session.responses) + len(self.queued) == self.requests

    @rule()
    def settle(self) -> None:
        """What is owed ends: then the client has seen everything."""
        if self.running is not None:
            self.finish_round()
        for _ in range(3):
            self.write()
            if self.running is not None:
                self.finish_round()
        assert not self.session.wants_round and not self.session.responses
        assert self.client.version[:2] == (self.session.query_set, self.session.identity)
        assert self.client.owed_ts is None, "no transition covers an answer"
        assert set(self.client.values) == set(self.session.queries)
        self.check_snapshot()

    def teardown(self) -> None:
        self.settle()


TestSession = SessionMachine.TestCase
