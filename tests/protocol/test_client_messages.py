"""What clients send is taken apart, or refused saying why."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import ProtocolError
from reactor.protocol.client_messages import (
    Action,
    Add,
    Authenticate,
    ClientMessage,
    Connect,
    Event,
    ModifyQuerySet,
    Mutation,
    Remove,
    decode_client_message,
    encode_client_message,
)
from reactor.protocol.version import QueryId, RequestId, decode_ts, encode_ts

SESSION = "0bfe5125-8bbb-4938-9315-8fe38558da95"
CONNECT = {"type": "Connect", "sessionId": SESSION, "connectionCount": 0, "lastCloseReason": "InitialConnect", "clientTs": 1795229258667}
ADD = {"type": "Add", "queryId": 0, "udfPath": "messages:list", "args": [{"channel": "j57"}]}
MODIFY = {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [ADD]}
MUTATION = {"type": "Mutation", "requestId": 3, "udfPath": "messages:send", "args": [{"body": "hi"}]}
ACTION = MUTATION | {"type": "Action"}
ADMIN = {"type": "Authenticate", "baseVersion": 0, "tokenType": "Admin", "value": "name|secret"}


def add(**fields: Any) -> dict[str, Any]:
    return MODIFY | {"modifications": [ADD | fields]}


MESSAGES: list[tuple[dict[str, Any], ClientMessage]] = [
    (CONNECT, Connect(SESSION, 0, "InitialConnect", None, 1795229258667)),
    (CONNECT | {"lastCloseReason": None}, Connect(SESSION, 0, None, None, 1795229258667)),
    (
        CONNECT | {"connectionCount": 2**32 - 1, "maxObservedTimestamp": "AAAqNv6clxc=", "clientTs": 0.0},
        Connect(SESSION, 2**32 - 1, "InitialConnect", 1700000000000000000, 0),
    ),
    ({"type": "Connect", "sessionId": SESSION, "connectionCount": 0}, Connect(SESSION, 0, None, None, None)),
    (MODIFY, ModifyQuerySet(0, 1, (Add(QueryId(0), "messages:list", b'{"channel":"j57"}', None),))),
    (MODIFY | {"modifications": []}, ModifyQuerySet(0, 1, ())),
    (MODIFY | {"modifications": [{"type": "Remove", "queryId": 7}]}, ModifyQuerySet(0, 1, (Remove(QueryId(7)),))),
    (add(journal="eyJ4"), ModifyQuerySet(0, 1, (Add(QueryId(0), "messages:list", b'{"channel":"j57"}', "eyJ4"),))),
    (add(journal=None, componentPath=""), ModifyQuerySet(0, 1, (Add(QueryId(0), "messages:list", b'{"channel":"j57"}', None),))),
    (add(args=[{"b": 1, "a": 2}]), ModifyQuerySet(0, 1, (Add(QueryId(0), "messages:list", b'{"a":2,"b":1}', None),))),
    (MUTATION, Mutation(RequestId(3), "messages:send", b'{"body":"hi"}')),
    (ACTION, Action(RequestId(3), "messages:send", b'{"body":"hi"}')),
    (MUTATION | {"args": [{}, {}]}, Mutation(RequestId(3), "messages:send", b"[{},{}]")),
    ({"type": "Mutation", "requestId": 3, "udfPath": "m"}, Mutation(RequestId(3), "m", b"null")),
    (ADMIN, Authenticate(0, "Admin", "name|secret")),
    (ADMIN | {"tokenType": "User", "value": "a.b.c"}, Authenticate(0, "User", "a.b.c")),
    (ADMIN | {"tokenType": "None"}, Authenticate(0, "None", None)),
    (ADMIN | {"impersonating": {"subject": "u1"}}, Authenticate(0, "Admin", "name|secret", {"subject": "u1"})),
    (ADMIN | {"acting_as": {"subject": "u1"}}, Authenticate(0, "Admin", "name|secret", {"subject": "u1"})),
    ({"type": "Event", "eventType": "ClientConnect", "event": [{"name": "x"}]}, Event()),
    ({"type": "Event"}, Event()),
]


@pytest.mark.parametrize(("sent", "message"), MESSAGES, ids=lambda value: None if isinstance(value, dict) else type(value).__name__)
def test_each_message_is_read(sent: dict[str, Any], message: ClientMessage) -> None:
    assert decode_client_message(json.dumps(sent)) == message
    assert decode_client_message(json.dumps(sent | {"added": {"later": 1}}).encode()) == message


BROKEN: list[tuple[Any, str]] = [
    ("garbage", "not JSON"),
    ("", "not JSON"),
    (b"\xff\x00", "not JSON"),
    ('{"type":"Event"', "not JSON"),
    ('{"type":"Event","event":NaN}', "not JSON"),
    ('{"type":"Event","event":1e999}', "not JSON"),
    ('{"type":"Event","event":"\\ud800"}', "not JSON"),
    ("[" * 5000 + "]" * 5000, "not JSON"),
    ([], "JSON object"),
    (None, "JSON object"),
    ("x", "not JSON"),
    ({}, "unknown message type 'None'"),
    ({"type": "connect"}, "unknown message type 'connect'"),
    ({"type": 1}, "unknown message type"),
    ({"type": []}, "unknown message type"),
    ({"type": {}}, "unknown message type"),
    ({"type": "T" * 10_000}, "unknown message type"),
    ({"type": "Connect"}, "Connect.sessionId"),
    (CONNECT | {"sessionId": 5}, "Connect.sessionId"),
    (CONNECT | {"sessionId": ""}, "Connect.sessionId"),
    (CONNECT | {"sessionId": "x" * 36}, "Connect.sessionId"),
    (CONNECT | {"sessionId": f"{SESSION}\n"}, "Connect.sessionId"),
    (CONNECT | {"sessionId": f"once:{'0' * 64}"}, "Connect.sessionId"),
    (CONNECT | {"connectionCount": "0"}, "Connect.connectionCount"),
    (CONNECT | {"connectionCount": -1}, "Connect.connectionCount"),
    (CONNECT | {"lastCloseReason": 3}, "Connect.lastCloseReason"),
    (CONNECT | {"maxObservedTimestamp": 5}, "timestamp"),
    (CONNECT | {"maxObservedTimestamp": "AAAA"}, "timestamp"),
    (CONNECT | {"maxObservedTimestamp": "é" * 12}, "timestamp"),
    ({"type": "ModifyQuerySet"}, "ModifyQuerySet.modifications"),
    (MODIFY | {"modifications": {}}, "ModifyQuerySet.modifications"),
    (MODIFY | {"modifications": ["Add"]}, "modification"),
    (MODIFY | {"modifications": [ADD | {"type": "Change"}]}, "'Change'"),
    (MODIFY | {"modifications": [ADD | {"type": []}]}, "'[]'"),
    (MODIFY | {"baseVersion": None}, "ModifyQuerySet.baseVersion"),
    (MODIFY | {"baseVersion": True}, "ModifyQuerySet.baseVersion"),
    (MODIFY | {"baseVersion": 0.0}, "ModifyQuerySet.baseVersion"),
    (MODIFY | {"newVersion": 2**32}, "ModifyQuerySet.newVersion"),
    (add(queryId="0"), "Add.queryId"),
    (add(queryId=-1), "Add.queryId"),
    (add(queryId=2**32), "Add.queryId"),
    (add(queryId=10**30), "Add.queryId"),
    (add(udfPath=None), "Add.udfPath"),
    (add(journal=7), "Add.journal"),
    (MODIFY | {"modifications": [{"type": "Remove"}]}, "Remove.queryId"),
    (MUTATION | {"requestId": 1.5}, "Mutation.requestId"),
    (MUTATION | {"requestId": 2**32}, "Mutation.requestId"),
    (MUTATION | {"udfPath": ["a"]}, "Mutation.udfPath"),
    (ACTION | {"requestId": None}, "Action.requestId"),
    (ACTION | {"udfPath": 5}, "Action.udfPath"),
    (ADMIN | {"baseVersion": -1}, "Authenticate.baseVersion"),
    (ADMIN | {"tokenType": "Guest"}, "'Guest'"),
    (ADMIN | {"tokenType": {}}, "token type"),
    (ADMIN | {"value": None}, "Authenticate.value"),
    (ADMIN | {"impersonating": "u1"}, "Authenticate.impersonating"),
]


@pytest.mark.parametrize(("sent", "named"), BROKEN, ids=[str(sent)[:50] for sent, _ in BROKEN])
def test_what_is_no_message_is_refused_by_name(sent: Any, named: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        decode_client_message(sent if isinstance(sent, str | bytes) else json.dumps(sent))
    assert named in refused.value.message
    assert len(refused.value.message) < 500, "what was sent is not repeated whole"


def test_arguments_that_nest_too_deep_for_a_value_are_left_to_the_call() -> None:
    nested = json.loads("[" * 66 + "]" * 66)
    message = decode_client_message(json.dumps(MUTATION | {"args": [{"value": nested}]}))
    assert isinstance(message, Mutation) and message.args.count(b"[") == 66


def test_arguments_that_nest_too_deep_to_be_written_again_are_refused() -> None:
    with pytest.raises(ProtocolError, match=r"Mutation\.args"):
        decode_client_message(json.dumps(MUTATION | {"args": [json.loads("[" * 300 + "]" * 300)]}))


counters = st.integers(0, 2**32 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abc"), st.floats(allow_nan=False, allow_infinity=False) | st.text(), max_size=3)
args = objects.map(lambda value: json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
texts = st.text(st.characters(exclude_categories=["Cs"]))
messages = st.one_of(
    st.builds(
        Connect,
        st.uuids().map(str),
        counters,
        st.none() | texts,
        st.none() | st.integers(0, 2**64 - 1),
        st.none() | st.integers(-(2**52), 2**52),
    ),
    st.builds(
        ModifyQuerySet,
        counters,
        counters,
        st.lists(st.builds(Add, counters, texts, st.just(b"{}"), st.none() | texts) | st.builds(Remove, counters)).map(tuple),
    ),
    st.builds(Mutation, counters, texts, st.just(b'{"a":1}')),
    st.builds(Action, counters, texts, st.just(b'{"a":1}')),
    st.builds(Authenticate, counters, st.just("User"), texts),
    st.builds(Authenticate, counters, st.just("Admin"), texts, st.none() | objects),
    st.builds(Authenticate, counters, st.just("None"), st.none()),
    st.just(Event()),
)


@given(messages)
def test_what_our_own_client_sends_is_read_as_it_was_meant(message: ClientMessage) -> None:
    assert decode_client_message(encode_client_message(message)) == message


@given(st.binary() | st.text(st.characters(exclude_categories=["Cs"])) | json_values.map(json.dumps))
def test_anything_is_either_a_message_or_refused(frame: str | bytes) -> None:
    try:
        assert isinstance(decode_client_message(frame), ClientMessage)
    except ProtocolError as refused:
        assert refused.message


FIELDS = [
    *("sessionId", "connectionCount", "lastCloseReason", "maxObservedTimestamp", "clientTs", "baseVersion", "newVersion", "queryId"),
    *("modifications", "udfPath", "args", "journal", "requestId", "tokenType", "value", "impersonating", "type"),
]


@given(st.sampled_from(MESSAGES), st.sampled_from(FIELDS), json_values)
def test_a_message_with_one_field_of_any_kind_is_either_a_message_or_refused(
    message: tuple[dict[str, Any], ClientMessage], field: str, value: Any
) -> None:
    sent = message[0] | {field: value}
    if field != "modifications" and sent.get("modifications"):
        sent["modifications"] = [sent["modifications"][0] | ({} if field == "type" else {field: value})]
    test_anything_is_either_a_message_or_refused.hypothesis.inner_test(json.dumps(sent))  # type: ignore[attr-defined]


@given(st.integers(0, 2**64 - 1))
def test_a_ts_is_twelve_characters_that_give_it_back(ts: int) -> None:
    assert decode_ts(encode_ts(ts)) == ts
    assert len(encode_ts(ts)) == 12


@pytest.mark.parametrize(("ts", "text"), [(0, "AAAAAAAAAAA="), (1, "AQAAAAAAAAA="), (1700000000000000000, "AAAqNv6clxc=")])
def test_a_ts_is_written_as_the_reference_does(ts: int, text: str) -> None:
    assert encode_ts(ts) == text


def test_the_arguments_of_subscriptions_take_little_more_memory_than_their_length() -> None:
    message = json.dumps(MODIFY | {"modifications": [ADD | {"queryId": number} for number in range(1000)]})
    tracemalloc.start()
    try:
        kept = decode_client_message(message)
        in_use, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(kept, ModifyQuerySet) and len(kept.modifications) == 1000
    assert in_use < 1000 * len(kept.modifications)
