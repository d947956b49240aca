"""Whatever a client sends, it gets one clear error; others notice nothing, and nothing acknowledged is lost."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.databases import Databases
from tests.support.examples import examples
from tests.support.server import Server
from tests.support.socket import Socket
from tests.support.waiting import eventually

#: Of the tests below, those that nothing of the store has a part in.
REFUSED_BEFORE = pytest.mark.sqlite_only("refused, or answered, before a store is asked")


@pytest.fixture(scope="module")
def server(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def bystander(server: Server) -> Iterator[Socket]:
    with Socket(server.url) as socket:
        socket.subscribe("counters:get", name="bystander")
        assert socket.updated()["value"] == 0
        yield socket


@pytest.fixture(autouse=True)
def _others_notice_nothing(server: Server, bystander: Socket) -> Iterator[None]:
    """After each test the same connection still follows, and every acknowledged write is there."""
    yield
    count = call(server, "mutation", "counters:add", {"name": "bystander"}).json()["value"]
    assert bystander.updated()["value"] == count
    assert call(server, "query", "counters:get", {"name": "bystander"}).json()["value"] == count


@pytest.fixture
def client(server: Server) -> Iterator[Socket]:
    with Socket(server.url) as socket:
        yield socket


def call(server: Server, kind: str, path: str, args: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/api/{kind}", json={"path": path, "args": args, "format": "json"}, trust_env=False, verify=False)


def failure(client: Socket, path: str, args: str) -> str:
    """The error of a mutation with these arguments, given as JSON text."""
    client.connection.send(f'{{"type":"Mutation","requestId":1,"udfPath":{json.dumps(path)},"args":{args}}}')
    response = client.receive("MutationResponse")
    assert not response["success"], response
    assert "errorData" not in response
    return str(response["result"])


NESTED = '[{"name":"x","content":' + "[" * 64 + "]" * 64 + "}]"


@REFUSED_BEFORE
@pytest.mark.parametrize(
    ("path", "args", "says"),
    [
        ("nowhere:at_all", "[{}]", "Could not find public function for 'nowhere:at_all'"),
        ("counters:reset", '[{"name":"x"}]', "Could not find public function for 'counters:reset'"),
        ("../../etc/passwd", "[{}]", "no function path"),
        ("counters:get", '[{"name":"x"}]', "as a mutation, but it is defined as a query"),
        ("counters:add", "[{}]", "argument 'name' is missing"),
        ("counters:add", '[{"name":"x","extra":1}]', "no argument 'extra'"),
        ("counters:add", '[{"name":5}]', "name"),
        ("counters:add", '[{"name":"x","by":"1"}]', "by"),
        ("counters:add", '[{"name":"x","by":true}]', "by"),
        ("counters:add", '[{"name":"x","by":{"$integer":"AQAAAAAAAAA="}}]', "by"),
        ("counters:add", '[{"name":"x","by":{"$integer":"AQ=="}}]', "by"),
        ("counters:add", '[{"name":"x","by":{"$set":[]}}]', "by"),
        ("items:remove", '[{"item":"nonsense"}]', "'nonsense' is not an id"),
        ("counters:add", "[[]]", "object"),
        ("counters:add", '["name"]', "object"),
        ("values:store", '[{"name":"x","content":{"$wrong":1}}]', "$wrong"),
        ("values:store", '[{"name":"x","content":{"ä":1}}]', "ä"),
        ("values:store", '[{"name":"x","content":' + "[" * 17 + "]" * 17 + "}]", "nest"),
        ("values:store", '[{"name":"x","content":[' + ",".join("1" * 8193) + "]}]", "8192"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_call_that_cannot_be_made_fails_alone(client: Socket, path: str, args: str, says: str) -> None:
    assert says in failure(client, path, args)
    client.send(type="Mutation", requestId=2, udfPath="counters:add", args=[{"name": "after"}])
    assert client.receive("MutationResponse")["success"]


@REFUSED_BEFORE
def test_arguments_nested_too_deep_fail_alone(client: Socket) -> None:
    assert "nest" in failure(client, "values:store", NESTED)


def test_an_id_of_another_table_is_named(server: Server, client: Socket) -> None:
    call(server, "mutation", "counters:add", {"name": "other table"})
    id = call(server, "query", "counters:id_of", {"name": "other table"}).json()["value"]
    error = failure(client, "items:remove", json.dumps([{"item": id}]))
    assert "'items'" in error
    assert "'counters'" in error


@REFUSED_BEFORE
@pytest.mark.parametrize("n", ["9007199254740994", "1e300", "1.5", "-9007199254740994"])
def test_an_integer_is_whole_and_one_that_a_float_holds_exactly(server: Server, n: str) -> None:
    answer = call(server, "query", "values:next_int", {"n": json.loads(n)}).json()
    assert answer["status"] == "error"
    assert "n" in answer["errorMessage"]
    assert call(server, "query", "values:next_int", {"n": 2**53 - 1}).json()["value"] == 2**53


@REFUSED_BEFORE
@pytest.mark.parametrize(
    "frame",
    [
        "",
        "not json",
        "[]",
        "null",
        '"text"',
        "{}",
        '{"type":5}',
        '{"type":"Unheard"}',
        '{"type":"Mutation"}',
        '{"type":"Mutation","requestId":-1,"udfPath":"a:b","args":[{}]}',
        '{"type":"Mutation","requestId":1.5,"udfPath":"a:b","args":[{}]}',
        '{"type":"Mutation","requestId":4294967296,"udfPath":"a:b","args":[{}]}',
        '{"type":"Mutation","requestId":1,"udfPath":"a:b","args":[{"x":NaN}]}',
        '{"type":"Mutation","requestId":1,"udfPath":"a:b","args":[{"x":1e999}]}',
        '{"type":"Mutation","requestId":1,"udfPath":"a:b","args":[{"x":"\\ud800"}]}',
        '{"type":"Action","requestId":1,"udfPath":null,"args":[{}]}',
        '{"type":"ModifyQuerySet","baseVersion":1,"newVersion":2,"modifications":[]}',
        '{"type":"ModifyQuerySet","baseVersion":0,"newVersion":0,"modifications":[]}',
        '{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[{"type":"Remove","queryId":9}]}',
        '{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[{"type":"Unheard","queryId":9}]}',
        '{"type":"Authenticate","baseVersion":7,"tokenType":"None"}',
        '{"type":"Authenticate","baseVersion":0,"tokenType":"Unheard"}',
        "[" * 100_000,
    ],
    ids=lambda frame: frame[:80],
)
def test_a_client_that_breaks_the_protocol_is_told_why_and_closed(client: Socket, frame: str) -> None:
    client.connection.send(frame)
    assert client.receive("FatalError")["error"]
    with pytest.raises(ConnectionClosed):
        client.receive("Transition")


def test_a_query_set_that_goes_back_is_told_both_versions(client: Socket) -> None:
    client.subscribe("counters:get", name="x")
    client.send(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[])
    error = client.receive("FatalError")["error"]
    assert "0" in error
    assert "1" in error


def test_a_query_id_that_is_taken_is_refused(client: Socket) -> None:
    add = {"type": "Add", "queryId": 3, "udfPath": "counters:get", "args": [{"name": "x"}]}
    client.send(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[add, add])
    assert "3" in client.receive("FatalError")["error"]


def test_binary_messages_are_read_or_refused_but_not_fatal_to_the_server(client: Socket) -> None:
    client.connection.send(b"\xff\xfe\x00")
    with pytest.raises(ConnectionClosed):
        client.receive("MutationResponse")


def test_a_frame_over_the_limit_closes_its_connection(client: Socket) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        client.connection.send("x" * (33 * 1024 * 1024))
        client.receive("Transition")
    assert closed.value.rcvd is None or closed.value.rcvd.code == 1009


def test_unknown_fields_and_events_are_nothing(client: Socket) -> None:
    client.send(type="Event", eventType="Unheard", event={"x": [1]}, more=1)
    client.send(type="Mutation", requestId=1, udfPath="counters:add", args=[{"name": "events"}], unknown={"y": 2})
    assert client.receive("MutationResponse")["success"]


@pytest.mark.sqlite_only("the bounds of a connection; ten thousand runs over Postgres take long")
def test_thousands_of_subscriptions_on_one_socket_are_served_up_to_the_limit(client: Socket) -> None:
    adds = [{"type": "Add", "queryId": id, "udfPath": "counters:get", "args": [{"name": f"many {id}"}]} for id in range(10_001)]
    client.send(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=adds[:10_000])
    assert len(client.receive("Transition")["modifications"]) == 10_000
    client.send(type="Mutation", requestId=1, udfPath="counters:add", args=[{"name": "many 7"}])
    assert client.updated()["queryId"] == 7
    client.send(type="ModifyQuerySet", baseVersion=1, newVersion=2, modifications=adds[10_000:])
    with pytest.raises(ConnectionClosed) as closed:
        client.receive("Unheard")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


def test_more_mutations_than_fit_the_queue_close_the_connection_for_a_while(client: Socket) -> None:
    frames = [
        f'{{"type":"Mutation","requestId":{id},"udfPath":"values:store","args":[{{"name":"q","content":null}}]}}' for id in range(20_000)
    ]
    with pytest.raises(ConnectionClosed) as closed:
        for frame in frames:
            client.connection.send(frame)
        client.receive("Unheard")
    if closed.value.rcvd is not None:
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "TooManyConcurrentMutations")


def memory_kib(server: Server) -> int:
    assert server.process is not None
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_a_reader_that_never_reads_costs_little_and_later_gets_the_latest_state(server: Server) -> None:
    """A hundred results of 1 MB that it does not take are not kept for it, nor is any snapshot."""
    with Socket(server.url) as writer, socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        raw.sendall(
            b"GET /api/1.48.0/sync HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b"101" in raw.recv(4096)
        hello = {"type": "Connect", "sessionId": "0bfe5125-8bbb-4938-9315-8fe38558da95", "connectionCount": 0, "lastCloseReason": None}
        add = {"type": "Add", "queryId": 0, "udfPath": "values:load", "args": [{"name": "big"}]}
        modify = {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [add]}
        for message in (hello, modify):
            payload = json.dumps(message).encode()
            raw.sendall(b"\x81\xfe" + len(payload).to_bytes(2, "big") + b"\0\0\0\0" + payload)
        before = 0
        for number in range(160):
            content = f"{number:03}" + "x" * 900_000
            writer.send(type="Mutation", requestId=number, udfPath="values:store", args=[{"name": "big", "content": content}])
            assert writer.receive("MutationResponse")["success"]
            if number == 60:  # the database's own caches are full
                before = memory_kib(server)
        assert memory_kib(server) - before < 20_000
        raw.settimeout(20)
        received = b""
        while b'"value":"159' not in received:
            received = received[-100:] + raw.recv(1 << 20)


def test_clients_without_parts_get_a_message_over_16_mib_in_smaller_frames(server: Server) -> None:
    """The official Python client refuses a larger frame."""
    with connect(f"ws{server.url.removeprefix('http')}/api/sync", proxy=None, max_size=None) as connection:
        hello = {"type": "Connect", "sessionId": "0bfe5125-8bbb-4938-9315-8fe38558da95", "connectionCount": 0, "lastCloseReason": None}
        connection.send(json.dumps(hello))
        adds = [
            {"type": "Add", "queryId": id, "udfPath": "values:repeat", "args": [{"text": "ä" * 5, "times": 1_000_000}]} for id in range(2)
        ]
        connection.send(json.dumps({"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": adds}))
        frames = [frame.encode() for frame in connection.recv_streaming()]
    assert max(map(len, frames)) <= 16 * 1024 * 1024
    message = json.loads(b"".join(frames))
    assert [len(item["value"]) for item in message["modifications"]] == [5_000_000] * 2


@REFUSED_BEFORE
def test_a_connection_that_says_nothing_is_pinged_not_dropped(server: Server) -> None:
    with Socket(server.url) as silent:
        assert silent.receive("Ping")


@REFUSED_BEFORE
@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.text(max_size=80),
            st.recursive(
                st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(["type", "requestId", "udfPath", "args", "modifications", "baseVersion"]), inner, max_size=4
                    )
                ),
                max_leaves=8,
            ).map(json.dumps),
            st.builds(
                lambda kind, id, path, args: json.dumps({"type": kind, "requestId": id, "udfPath": path, "args": args}),
                st.sampled_from(["Mutation", "Action", "Connect", "ModifyQuerySet", "Authenticate", "Event"]),
                st.integers(-1, 3),
                st.sampled_from(["counters:add", "counters:get", ":", ""]),
                st.lists(st.dictionaries(st.text(max_size=3), st.integers(), max_size=2), max_size=2),
            ),
        ),
        max_size=5,
    )
)
def test_no_sequence_of_frames_harms_the_server(server: Server, frames: list[str]) -> None:
    with Socket(server.url) as client:
        try:
            for frame in frames:
                client.connection.send(frame)
            client.connection.close()
        except ConnectionClosed:
            pass
    assert "Traceback" not in server.output()


@REFUSED_BEFORE
def test_an_upgrade_with_a_version_that_is_none_is_refused(server: Server) -> None:
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    reply = httpx.get(f"{server.url}/api/latest/sync", headers=headers, trust_env=False, verify=False)
    assert (reply.status_code, reply.json()["code"]) == (400, "InvalidClientVersion")


@REFUSED_BEFORE
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "BadJsonBody"),
        (b"{", 400, "BadJsonBody"),
        (b"[]", 400, "BadJsonBody"),
        (b'{"path":5,"args":{}}', 400, "BadJsonBody"),
        (b'{"path":"counters:add"}', 400, "BadJsonBody"),
        (b'{"path":"../x:y","args":{}}', 400, "BadConvexFunctionIdentifier"),
        (b'{"path":"counters:add","args":{},"format":"xml"}', 400, "BadFormat"),
        (b'{"path":"counters:add","args":{"name":"\\ud800"}}', 400, "BadJsonBody"),
        (b'{"path":"counters:add","args":{"name":"x","by":NaN}}', 400, "BadJsonBody"),
        (b'{"path":"counters:add","args":' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, "BadJsonBody"),
        (b"x" * (17 * 1024 * 1024), 413, "RequestTooLarge"),
        (b'{"path":"\xff\xfe","args":{}}', 400, "BadJsonBody"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_request_that_is_no_call_gets_a_code_and_a_message(server: Server, body: bytes, status: int, code: str) -> None:
    reply = httpx.post(
        f"{server.url}/api/mutation", content=body, headers={"content-type": "application/json"}, trust_env=False, verify=False
    )
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert reply.json()["message"]


@REFUSED_BEFORE
@pytest.mark.parametrize("garbage", [b"\x00" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"POST /api/query HTTP/1.1\r\nContent-Length: -5\r\n\r\n"])
def test_what_is_not_http_is_cut_off(server: Server, garbage: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(garbage)
        while raw.recv(4096):
            pass


def test_a_client_that_goes_away_in_the_middle_leaves_nothing_behind(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"POST /api/mutation HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    with Socket(server.url) as client:
        for id in range(50):
            client.send(type="Mutation", requestId=id, udfPath="counters:add", args=[{"name": "gone"}])
        client.connection.socket.shutdown(socket.SHUT_RDWR)
    eventually(lambda: "Traceback" not in server.output(), "no trace of it")
