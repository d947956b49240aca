"""The official Python clients, unchanged, against a live server."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from convex import ConvexClient, ConvexError, ConvexInt64
from convex.http_client import ConvexHttpClient

from tests.support.databases import Databases
from tests.support.server import Server


@pytest.fixture(scope="module")
def server(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def client(server: Server) -> ConvexClient:
    return ConvexClient(server.url)


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """The client blocks, with the interpreter to itself, until a value comes: an alarm ends what would wait for ever."""

    def fail(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the client waited in vain")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Watch:
    """A subscription, and what it has given so far."""

    def __init__(self, client: ConvexClient, path: str, args: dict[str, Any]) -> None:
        self.seen: list[Any] = []
        self.subscription = client.subscribe(path, args)

    def next(self) -> Any:
        try:
            self.seen.append(next(self.subscription))
        except ConvexError as error:
            self.seen.append(error)
        return self.seen[-1]

    def until(self, value: Any) -> None:
        while self.next() != value:
            continue


def test_queries_mutations_and_actions(client: ConvexClient) -> None:
    assert client.query("counters:get", {"name": "py"}) == 0
    assert client.mutation("counters:add", {"name": "py", "by": 2}) == 2
    assert client.action("counters:add_twice", {"name": "py"}) == 4
    assert client.query("counters:get", {"name": "py"}) == 4


def test_a_subscription_sees_each_change_of_its_own_and_of_other_clients(server: Server, client: ConvexClient) -> None:
    watch = Watch(client, "counters:get", {"name": "py live"})
    watch.until(0)
    client.mutation("counters:add", {"name": "py live"})
    watch.until(1)
    ConvexClient(server.url).mutation("counters:add", {"name": "py live"})
    watch.until(2)
    assert watch.seen == [0, 1, 2]


@pytest.mark.parametrize(
    "value",
    [None, True, 1.5, "日本", b"\x00\xff", ConvexInt64(2**63 - 1), [1.0, [b""]], {"a": {"b": [None]}}],
    ids=repr,
)
def test_every_kind_of_value_comes_back_as_it_was(client: ConvexClient, value: Any) -> None:
    assert client.query("values:echo", {"value": value}) == value
    client.mutation("values:store", {"name": repr(value), "content": value})
    assert client.query("values:load", {"name": repr(value)}) == value


def test_declared_int64_and_bytes(client: ConvexClient) -> None:
    assert client.query("values:next_int64", {"n": ConvexInt64(41)}) == ConvexInt64(42)
    assert client.query("values:reverse_bytes", {"data": b"abc"}) == b"cba"


@pytest.mark.parametrize("kind", ["query", "mutation", "action"])
def test_an_application_error_has_its_data(client: ConvexClient, kind: str) -> None:
    with pytest.raises(ConvexError) as refused:
        getattr(client, kind)(f"failing:{kind}_refuses", {"data": {"code": "Full", "seats": 0}})
    assert refused.value.data == {"code": "Full", "seats": 0}


def test_any_other_failure_is_a_plain_error(client: ConvexClient) -> None:
    with pytest.raises(Exception, match="Server Error") as failed:
        client.mutation("failing:crashes", {})
    assert not isinstance(failed.value, ConvexError)
    with pytest.raises(Exception, match="Could not find public function for 'nowhere:at_all'"):
        client.query("nowhere:at_all", {})


def test_a_live_querys_error_comes_and_goes(client: ConvexClient) -> None:
    watch = Watch(client, "failing:refuses_above", {"name": "py guarded", "limit": 1})
    watch.until(0)
    client.mutation("counters:add", {"name": "py guarded", "by": 2})
    assert watch.next().data == {"count": 2}
    client.mutation("counters:add", {"name": "py guarded", "by": -1})
    watch.until(1)


def test_it_goes_on_when_the_server_was_killed_and_started_again(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        client = ConvexClient(server.url)
        watch = Watch(client, "counters:get", {"name": "py restart"})
        assert client.mutation("counters:add", {"name": "py restart"}) == 1
        watch.until(1)
        server.kill()
        server.start()
        assert client.mutation("counters:add", {"name": "py restart"}) == 2
        watch.until(2)
        assert client.query("counters:get", {"name": "py restart"}) == 2


def test_the_http_client(server: Server) -> None:
    client = ConvexHttpClient(server.url)
    assert client.query("counters:get", {"name": "py http"}) == 0
    assert client.mutation("counters:add", {"name": "py http", "by": 2}) == 2
    assert client.action("counters:add_twice", {"name": "py http"}) == 4
    assert client.query("values:echo", {"value": [b"\x00", ConvexInt64(7), 4.0]}) == [b"\x00", ConvexInt64(7), 4.0]
    with pytest.raises(ConvexError) as refused:
        client.mutation("failing:mutation_refuses", {"data": [1.0]})
    assert refused.value.data == [1.0]
