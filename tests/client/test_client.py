"""The asyncio client against a real server, over connections that break, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from reactor import AppError, AuthenticationError, ConnectionLost, Int64, LimitExceeded, RemoteError, ValueFormatError
from reactor.client import Client
from reactor.client.state import Event, State
from reactor.errors import ProtocolError
from reactor.limits import DEFAULT_LIMITS
from tests.client.network import misbehaving, plugged
from tests.client.peer import state_version
from tests.support.databases import Databases
from tests.support.server import Server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server
        server.kill()  # actions that never end would have it wait


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with Client(server.url) as client:
        yield client


@pytest.fixture(autouse=True)
async def deadline() -> AsyncIterator[None]:
    """Nothing here may wait for ever."""
    test = asyncio.current_task()
    assert test is not None
    alarm = asyncio.get_running_loop().call_later(60, test.cancel, "waited in vain")
    yield
    alarm.cancel()


async def at_once(seconds: float) -> None:
    await asyncio.sleep(0)


# --- calls


async def test_queries_mutations_and_actions(client: Client) -> None:
    assert await client.query("counters:get", name="calls") == 0
    assert await client.mutation("counters:add", {"name": "calls"}, by=2) == 2
    assert await client.action("counters:add_twice", {"name": "calls"}) == 4


async def test_every_kind_of_value_comes_back_as_it_was(client: Client) -> None:
    value: list[object] = [None, True, -0.0, 1.5, "日本", b"\x00\xff", Int64(2**63 - 1), {"a": {"b": []}}]
    assert repr(await client.query("values:echo", value=value)) == repr(value)


@pytest.mark.parametrize("kind", ["query", "mutation", "action"])
async def test_an_application_error_has_its_data(client: Client, kind: str) -> None:
    with pytest.raises(AppError) as refused:
        await getattr(client, kind)(f"failing:{kind}_refuses", data={"code": "Full", "seats": Int64(0)})
    assert refused.value.data == {"code": "Full", "seats": Int64(0)}


@pytest.mark.parametrize("kind", ["query", "mutation", "action"])
async def test_any_other_failure_is_a_remote_error(client: Client, kind: str) -> None:
    with pytest.raises(RemoteError, match="Could not find public function for 'nowhere:at_all'"):
        await getattr(client, kind)("nowhere:at_all")


async def test_arguments_that_cannot_be_sent_are_refused_before_they_are(client: Client) -> None:
    with pytest.raises(ValueFormatError, match="complex"):
        await client.query("values:echo", value=1j)
    with pytest.raises(LimitExceeded):
        await client.mutation("values:store", content="x" * DEFAULT_LIMITS.frame_size_bytes)


async def test_more_mutations_at_once_than_a_server_queues(client: Client) -> None:
    count = DEFAULT_LIMITS.mutations_queued_per_session + 200
    results = await asyncio.gather(*(client.mutation("counters:add", name="many") for _ in range(count)))
    assert results == [n + 1.0 for n in range(count)]


# --- subscriptions


async def test_a_subscription_sees_each_change_of_its_own_and_of_other_clients(client: Client, server: Server) -> None:
    counts = client.subscribe("counters:get", name="live")
    assert await anext(counts) == 0
    await client.mutation("counters:add", name="live")
    assert await anext(counts) == 1
    async with Client(server.url) as other:
        await other.mutation("counters:add", name="live")
    assert await anext(counts) == 2


async def test_a_mutation_returns_when_this_clients_queries_show_it(client: Client) -> None:
    live = client.subscribe("counters:get", name="own")
    for count in range(1, 20):
        assert await client.mutation("counters:add", name="own") == count
        assert await client.query("counters:get", name="own") == count
        assert await anext(live) == count


async def test_who_takes_results_slowly_skips_to_the_newest(client: Client) -> None:
    counts = client.subscribe("counters:get", name="slow")
    assert await anext(counts) == 0
    for _ in range(10):
        await client.mutation("counters:add", name="slow")
    assert await anext(counts) == 10


async def test_a_live_querys_error_is_raised_and_the_same_subscription_goes_on(client: Client) -> None:
    guarded = client.subscribe("failing:refuses_above", name="guarded", limit=1)
    assert await anext(guarded) == 0
    await client.mutation("counters:add", name="guarded", by=2)
    with pytest.raises(AppError) as refused:
        await anext(guarded)
    assert refused.value.data == {"count": 2}
    await client.mutation("counters:add", name="guarded", by=-1)
    assert [await anext(guarded)] == [1]


@pytest.mark.parametrize("end", ["break", "aclose"])
async def test_a_subscription_that_is_left_is_no_longer_watched(client: Client, end: str) -> None:
    if end == "break":
        async for _ in client.subscribe("counters:get", name="left"):
            break
    else:
        async with aclosing(client.subscribe("counters:get", name="left")) as counts:
            await anext(counts)
            waiting = asyncio.create_task(anext(counts, "the end"))
            await asyncio.sleep(0)
        assert await waiting == "the end"
    gc.collect()
    await asyncio.sleep(0)
    assert not client._state.queries


async def test_a_result_too_large_for_one_frame_arrives_in_chunks(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    frames: list[str] = []
    receive = State.receive

    def spy(state: State, frame: str) -> list[Event]:
        frames.append(frame)
        return receive(state, frame)

    monkeypatch.setattr(State, "receive", spy)
    value = "é" * 3_500_000
    assert await client.query("values:echo", value=value) == value
    assert sum(json.loads(frame)["type"] == "TransitionChunk" for frame in frames) > 1
    assert max(len(frame.encode()) for frame in frames) < 6_000_000


# --- connections that break


async def test_mutations_whose_answers_were_lost_are_applied_once_and_give_their_first_result(server: Server, client: Client) -> None:
    keys = [f"{number:03}" for number in range(50)]
    seen = client.subscribe("entries:keys", log="cut")
    async with plugged(server.url) as cable, Client(cable.url, sleep=at_once) as cut:
        assert await cut.mutation("counters:add", name="cut") == 1
        cable.muted = True
        increment = asyncio.create_task(cut.mutation("counters:add", name="cut"))
        appends = [asyncio.create_task(cut.mutation("entries:append", log="cut", key=key)) for key in keys]
        while await anext(seen) != keys:
            pass  # the server has applied them all, and the answers do not arrive
        assert not increment.done()
        await client.mutation("counters:add", name="cut", by=100)
        cable.cut()
        assert await increment == 2
        assert await asyncio.gather(*appends) == keys
        assert await cut.query("entries:keys", log="cut") == keys
        assert await cut.query("counters:get", name="cut") == 102


async def test_an_action_under_way_is_lost_with_its_connection_and_live_queries_go_on(server: Server) -> None:
    async with plugged(server.url) as cable, Client(cable.url, sleep=at_once) as client:
        counts = client.subscribe("counters:get", name="action")
        assert await anext(counts) == 0
        hanging = asyncio.create_task(client.action("counters:hang", name="action"))
        assert await anext(counts) == 1, "it runs"
        cable.cut()
        with pytest.raises(ConnectionLost, match="counters:hang"):
            await hanging
        await client.mutation("counters:add", name="action")
        assert await anext(counts) == 2, "it did not run again"


async def test_a_query_after_a_lost_connection_does_not_answer_from_before(server: Server, client: Client) -> None:
    reconnecting, go = asyncio.Event(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        reconnecting.set()
        await go.wait()

    async with plugged(server.url) as cable, Client(cable.url, sleep=sleep) as cut:
        counts = cut.subscribe("counters:get", name="fresh")
        assert await anext(counts) == 0
        cable.cut()
        await reconnecting.wait()
        await client.mutation("counters:add", name="fresh")
        answer = asyncio.create_task(cut.query("counters:get", name="fresh"))
        await asyncio.sleep(0)
        go.set()
        assert await answer == 1


async def test_the_waits_start_over_after_a_connection_that_did_its_work(server: Server) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with plugged(server.url) as cable, Client(cable.url, sleep=sleep, random=lambda: 0.5) as client:
        for _ in range(3):
            await client.mutation("counters:add", name="again")
            cable.cut()
        assert await client.mutation("counters:add", name="again") == 4
    assert waits == [1, 1, 1]


async def test_it_goes_on_when_the_server_was_killed_under_mutations_and_started_again(tmp_path: Path) -> None:
    keys = [f"{number:03}" for number in range(200)]
    with Server(tmp_path) as server:
        async with Client(server.url, sleep=lambda seconds: asyncio.sleep(0.05)) as client:
            entries = client.subscribe("entries:count", log="killed")
            sent = [asyncio.create_task(client.mutation("entries:append", log="killed", key=key)) for key in keys]
            while await anext(entries) == 0:
                pass
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            assert await asyncio.gather(*sent) == keys
            assert await client.query("entries:keys", log="killed") == keys
            server.kill()


async def test_what_waits_when_the_client_is_closed_is_told(server: Server) -> None:
    client = Client(server.url)
    counts = client.subscribe("counters:get", name="closed")
    hanging = asyncio.create_task(client.action("counters:hang", name="closed"))
    while await anext(counts) != 1:
        pass
    waiting = asyncio.create_task(anext(counts))
    await asyncio.sleep(0)
    await client.close()
    for call in (hanging, waiting, client.query("counters:get", name="closed"), client.set_auth(None)):
        with pytest.raises(ConnectionLost, match="closed"):
            await call


async def test_a_call_that_is_cancelled_disturbs_nothing(client: Client) -> None:
    call = asyncio.create_task(client.mutation("counters:add", name="cancelled"))
    await asyncio.sleep(0)
    call.cancel()
    assert await client.mutation("counters:add", name="cancelled") == 2


# --- identity


@pytest.mark.parametrize("way", ["query", "subscribe"])
async def test_nothing_is_kept_of_a_query_whose_wait_was_cancelled(client: Client, way: str) -> None:
    async def waits() -> None:
        if way == "query":
            await client.query("counters:get", name="given up")
            return
        async for _ in client.subscribe("counters:get", name="given up"):
            got.set()

    got = asyncio.Event()
    waiting = asyncio.create_task(waits())
    await (asyncio.sleep(0) if way == "query" else got.wait())
    assert client._state.queries
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    del waiting
    gc.collect()
    await asyncio.sleep(0)
    assert not client._state.queries and not client._changes


async def test_after_a_refused_token_every_call_is_refused_until_another_is_set(client: Client) -> None:
    counts = client.subscribe("counters:get", name="nobody")
    assert await anext(counts) == 0
    waiting = asyncio.create_task(anext(counts))
    with pytest.raises(AuthenticationError, match="No identity provider"):
        await client.set_auth("a.b.c")
    for call in (waiting, client.mutation("counters:add", name="nobody"), anext(counts)):
        with pytest.raises(AuthenticationError):
            await call
    await client.set_auth(None)
    assert await client.mutation("counters:add", name="nobody") == 1
    assert await anext(counts) == 1


# --- servers that misbehave


async def test_after_what_is_no_message_it_begins_anew() -> None:
    words = ["garbage", '{"type":"Unheard"}', json.dumps({"type": "Transition", "startVersion": state_version(1)})]
    async with misbehaving(*words) as (url, connects), Client(url, sleep=at_once) as client:
        assert await client.query("a:b") == "good"
    assert [connect["connectionCount"] for connect in connects] == [0, 1, 2, 3]
    assert len({connect["sessionId"] for connect in connects}) == 1
    assert [connect["lastCloseReason"].split(":")[0] for connect in connects] == ["InitialConnect"] + ["ProtocolError"] * 3


async def test_a_server_that_falls_silent_is_given_up() -> None:
    async with misbehaving(None) as (url, connects), Client(url, sleep=at_once, silent_server_s=0.05) as client:
        assert await client.query("a:b") == "good"
    assert connects[1]["lastCloseReason"] == "InactiveServer"


async def test_after_a_fatal_error_it_stays_away_and_says_why() -> None:
    async with misbehaving('{"type":"FatalError","error":"You again"}') as (url, connects), Client(url, sleep=at_once) as client:
        for _ in range(2):
            with pytest.raises(ProtocolError, match="You again"):
                await client.query("a:b")
    assert len(connects) == 1


async def test_it_waits_longer_after_each_attempt_that_fails() -> None:
    waits: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 8:
            enough.set()
            await asyncio.Event().wait()

    async with Client("http://127.0.0.1:1", sleep=sleep, random=lambda: 0.5):
        await enough.wait()
    assert waits == [1, 2, 4, 8, 16, 16, 16, 16]
