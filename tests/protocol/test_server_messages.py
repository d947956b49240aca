"""What the server sends, byte for byte where clients depend on it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.protocol import server_messages as wire
from reactor.protocol.version import IdentityVersion, QueryId, QuerySetVersion, RequestId, StateVersion

START = StateVersion(QuerySetVersion(0), IdentityVersion(0), 0)
END = StateVersion(QuerySetVersion(1), IdentityVersion(0), 1)

MESSAGES: list[tuple[bytes, dict[str, Any]]] = [
    (
        wire.transition(START, END, [wire.query_removed(QueryId(7))], 1700000000250000000) + wire.tail(-12),
        {
            "type": "Transition",
            "startVersion": {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="},
            "endVersion": {"querySet": 1, "identity": 0, "ts": "AQAAAAAAAAA="},
            "modifications": [{"type": "QueryRemoved", "queryId": 7}],
            "clientClockSkew": -12,
            "serverTs": 1700000000250000000,
        },
    ),
    (
        wire.query_updated(QueryId(0), wire.updated_body(b"[1.0]", [], None)),
        {"type": "QueryUpdated", "queryId": 0, "value": [1.0], "logLines": [], "journal": None},
    ),
    (
        wire.query_failed(QueryId(1), wire.failed_body("no", b"null", ["[LOG] 'x'"], "j")),
        {"type": "QueryFailed", "queryId": 1, "errorMessage": "no", "errorData": None, "logLines": ["[LOG] 'x'"], "journal": "j"},
    ),
    (
        wire.query_failed(QueryId(1), wire.failed_body("no", None, [], None)),
        {"type": "QueryFailed", "queryId": 1, "errorMessage": "no", "logLines": [], "journal": None},
    ),
    (
        wire.mutation_response(RequestId(3), value=b"42.0", ts=1, log_lines=[]),
        {"type": "MutationResponse", "requestId": 3, "success": True, "result": 42.0, "ts": "AQAAAAAAAAA=", "logLines": []},
    ),
    (
        wire.failure_response("Mutation", RequestId(3), message="no", data=b"[]", log_lines=[]),
        {"type": "MutationResponse", "requestId": 3, "success": False, "result": "no", "ts": None, "logLines": [], "errorData": []},
    ),
    (
        wire.failure_response("Action", RequestId(3), message="no", data=None, log_lines=[]),
        {"type": "ActionResponse", "requestId": 3, "success": False, "result": "no", "logLines": []},
    ),
    (
        wire.action_response(RequestId(4), value=b"null", log_lines=["[LOG] 'a'", "[LOG] '\"'"]),
        {"type": "ActionResponse", "requestId": 4, "success": True, "result": None, "logLines": ["[LOG] 'a'", "[LOG] '\"'"]},
    ),
    (wire.fatal_error("no"), {"type": "FatalError", "error": "no"}),
    (
        wire.auth_error("no", 2, update_attempted=True),
        {"type": "AuthError", "error": "no", "baseVersion": 2, "authUpdateAttempted": True},
    ),
    (wire.PING, {"type": "Ping"}),
]


@pytest.mark.parametrize(("frame", "message"), MESSAGES, ids=[message["type"] for _, message in MESSAGES])
def test_each_message_is_written_as_clients_read_it(frame: bytes, message: dict[str, Any]) -> None:
    assert json.loads(frame) == message


def test_an_unknown_clock_skew_is_left_out_not_null() -> None:
    frame = json.loads(wire.transition(START, END, [], 1) + wire.tail(None))
    assert frame["serverTs"] == 1 and "clientClockSkew" not in frame


@pytest.mark.parametrize("broken", ["\ud800", "a\udfffb", "\ud83d", "\x00\x1f"])
def test_a_text_that_is_no_unicode_is_shown_escaped(broken: str) -> None:
    for frame in (wire.fatal_error(broken), wire.query_failed(QueryId(0), wire.failed_body(broken, None, [broken], None))):
        assert json.loads(frame.decode("utf-8"))


awkward = st.text(st.sampled_from('\\"\n\x00é€😀aa'), max_size=300)


@given(awkward, st.integers(1, 200))
def test_parts_of_a_transition_give_it_back_and_are_no_larger_than_asked(letters: str, size: int) -> None:
    value = wire.updated_body(json.dumps(letters, ensure_ascii=False).encode(), [], None)
    frame = wire.transition(START, END, [wire.query_updated(QueryId(0), value)], 5) + wire.tail(1)
    parts = [json.loads(part.decode("utf-8")) for part in wire.chunks(frame, size, "17")]
    assert "".join(part["chunk"] for part in parts) == frame.decode()
    assert [part["partNumber"] for part in parts] == list(range(len(parts)))
    assert {(part["type"], part["totalParts"], part["transitionId"]) for part in parts} == {("TransitionChunk", len(parts), "17")}
    assert all(len(part["chunk"].encode()) <= max(size, 4) for part in parts)
