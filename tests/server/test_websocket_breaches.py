"""Clients that break the protocol, or mean harm: they are closed as the protocol says, and others notice nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reactor.limits import DEFAULT_LIMITS
from reactor.server import connection
from reactor.testing import TestBackend
from tests.server.gates import gate
from tests.server.support import APP, SmallBackend, socket
from tests.support.sockets import Closed, Socket, ts_of
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio


async def serves(t: TestBackend, client: Socket) -> None:
    """That a client is served: its own change comes back to it."""
    query = client.subscribe("notes:texts", list="alive")
    known = await client.result(query)
    answer = await client.response(client.mutate("notes:add", list="alive", text="yes"))
    assert answer["success"] and await client.result(query) == [*known, "yes"]


def nested(depth: int) -> Any:
    return json.loads("[" * depth + "]" * depth)


SET = {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": []}
ADD = {"type": "Add", "queryId": 0, "udfPath": "notes:texts", "args": [{"list": "a"}]}
MUTATION = {"type": "Mutation", "requestId": 0, "udfPath": "notes:look", "args": [{"list": "a"}]}
NOBODY = {"type": "Authenticate", "baseVersion": 0, "tokenType": "None"}

BREACHES: dict[str, list[str | bytes | dict[str, Any]]] = {
    "no JSON": ["garbage"],
    "an empty frame": [""],
    "bytes": [b"\x00\xff"],
    "no object": ["[1]"],
    "an unknown type": [{"type": "Subscribe"}],
    "a type that is no string": [{"type": []}],
    "a lone surrogate": ['{"type":"Event","event":"\\ud800"}'],
    "Connect without a session": [{"type": "Connect", "connectionCount": 0}],
    "a field missing": [{"type": "Mutation", "requestId": 0, "args": [{}]}],
    "a field mistyped": [MUTATION | {"requestId": "0"}],
    "an integer out of range": [MUTATION | {"requestId": 2**32}],
    "300 nested lists": [MUTATION | {"args": [{"list": nested(300)}]}],
    "a query set from before": [SET, SET],
    "a query set from later": [SET | {"baseVersion": 5, "newVersion": 6}],
    "a query set going back": [SET | {"newVersion": 0}],
    "a query id twice in one message": [SET | {"modifications": [ADD, ADD]}],
    "a query id twice": [SET | {"modifications": [ADD]}, SET | {"baseVersion": 1, "newVersion": 2, "modifications": [ADD]}],
    "a query id removed that is not there": [SET | {"modifications": [{"type": "Remove", "queryId": 0}]}],
    "an identity from before": [NOBODY, NOBODY],
    "an identity from later": [NOBODY | {"baseVersion": 1}],
    "an unknown token type": [NOBODY | {"tokenType": "Guest"}],
}


@pytest.mark.sqlite_only("refused before a store is asked")
@pytest.mark.parametrize("breach", BREACHES.values(), ids=BREACHES)
async def test_a_breach_of_the_protocol_is_a_fatal_error_and_the_end(t: TestBackend, breach: list[Any]) -> None:
    async with socket(t) as bad, socket(t) as good:
        for frame in breach:
            bad.send_raw(frame if isinstance(frame, str | bytes) else json.dumps(frame))
        bad.query_set = bad.identity = len(breach)
        code, reason, last = await bad.closed()
        assert last is not None and last["type"] == "FatalError" and last["error"]
        assert (code, reason) == (1000, "")
        await serves(t, good)
    assert len(t._server.connections) == 0 and not t._engine.live._all


async def test_what_follows_a_breach_is_not_looked_at(t: TestBackend) -> None:
    async with socket(t) as bad:
        bad.send_raw("garbage")
        bad.send(type="Mutation", requestId=0, udfPath="notes:add", args=[{"list": "late", "text": "x"}])
        await bad.closed()
    assert await t.query("notes:texts", list="late") == []


async def test_a_message_as_bytes_is_read_like_text(t: TestBackend) -> None:
    async with socket(t) as client:
        client.send_raw(b'{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[]}')
        client.query_set = 1
        await client.reflected()


async def test_a_second_connect_names_the_session_anew_and_observes_the_newest_ts(t: TestBackend) -> None:
    async with socket(t) as client:
        await client.response(client.mutate("notes:add", request=0, list="a", text="x"))
        client.responses.clear()
        client.connect(sessionId="7d444840-9dc0-11d1-b245-5ffdce74fad2", connectionCount=1)
        answer = await client.response(client.mutate("notes:add", request=0, list="a", text="x"))
        assert ts_of(answer["ts"]) == client.version[2]
        assert await t.query("notes:texts", list="a") == ["x", "x"]
        client.connect(maxObservedTimestamp="/////////38=")
        assert (await client.closed())[:2] == (1011, "InternalServerError")


async def test_arguments_that_nest_too_deep_fail_their_call_alone(t: TestBackend) -> None:
    async with socket(t) as client:
        deep, deeper = client.subscribe("values:echo", value=nested(63)), client.subscribe("values:echo", value=nested(65))
        assert await client.result(deep) == nested(63)
        assert "nested too deeply" in client.results[deeper]["errorMessage"]


async def test_more_queries_than_a_session_may_have_close_it_and_no_other() -> None:
    async with SmallBackend(APP, limits=replace(DEFAULT_LIMITS, queries_per_session=200)) as t, socket(t) as bad, socket(t) as good:
        adds = [{"type": "Add", "queryId": number, "udfPath": "notes:texts", "args": [{"list": str(number)}]} for number in range(201)]
        bad.modify(*adds[:200])
        await bad.reflected()
        assert len(bad.results) == 200
        bad.modify(adds[200])
        assert await bad.closed() == (1013, "TooManyQueriesForSingleClient", None)
        await serves(t, good)


async def test_too_many_mutations_in_the_queue_close_the_connection_and_those_answered_stay(
    t: TestBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RUN_OUT_S", 0.0)  # the first of them takes too long
    async with socket(t) as bad, socket(t) as good:
        bad.mutate("gated:add", name="full", list="a", text="x")
        await gate("full").reached.wait()
        for _ in range(999):
            bad.mutate("notes:add", list="a", text="y")
        bad.modify()
        await bad.transition()  # 1000 in the queue are none too many
        bad.mutate("notes:add", list="a", text="z")
        assert await bad.closed() == (1013, "TooManyConcurrentMutations", None)
        gate("full").open()
        await serves(t, good)


async def test_mutations_that_did_fit_the_queue_are_answered_before_the_connection_closes(
    t: TestBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RUN_OUT_S", 300.0)  # as long as this machine needs
    async with socket(t) as bad:
        first = bad.mutate("gated:add", name="crowd", list="a", text="x")
        await gate("crowd").reached.wait()
        fit = [first, *(bad.mutate("notes:add", list="a", text="y") for _ in range(999))]
        bad.mutate("notes:add", list="a", text="one too many")
        bad.mutate("notes:add", list="a", text="not heard")
        gate("crowd").open()
        assert (await bad.closed())[:2] == (1013, "TooManyConcurrentMutations")
        assert sorted(bad.responses) == fit and all(answer["success"] for answer in bad.responses.values())


async def test_too_many_actions_at_once_close_the_connection(t: TestBackend) -> None:
    async with socket(t) as bad, socket(t) as good:
        for _ in range(1000):
            bad.act("gated:wait", name="actions")
        bad.modify()
        await bad.transition()
        assert gate("actions").waiting == 1000
        bad.act("gated:wait", name="actions")
        assert await bad.closed() == (1013, "TooManyInflightActionsForSingleClient", None)
        await serves(t, good)
        gate("actions").open()


async def test_nothing_is_left_of_the_queries_that_a_refused_message_removed(t: TestBackend) -> None:
    async with socket(t) as bad:
        queries = [bad.subscribe("notes:texts", list=f"{number}") for number in range(5)]
        await bad.reflected()
        bad.modify(*({"type": "Remove", "queryId": query} for query in (*queries[:3], 77)))
        code, _, last = await bad.closed()
        assert code == 1000 and last is not None and last["type"] == "FatalError"
    assert not len(t._engine.live)


@pytest.mark.parametrize("direct", [False, True])
async def test_a_reader_that_never_reads_gets_the_latest_state_later_and_no_backlog(t: TestBackend, direct: bool) -> None:
    async with socket(t, buffer=1, direct=direct) as slow, socket(t, direct=direct) as quick:
        query, other = slow.subscribe("notes:texts", list="a"), quick.subscribe("notes:texts", list="a")
        await slow.reflected()
        await quick.reflected()
        for number in range(200):
            await quick.response(quick.mutate("notes:add", list="a", text=str(number)))
        assert slow.unread == 1
        all_of_it = [str(number) for number in range(200)]
        assert await quick.result(other) == all_of_it
        frames = slow.frames
        await slow.until(query, all_of_it)
        assert slow.frames - frames <= 3


async def test_a_reader_that_does_not_even_take_the_close_is_given_up() -> None:
    async with SmallBackend(APP, limits=replace(DEFAULT_LIMITS, close_timeout_s=0.05)) as t, socket(t, buffer=1) as bad:
        for _ in range(3):
            bad.modify()
            bad.send_raw(json.dumps(MUTATION))
        bad.send_raw("garbage")
        await asyncio.wait_for(asyncio.shield(bad._serving), 10)
        assert len(t._server.connections) == 0


async def test_adding_and_removing_without_reading_does_not_grow_for_ever() -> None:
    async with SmallBackend(APP, limits=replace(DEFAULT_LIMITS, queries_per_session=50)) as t, socket(t, buffer=1) as bad:
        (connection,) = t._server.connections._open
        for _ in range(200):
            bad.unsubscribe(bad.subscribe("notes:texts", list="a"))
        while connection._closing is None:
            await t.runtime.sleep(0)
        assert len(connection.session.removed) <= 50 and len(connection.session.queries) <= 50
        assert (await bad.closed())[:2] == (1013, "TooManyQueriesForSingleClient")


async def test_a_client_that_says_nothing_is_pinged_and_costs_no_more() -> None:
    async with SmallBackend(APP, limits=replace(DEFAULT_LIMITS, ping_after_s=0.01)) as t, socket(t, session=None) as silent:
        await t.advance(seconds=1)
        assert (await silent.receive())["type"] == "Ping"
        await t.advance(seconds=1)
        assert (await silent.receive())["type"] == "Ping"
        assert silent.version == (0, 0, 0)


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(t: TestBackend) -> None:
    async with socket(t, buffer=1) as client:
        for _ in range(20):
            client.subscribe("notes:texts", list="a")
            client.mutate("notes:add", list="a", text="x")
        await client.receive()
        await client.leave()
    assert len(t._server.connections) == 0 and not t._engine.live._all
    async with socket(t) as good:
        await serves(t, good)


REQUESTS: list[dict[str, Any]] = [
    {"type": "Connect", "sessionId": "7d444840-9dc0-11d1-b245-5ffdce74fad2", "connectionCount": 0},
    {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": []},
    {
        "type": "ModifyQuerySet",
        "baseVersion": 0,
        "newVersion": 1,
        "modifications": [
            {"type": "Add", "queryId": 0, "udfPath": "notes:texts", "args": [{"list": "f"}]},
            {"type": "Remove", "queryId": 0},
        ],
    },
    {
        "type": "ModifyQuerySet",
        "baseVersion": 1,
        "newVersion": 2,
        "modifications": [{"type": "Add", "queryId": 1, "udfPath": "", "args": []}],
    },
    {"type": "Mutation", "requestId": 0, "udfPath": "notes:look", "args": [{"list": "f"}]},
    {"type": "Action", "requestId": 1, "udfPath": "notes:add_all", "args": [{"list": "f", "texts": []}]},
    {"type": "Authenticate", "baseVersion": 0, "tokenType": "None"},
    {"type": "Authenticate", "baseVersion": 0, "tokenType": "Admin", "value": "x"},
    {"type": "Event"},
]
values = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
valid = st.sampled_from(REQUESTS)
mangled = st.builds(
    lambda message, changes: message | changes, valid, st.dictionaries(st.sampled_from(sorted({*REQUESTS[2], *REQUESTS[4]})), values)
)
frames = st.binary(max_size=50) | st.text(st.characters(exclude_categories=["Cs"]), max_size=50) | (valid | mangled).map(json.dumps)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(frames, max_size=8))
async def test_whatever_is_sent_neither_the_server_nor_another_connection_minds(t: TestBackend, sent: list[str | bytes]) -> None:
    async with socket(t, session=None) as fuzzed, socket(t) as good:
        for frame in sent:
            fuzzed.send_raw(frame)
        query = good.subscribe("notes:texts", list="f")
        assert await good.result(query) == []
        assert (await good.response(good.mutate("notes:look", list="f")))["result"] == 0
        fuzzed.query_set = fuzzed.identity = 2**33  # its versions are its own affair
        fuzzed._outstanding.extend([0] * len(sent))
        fuzzed.send_raw("the end")
        last = None
        try:
            while True:
                event = await fuzzed._next_event()
                if event["type"] == "websocket.close":
                    raise Closed(event["code"], event["reason"])
                last = json.loads(event["text"])["type"]
        except Closed as closed:
            # Its last frame breaks the protocol, if no other did before.
            assert (closed.code, last) in ((1000, "FatalError"), (1000, "AuthError"))
    assert len(t._server.connections) == 0 and not t._engine.live._all


async def test_more_bytes_than_a_session_may_have_under_way_close_it_and_no_other() -> None:
    """Queries, queued mutations and running actions keep their arguments: what is removed, or has run, counts no more."""
    limits = replace(DEFAULT_LIMITS, session_requests_bytes=5000)
    async with SmallBackend(APP, limits=limits) as t, socket(t) as good:
        for path, kind in (("values:echo", "query"), ("notes:add", "mutation"), ("gated:wait", "action")):
            async with socket(t) as bad:
                for _ in range(10):
                    bad.unsubscribe(bad.subscribe("values:echo", value="x" * 2000))
                    await bad.response(bad.mutate("notes:add", list="a", text="x" * 2000))
                bad.mutate("gated:add", name=f"bytes of a {kind}", list="a", text="x")
                await gate(f"bytes of a {kind}").reached.wait()
                for _ in range(3):
                    match kind:
                        case "query":
                            bad.subscribe(path, value="x" * 2000)
                        case "mutation":
                            bad.mutate(path, list="a", text="x" * 2000)
                        case _:
                            bad.act(path, name="x" * 2000)
                assert await bad.closed() == (1013, "TooManyBytesForSingleClient", None)
                gate(f"bytes of a {kind}").open()
            await serves(t, good)
        gate("x" * 2000).open()


@pytest.mark.parametrize("direct", [False, True])
async def test_mutations_wait_while_their_answers_are_not_taken(direct: bool) -> None:
    limits = replace(DEFAULT_LIMITS, session_answers_bytes=10_000)
    async with SmallBackend(APP, limits=limits) as t, socket(t, buffer=1, direct=direct) as slow:
        (connection,) = t._server.connections._open
        requests = [slow.mutate("values:long_of_a_mutation", letter=chr(ord("a") + number), times=3000.0) for number in range(20)]
        await eventually_async(lambda: connection.session.is_full, "more than may wait")
        # As much as may wait, in frames that are being sent and in answers, each one answer above it.
        waiting = len(connection._mutations)
        assert 20 - 2 * 4 - 1 <= waiting < 20 and connection.session.responses_bytes < 14_000
        async with socket(t) as good:
            await serves(t, good)
        assert len(connection._mutations) == waiting
        await slow.reflected()
        assert [slow.responses[request]["result"][0] for request in requests] == [chr(ord("a") + number) for number in range(20)]
        assert not connection.session.responses_bytes


async def test_a_client_that_goes_while_its_mutations_wait_leaves_nothing_behind() -> None:
    limits = replace(DEFAULT_LIMITS, session_answers_bytes=10_000)
    async with SmallBackend(APP, limits=limits) as t:
        async with socket(t, buffer=1) as slow:
            (connection,) = t._server.connections._open
            for _ in range(20):
                slow.mutate("values:long_of_a_mutation", letter="a", times=3000.0)
            await eventually_async(lambda: connection.session.is_full, "more than may wait")
            assert t._server.connections.work.tasks()
        await t.runtime.sleep(0)
        assert not t._server.connections.work.tasks()


async def test_answers_of_actions_that_are_not_taken_close_the_connection() -> None:
    limits = replace(DEFAULT_LIMITS, session_answers_bytes=10_000)
    async with SmallBackend(APP, limits=limits) as t, socket(t, buffer=1) as bad:
        (connection,) = t._server.connections._open
        for _ in range(20):
            bad.act("values:long_of_an_action", letter="a", times=3000.0)
        await eventually_async(lambda: connection._closing is not None, "the close")
        assert connection.session.responses_bytes < 14_000
        assert (await bad.closed())[:2] == (1013, "TooManyBytesForSingleClient")
