"""The client's side of the protocol: messages in, messages and events out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.client.state import Failed, Finished, LiveQuery, Result, SignedIn, Updated
from reactor.errors import AppError, AuthenticationError, ConnectionLost, ProtocolError, RemoteError
from reactor.limits import DEFAULT_LIMITS
from reactor.protocol.client_messages import Action, Mutation
from reactor.protocol.version import encode_ts
from tests.client.peer import Peer, state_version, updated

pytestmark = pytest.mark.sqlite_only("a client's state, without a server")


@pytest.fixture
def peer() -> Peer:
    return Peer()


def kinds(messages: list[dict[str, Any]]) -> list[Any]:
    return [message["type"] for message in messages]


def results(events: list[Any]) -> list[Any]:
    return [event.result.get() if isinstance(event.result, Result) else event.result for event in events if isinstance(event, Finished)]


def test_a_connection_is_told_who_it_is_what_is_watched_and_what_is_asked_in_this_order(peer: Peer) -> None:
    peer.state.request(Mutation, "a:write", b'{"n":1.0}')
    peer.state.authenticate("token")
    peer.state.subscribe("a:read", b"{}")
    peer.state.request(Action, "a:act", b"{}")
    session = peer.state.session
    assert peer.connect() == [
        {"type": "Connect", "sessionId": session, "connectionCount": 0, "lastCloseReason": "InitialConnect", "clientTs": 1000},
        {"type": "Authenticate", "baseVersion": 0, "tokenType": "User", "value": "token"},
        {
            "type": "ModifyQuerySet",
            "baseVersion": 0,
            "newVersion": 1,
            "modifications": [{"type": "Add", "queryId": 0, "udfPath": "a:read", "args": [{}]}],
        },
        {"type": "Mutation", "requestId": 0, "udfPath": "a:write", "args": [{"n": 1.0}]},
        {"type": "Action", "requestId": 1, "udfPath": "a:act", "args": [{}]},
    ]


def test_the_next_connection_has_the_same_session_the_journals_and_the_newest_ts(peer: Peer) -> None:
    query = peer.state.subscribe("a:read", b"{}")
    peer.state.subscribe("a:other", b"{}")
    peer.connect()
    peer.transition(7, updated(query, 1.0, journal="page"))
    peer.state.disconnected()
    connect, modify = peer.connect("InternalServerError")
    assert (connect["sessionId"], connect["connectionCount"]) == (peer.state.session, 1)
    assert (connect["lastCloseReason"], connect["maxObservedTimestamp"]) == ("InternalServerError", encode_ts(7))
    assert (modify["baseVersion"], modify["newVersion"]) == (0, 1)
    assert [(item["queryId"], item.get("journal")) for item in modify["modifications"]] == [(0, "page"), (1, None)]


def test_who_asks_for_the_same_shares_one_query_until_the_last_leaves(peer: Peer) -> None:
    peer.connect()
    first, second = peer.state.subscribe("a:read", b"{}"), peer.state.subscribe("a:read", b"{}")
    assert first is second
    assert peer.state.subscribe("a:read", b'{"n":1.0}') is not first
    peer.state.unsubscribe(first)
    assert [message["modifications"][0]["type"] for message in peer.sent()] == ["Add", "Add"]
    peer.state.unsubscribe(first)
    (removal,) = peer.sent()
    assert removal == {"type": "ModifyQuerySet", "baseVersion": 3, "newVersion": 4, "modifications": [{"type": "Remove", "queryId": 0}]}
    assert peer.state.subscribe("a:read", b"{}").query_id == 2


def test_what_a_query_that_was_left_still_gets_is_ignored(peer: Peer) -> None:
    query = peer.state.subscribe("a:read", b"{}")
    peer.connect()
    peer.state.unsubscribe(query)
    assert peer.transition(1, updated(query, 1.0)) == []
    assert peer.transition(2, {"type": "QueryRemoved", "queryId": query.query_id}, query_set=2) == []


def test_a_mutation_is_finished_by_the_transition_that_covers_it(peer: Peer) -> None:
    peer.connect()
    peer.state.request(Mutation, "a:write", b"{}")
    peer.sent()
    assert peer.respond("Mutation", 0, "done", ts=encode_ts(5)) == []
    assert peer.transition(4) == []
    query = peer.state.subscribe("a:read", b"{}")
    events = peer.transition(5, updated(query, 1.0), query_set=2)
    assert [type(event) for event in events] == [Updated, Finished]
    assert results(events) == ["done"]
    assert peer.transition(6, query_set=2) == []


def test_a_mutation_whose_effects_were_seen_already_is_finished_at_once(peer: Peer) -> None:
    peer.connect()
    peer.state.request(Mutation, "a:write", b"{}")
    peer.sent()
    peer.transition(5)
    assert results(peer.respond("Mutation", 0, "done", ts=encode_ts(5))) == ["done"]


def test_failures_and_actions_are_finished_at_once(peer: Peer) -> None:
    peer.connect()
    mutation, action = peer.state.request(Mutation, "a:write", b"{}"), peer.state.request(Action, "a:act", b"{}")
    peer.sent()
    (failed,) = peer.respond("Mutation", 0, "Server Error", success=False, ts=None)
    (done,) = peer.respond("Action", 1, 42)
    assert isinstance(failed, Finished) and isinstance(failed.result, Result) and failed.request is mutation
    with pytest.raises(RemoteError, match="Server Error"):
        failed.result.get()
    assert isinstance(done, Finished) and done.request is action
    assert results([done]) == [42.0]


@pytest.mark.parametrize(
    ("data", "error"), [({"errorData": {"$integer": "BQAAAAAAAAA="}}, AppError), ({"errorData": None}, AppError), ({}, RemoteError)]
)
def test_error_data_makes_an_application_error_even_when_it_is_null(peer: Peer, data: dict[str, Any], error: type[Exception]) -> None:
    query = peer.state.subscribe("a:read", b"{}")
    peer.connect()
    peer.transition(1, {"type": "QueryFailed", "queryId": 0, "errorMessage": "no", "logLines": [], "journal": None, **data})
    assert query.result is not None
    with pytest.raises(error) as raised:
        query.result.get()
    if isinstance(raised.value, AppError):
        assert raised.value.data == (5 if data["errorData"] else None)


def test_unfinished_mutations_are_sent_again_and_actions_under_way_are_lost(peer: Peer) -> None:
    peer.connect()
    for kind in (Mutation, Action, Mutation, Mutation):
        peer.state.request(kind, "a:b", b"{}")
    peer.sent()
    peer.respond("Mutation", 0, "answered, but not shown", ts=encode_ts(5))
    peer.respond("Mutation", 2, "no", success=False)
    (lost,) = results(peer.state.disconnected())
    assert isinstance(lost, ConnectionLost)
    peer.state.request(Action, "a:offline", b"{}")
    again = [(message["type"], message["requestId"]) for message in peer.connect()[2:]]
    assert again == [("Mutation", 0), ("Mutation", 3), ("Action", 4)]
    assert peer.transition(9) == [], "the answer on the lost connection does not count on this one"
    assert results(peer.respond("Mutation", 0, "first result", ts=encode_ts(5))) == ["first result"]


def test_what_was_not_sent_yet_is_not_lost(peer: Peer) -> None:
    peer.connect()
    peer.state.request(Action, "a:act", b"{}")
    assert peer.state.disconnected() == []
    assert kinds(peer.connect()) == ["Connect", "ModifyQuerySet", "Action"]


def test_a_response_counts_as_seen_and_a_second_one_does_not_count(peer: Peer) -> None:
    peer.connect()
    peer.state.request(Mutation, "a:write", b"{}")
    assert peer.respond("Mutation", 0, "before it was sent", ts=encode_ts(3)) == []
    peer.sent()
    peer.respond("Mutation", 0, "first", ts=encode_ts(9))
    peer.respond("Mutation", 0, "second", ts=encode_ts(4))
    assert peer.transition(8) == []
    assert results(peer.transition(9)) == ["first"]


def test_what_a_response_told_is_not_unseen_by_a_reconnect(peer: Peer) -> None:
    peer.connect()
    peer.state.request(Mutation, "a:write", b"{}")
    peer.sent()
    peer.respond("Mutation", 0, None, ts=encode_ts(9))
    peer.state.disconnected()
    assert peer.connect()[0]["maxObservedTimestamp"] == encode_ts(9)


def test_no_more_requests_are_under_way_than_a_server_takes_and_their_order_is_kept(peer: Peer) -> None:
    limit = DEFAULT_LIMITS.mutations_queued_per_session
    peer.connect()
    for _ in range(limit + 2):
        peer.state.request(Mutation, "a:write", b"{}")
    peer.state.authenticate("token")
    assert kinds(peer.sent()) == ["Mutation"] * limit
    peer.respond("Mutation", 0, None, ts=encode_ts(1))
    assert kinds(peer.sent()) == ["Mutation"]
    peer.respond("Mutation", 1, None, ts=encode_ts(1))
    assert kinds(peer.sent()) == ["Mutation", "Authenticate"]
    peer.state.disconnected()
    assert kinds(peer.connect()).count("Mutation") == limit, "on a new connection none is under way"


def test_a_query_keeps_its_result_over_a_reconnect_and_only_a_different_one_is_new(peer: Peer) -> None:
    query = peer.state.subscribe("a:read", b"{}")
    peer.connect()
    peer.transition(1, updated(query, {"n": 1}))
    known = query.result
    peer.state.disconnected()
    assert query.result is known and not query.fresh
    peer.connect()
    assert peer.transition(2, updated(query, {"n": 1})) == [Updated(query)]
    assert query.result is known and query.fresh
    peer.state.disconnected()
    peer.connect()
    peer.transition(3, updated(query, {"n": True}))
    assert query.result is not known


def test_each_reading_of_a_result_gives_lists_of_its_own(peer: Peer) -> None:
    query = peer.state.subscribe("a:read", b"{}")
    peer.connect()
    peer.transition(1, updated(query, [1.0]))
    assert query.result is not None
    first = query.result.get()
    assert isinstance(first, list)
    first.append(2.0)
    assert query.result.get() == [1.0]


@pytest.mark.parametrize("token", ["token", None])
def test_a_token_is_taken_when_a_transition_reflects_it(peer: Peer, token: str | None) -> None:
    peer.connect()
    peer.transition(1)
    peer.state.authenticate(token)
    (message,) = peer.sent()
    assert (message["baseVersion"], message["tokenType"], message.get("value")) == (0, "User" if token else "None", token)
    assert peer.transition(2) == []
    assert peer.transition(2, identity=1) == [SignedIn()]
    assert peer.transition(3, identity=1) == []


def test_signing_out_while_offline_is_done_by_the_next_connection(peer: Peer) -> None:
    peer.state.authenticate(None)
    assert kinds(peer.connect()) == ["Connect", "ModifyQuerySet"]
    assert peer.transition(1) == [SignedIn()]


def test_a_refused_token_fails_what_waits_and_is_not_shown_again(peer: Peer) -> None:
    peer.connect()
    peer.state.authenticate("token")
    peer.state.request(Mutation, "a:write", b"{}")
    peer.sent()
    (failed,) = peer.receive("AuthError", error="expired", baseVersion=0, authUpdateAttempted=True)
    assert isinstance(failed, Failed) and isinstance(failed.error, AuthenticationError)
    assert peer.state.disconnected() == []
    assert kinds(peer.connect(None)) == ["Connect", "ModifyQuerySet"]


def test_the_refusal_of_a_token_that_was_replaced_since_is_ignored(peer: Peer) -> None:
    peer.connect()
    peer.state.authenticate("old")
    peer.state.authenticate("new")
    assert peer.receive("AuthError", error="old", baseVersion=0, authUpdateAttempted=True) == []
    peer.state.disconnected()
    assert [message["value"] for message in peer.connect() if message["type"] == "Authenticate"] == ["new"]


def test_a_connection_is_settled_when_all_that_was_asked_before_it_is_answered(peer: Peer) -> None:
    query = peer.state.subscribe("a:read", b"{}")
    peer.state.authenticate("token")
    peer.state.request(Mutation, "a:write", b"{}")
    peer.connect()
    steps: list[Callable[[], object]] = [
        lambda: peer.transition(1, identity=1),
        lambda: peer.transition(1, updated(query, 1.0), identity=1),
        lambda: peer.respond("Mutation", 0, None, ts=encode_ts(2)),
    ]
    for step in steps:
        step()
        assert not peer.state.settled
    peer.transition(2, identity=1)
    assert peer.state.settled
    peer.state.disconnected()
    assert not peer.state.settled


# --- chunks


def chunks(text: str, size: int, **more: Any) -> list[dict[str, Any]]:
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    return [{"chunk": part, "partNumber": n, "totalParts": len(parts), "transitionId": "1", **more} for n, part in enumerate(parts)]


def whole(query: LiveQuery, value: Any) -> str:
    versions = {"startVersion": state_version(), "endVersion": state_version(1, 0, 1)}
    return json.dumps({"type": "Transition", **versions, "modifications": [updated(query, value)]}, ensure_ascii=False)


def test_a_transition_in_chunks_is_put_together_pings_between_them(peer: Peer) -> None:
    query = peer.state.subscribe("a:read", b"{}")
    peer.connect()
    *first, last = chunks(whole(query, "日本é"), 7)
    for chunk in first:
        assert peer.receive("TransitionChunk", **chunk) == []
        assert peer.receive("Ping") == []
    assert peer.receive("TransitionChunk", **last) == [Updated(query)]
    assert query.result is not None and query.result.get() == "日本é"


def test_chunks_of_a_connection_that_was_lost_are_forgotten(peer: Peer) -> None:
    query = peer.state.subscribe("a:read", b"{}")
    peer.connect()
    parts = chunks(whole(query, 1.0), 50)
    peer.receive("TransitionChunk", **parts[0])
    peer.state.disconnected()
    peer.connect()
    for part in parts:
        peer.receive("TransitionChunk", **part)
    assert query.fresh


@pytest.mark.parametrize(
    "wrong",
    [{"partNumber": 0}, {"partNumber": 2}, {"totalParts": 9}, {"transitionId": "2"}, {"chunk": 1}],
    ids=str,
)
def test_a_chunk_out_of_place_breaks_the_protocol(peer: Peer, wrong: dict[str, Any]) -> None:
    query = peer.state.subscribe("a:read", b"{}")
    peer.connect()
    first, second, *_ = chunks(whole(query, 1.0), 50)
    peer.receive("TransitionChunk", **first)
    with pytest.raises(ProtocolError):
        peer.receive("TransitionChunk", **{**second, **wrong})


# --- servers that break the protocol

GOOD = {"type": "Transition", "startVersion": state_version(), "endVersion": state_version(1, 0, 1), "modifications": []}
ANSWER = {"type": "MutationResponse", "requestId": 0, "success": True, "result": 1, "ts": encode_ts(1), "logLines": []}
CHANGE = {"type": "QueryUpdated", "queryId": 0, "value": 1, "logLines": []}


@pytest.mark.parametrize(
    "message",
    [
        [],
        None,
        {},
        {"type": "Unheard"},
        {"type": ["Ping"]},
        GOOD | {"startVersion": state_version(1)},
        GOOD | {"startVersion": state_version(0, 1)},
        GOOD | {"startVersion": state_version(0, 0, 1)},
        GOOD | {"endVersion": state_version(1, -1, 1)},
        GOOD | {"endVersion": {"querySet": "1", "identity": 0, "ts": encode_ts(1)}},
        GOOD | {"endVersion": {"querySet": 1, "identity": 0, "ts": "1"}},
        GOOD | {"modifications": None},
        GOOD | {"modifications": [CHANGE | {"type": "QueryGuessed"}]},
        GOOD | {"modifications": [CHANGE | {"queryId": [0]}]},
        GOOD | {"modifications": [CHANGE | {"logLines": None}]},
        GOOD | {"modifications": [CHANGE | {"logLines": [1]}]},
        GOOD | {"modifications": [CHANGE | {"journal": 1}]},
        ANSWER | {"requestId": "0"},
        ANSWER | {"success": 1},
        ANSWER | {"ts": None},
        ANSWER | {"success": False},
        ANSWER | {"type": "ActionResponse"},
        {"type": "TransitionChunk", "chunk": '{"type":"Ping"}', "partNumber": 0, "totalParts": 1, "transitionId": "1"},
        {"type": "TransitionChunk", "chunk": "", "partNumber": 0, "totalParts": 0, "transitionId": "1"},
        {"type": "FatalError"},
        {"type": "AuthError", "error": "no", "baseVersion": "0"},
    ],
    ids=lambda message: json.dumps(message)[:80],
)
def test_what_is_not_the_protocol_is_refused_and_nothing_of_it_taken(peer: Peer, message: Any) -> None:
    peer.state.subscribe("a:read", b"{}")
    peer.state.request(Mutation, "a:write", b"{}")
    peer.connect()
    with pytest.raises(ProtocolError):
        peer.state.receive(json.dumps(message))
    peer.state.disconnected()
    assert kinds(peer.connect()) == ["Connect", "ModifyQuerySet", "Mutation"]


@pytest.mark.parametrize("frame", ["", "garbage", b"\xff\xfe", "[" * 10_000])
def test_a_frame_that_is_not_json_is_refused(peer: Peer, frame: str | bytes) -> None:
    peer.connect()
    with pytest.raises(ProtocolError):
        peer.state.receive(frame)


def test_after_a_fatal_error_nothing_goes_on(peer: Peer) -> None:
    peer.connect()
    peer.state.request(Mutation, "a:write", b"{}")
    (failed,) = peer.receive("FatalError", error="You again")
    assert isinstance(failed, Failed) and isinstance(failed.error, ProtocolError) and "You again" in failed.error.message
    assert not peer.state.requests and peer.sent() == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "Mutation", encode_ts(1), encode_ts(2**64 - 1)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "queryId", "ts", "querySet"]), inner, max_size=4),
    max_leaves=6,
)
fields = st.sampled_from(sorted({name for message in (GOOD, ANSWER, CHANGE) for name in message}))


@given(st.sampled_from([GOOD, ANSWER, GOOD | {"modifications": [CHANGE]}]), st.dictionaries(fields, json_values, max_size=3))
def test_no_message_makes_it_raise_anything_else(message: dict[str, Any], changes: dict[str, Any]) -> None:
    peer = Peer()
    peer.state.subscribe("a:read", b"{}")
    peer.state.request(Mutation, "a:write", b"{}")
    peer.connect()
    try:
        peer.state.receive(json.dumps(message | changes))
    except ProtocolError:
        pass
