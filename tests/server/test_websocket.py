"""What a client that keeps to the protocol is told. ``Socket`` checks every message besides."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reactor.engine.live_query import LiveQuery
from reactor.engine.store import Row, Ts
from reactor.errors import StoreUnavailable
from reactor.stores.sqlite_snapshots import SqliteSnapshot
from reactor.testing import TestBackend
from tests.server import gates
from tests.server.gates import gate, turns
from tests.server.support import ADMIN_KEY, APP, SmallBackend, socket
from tests.support.sockets import Closed, Refused, Socket, ts_of
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio


async def test_a_subscription_gives_a_result_and_then_each_change(t: TestBackend) -> None:
    async with socket(t) as one, socket(t) as two:
        query = one.subscribe("notes:texts", list="a")
        assert await one.result(query) == []
        answer = await two.response(two.mutate("notes:add", list="a", text="hi"))
        await one.until(query, ["hi"])
        assert one.version[2] >= ts_of(answer["ts"])


async def test_answers_and_results_bring_what_was_printed() -> None:
    # Not the fixture's backend: pytest puts its own streams in place between a fixture and its test.
    async with SmallBackend(APP) as t, socket(t) as client:
        answer = await client.response(client.mutate("notes:add", list="a", text="hi"))
        assert answer["logLines"] == ["[LOG] 'adding hi'"]
        query = client.subscribe("values:speaks", text="hello")
        await client.reflected()
        assert client.results[query]["logLines"] == ["[LOG] 'hello'"]


async def test_an_empty_query_set_is_answered_too(t: TestBackend) -> None:
    async with socket(t) as client:
        client.modify()
        assert (await client.transition())["modifications"] == []
        assert client.version[0] == 1


async def test_one_transition_brings_every_result_from_one_snapshot(t: TestBackend) -> None:
    async with socket(t) as client:
        queries = [client.subscribe("notes:texts", list="a"), client.subscribe("notes:texts", list="b")]
        await client.reflected()
        action = client.act("notes:add_all", list="a", texts=["1", "2", "3"])
        await client.response(action)
        await client.until(queries[0], ["1", "2", "3"])
        assert await client.result(queries[1]) == []


async def test_the_response_comes_before_the_transition_that_covers_it_which_holds_its_effect(t: TestBackend) -> None:
    async with socket(t) as client:
        query = client.subscribe("notes:texts", list="a")
        await client.reflected()
        client.mutate("notes:add", list="a", text="x")
        response = await client.receive()
        transition = await client.receive()
        assert (response["type"], transition["type"]) == ("MutationResponse", "Transition")
        assert client.version[2] >= ts_of(response["ts"])
        assert [item["queryId"] for item in transition["modifications"]] == [query]


@pytest.mark.parametrize(("path", "args"), [("notes:look", {"list": "a"}), ("failing:refuses", {"data": 1}), ("nowhere:f", {})])
async def test_a_transition_follows_an_answer_that_changed_nothing(t: TestBackend, path: str, args: dict[str, Any]) -> None:
    async with socket(t) as client:
        client.mutate(path, **args)
        assert (await client.receive())["type"] == "MutationResponse"
        assert (await client.receive())["type"] == "Transition"


async def test_mutations_run_one_at_a_time_in_the_order_received(t: TestBackend) -> None:
    async with socket(t) as client:
        client.mutate("gated:add", name="order", list="a", text="first")
        client.mutate("notes:add", list="a", text="second")
        await gate("order").reached.wait()
        assert await t.query("notes:texts", list="a") == []
        gate("order").open()
        query = client.subscribe("notes:texts", list="a")
        assert await client.result(query) == ["first", "second"]


async def test_actions_run_beside_each_other_and_beside_mutations(t: TestBackend) -> None:
    async with socket(t) as client:
        held = client.act("gated:wait", name="beside")
        await gate("beside").reached.wait()
        other = client.act("notes:add_all", list="a", texts=["x"])
        client.mutate("notes:add", list="a", text="y")
        while other not in client.responses or 2 not in client.responses:
            await client.receive()
        assert held not in client.responses
        gate("beside").open()
        assert (await client.response(held))["result"] == "beside"


async def test_answers_do_not_wait_for_a_query_that_suspends(t: TestBackend) -> None:
    async with socket(t) as client:
        query = client.subscribe("gated:texts", name="suspended", list="a")
        await gate("suspended").reached.wait()
        acted = client.act("notes:add_all", list="b", texts=["x"])
        added = client.mutate("notes:add_to", lists=["b"], text="y")
        while not {acted, added} <= client.responses.keys():
            await client.receive()
        assert query not in client.results
        gate("suspended").open()
        assert await client.result(query) == []
        await client.reflected()


async def test_a_failed_query_stays_and_recovers(t: TestBackend) -> None:
    async with socket(t) as client:
        query = client.subscribe("failing:empty", list="a")
        assert await client.result(query) == "empty"
        await t.mutation("notes:add", list="a", text="x")
        failed = (await client.transition())["modifications"][0]
        assert failed["type"] == "QueryFailed" and failed["errorData"] == {"text": "x"}
        assert failed["errorMessage"].startswith("[Request ID: ")
        await t.mutation("notes:clear", list="a")
        await client.until(query, "empty")


@pytest.mark.parametrize("kind", ["mutate", "act"])
async def test_error_data_is_there_for_application_errors_only(t: TestBackend, kind: str) -> None:
    async with socket(t) as client:
        request = getattr(client, kind)
        refused = await client.response(request("failing:refuses" if kind == "mutate" else "failing:acts", data=None))
        assert refused["success"] is False and refused["errorData"] is None
        unknown = await client.response(request("nowhere:f"))
        assert "Could not find public function for 'nowhere:f'" in unknown["result"] and "errorData" not in unknown


@pytest.mark.parametrize(
    ("path", "args"),
    [("notes:nothing", {}), ("notes:add", {"list": "a", "text": "b"}), ("notes:texts", {}), ("notes:texts", {"list": 1}), ("no path!", {})],
    ids=["unknown", "a mutation", "argument missing", "argument mistyped", "no path"],
)
async def test_what_is_wrong_with_a_call_fails_that_call_alone(t: TestBackend, path: str, args: dict[str, Any]) -> None:
    async with socket(t) as client:
        bad = client.subscribe(path, **args)
        good = client.subscribe("notes:texts", list="a")
        assert await client.result(good) == []
        assert client.results[bad]["type"] == "QueryFailed"


@pytest.mark.parametrize("args", [[], [{"list": "a"}, {}], {"list": "a"}, None, [1], "x"])
async def test_arguments_that_are_not_a_list_of_one_object_fail_that_call_alone(t: TestBackend, args: object) -> None:
    async with socket(t) as client:
        client.send(type="Mutation", requestId=0, udfPath="notes:look", args=args)
        client._outstanding.append(0)
        answer = await client.response(0)
        # An object in the place of the list is what Python's client sends over HTTP; it is taken here too.
        assert answer["success"] is (args == {"list": "a"})


async def test_a_result_that_did_not_change_is_left_out(t: TestBackend) -> None:
    async with socket(t) as client:
        client.subscribe("notes:one", note=await t.mutation("notes:add", list="a", text="x"))
        failing = client.subscribe("failing:empty", list="a")
        growing = client.subscribe("notes:texts", list="a")
        await client.reflected()
        runs = t._engine.live.runs
        client.mutate("notes:add", list="a", text="y")
        assert [item["queryId"] for item in (await client.transition())["modifications"]] == [growing]
        # The failing one ran too, and failed the same way under another request id.
        assert t._engine.live.runs == runs + 2 and client.results[failing]["errorData"] == {"text": "x"}


async def test_a_query_removed_before_it_had_a_result_is_removed(t: TestBackend) -> None:
    async with socket(t) as client:
        query = client.subscribe("gated:texts", name="removed early", list="a")
        await gate("removed early").reached.wait()
        client.unsubscribe(query)
        gate("removed early").open()
        await client.reflected()
        assert client.results[query]["type"] == "QueryRemoved"


async def test_a_commit_while_a_query_runs_is_not_missed(t: TestBackend) -> None:
    async with socket(t) as client:
        query = client.subscribe("gated:texts", name="race", list="a")
        await gate("race").reached.wait()
        await t.mutation("notes:add", list="a", text="meanwhile")
        gate("race").open()
        await client.until(query, ["meanwhile"])


async def test_a_journal_keeps_the_end_of_a_page_over_a_reconnect(t: TestBackend) -> None:
    for text in "abc":
        await t.mutation("notes:add", list="p", text=text)
    options = {"numItems": 2, "cursor": None, "id": 1}
    async with socket(t) as client:
        query = client.subscribe("notes:page", list="p", paginationOpts=options)
        first = await client.result(query)
        journal = client.results[query]["journal"]
    async with socket(t, session=client.session) as again:
        resumed = again.subscribe("notes:page", list="p", paginationOpts=options | {"numItems": 3}, journal=journal)
        assert (await again.result(resumed))["page"] == first["page"]


async def test_a_journal_that_cannot_be_read_is_an_invalid_cursor(t: TestBackend) -> None:
    async with socket(t) as client:
        query = client.subscribe("notes:page", list="p", paginationOpts={"numItems": 2, "cursor": None}, journal="garbage")
        await client.reflected()
        assert "InvalidCursor" in client.results[query]["errorMessage"]
        assert client.results[query]["errorData"] == {"isConvexSystemError": True, "paginationError": "InvalidCursor"}


async def test_the_admin_key_acts_as_a_user_and_every_query_runs_again(t: TestBackend) -> None:
    async with socket(t) as client:
        query = client.subscribe("values:who")
        assert await client.result(query) is None
        client.authenticate("Admin", ADMIN_KEY, impersonating={"issuer": "https://id", "subject": "ann", "plan": {"seats": 3}})
        assert await client.result(query) == "https://id|ann"
        client.authenticate("Admin", ADMIN_KEY, acting_as={"tokenIdentifier": "https://id|bob"})
        assert await client.result(query) == "https://id|bob"
        client.authenticate("None")
        assert await client.result(query) is None
        assert client.version[1] == 3


async def test_one_with_the_admin_key_may_run_internal_functions_and_others_may_not(t: TestBackend) -> None:
    async with socket(t) as client:
        assert (await client.response(client.mutate("notes:hidden", list="a")))["success"] is False
        client.authenticate("Admin", ADMIN_KEY)
        assert (await client.response(client.mutate("notes:hidden", list="a")))["result"] == "hidden"


@pytest.mark.parametrize(("kind", "value"), [("User", "a.b.c"), ("Admin", "test|wrong"), ("Admin", "")])
async def test_a_credential_that_does_not_verify_is_an_auth_error(t: TestBackend, kind: str, value: str) -> None:
    async with socket(t) as client:
        client.authenticate("None")
        await client.reflected()
        client.authenticate(kind, value)
        code, reason, last = await client.closed()
        assert last is not None
        assert (code, reason, last["type"]) == (1000, "", "AuthError")
        assert (last["baseVersion"], last["authUpdateAttempted"]) == (1, True)


async def test_a_client_without_connect_is_served(t: TestBackend) -> None:
    async with socket(t, session=None) as client:
        client.authenticate("None")
        query = client.subscribe("notes:texts", list="a")
        first = await client.response(client.mutate("notes:add", request=0, list="a", text="x"))
        assert first["success"] and await client.result(query) == ["x"]
    async with socket(t, session=None) as other:
        # There is no session, so the same request id is another request.
        await other.response(other.mutate("notes:add", request=0, list="a", text="x"))
        assert await other.result(other.subscribe("notes:texts", list="a")) == ["x", "x"]


async def test_a_client_that_has_seen_a_newer_database_is_sent_away_to_try_again(t: TestBackend) -> None:
    async with socket(t, session=None) as client:
        client.session = str(uuid.uuid4())
        client.connect(maxObservedTimestamp="/////////38=")
        assert await client.closed() == (1011, "InternalServerError", None)


@pytest.mark.sqlite_only("its snapshot is made to fail; tests/cluster ends a real Postgres")
@pytest.mark.parametrize("waits", [False, True])
async def test_a_client_whose_queries_find_no_database_is_sent_away_to_ask_again(
    t: TestBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, waits: bool
) -> None:
    async def away(self: SqliteSnapshot, *args: Any, **kwargs: Any) -> list[Row]:
        if waits:
            await asyncio.sleep(0)
        raise StoreUnavailable("the database does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteSnapshot, "scan", away)
        async with socket(t) as client:
            for name in "ab":
                client.subscribe("notes:texts", list=name)
            assert await client.closed() == (1011, "InternalServerError", None)
            assert client.results == {}
    assert "its client comes again: the database does not answer" in caplog.text
    async with socket(t, session=client.session) as again:
        assert await again.result(again.subscribe("notes:texts", list="a")) == []


async def test_a_client_that_has_seen_the_newest_commit_is_served(t: TestBackend) -> None:
    async with socket(t) as client:
        ts = (await client.response(client.mutate("notes:add", list="a", text="x")))["ts"]
    async with socket(t, session=None) as again:
        again.session = client.session
        again.connect(maxObservedTimestamp=ts, connectionCount=1)
        assert await again.result(again.subscribe("notes:texts", list="a")) == ["x"]
        assert again.version[2] >= ts_of(ts)


async def test_all_who_watch_a_query_are_sent_the_same_but_for_their_clocks(t: TestBackend) -> None:
    server_ms = t.runtime.now_ns() // 1_000_000
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(socket(t, session=None, direct=True)) for _ in range(10)]
        queries = []
        for number, client in enumerate(clients):
            client.session = str(uuid.uuid4())
            client.connect(clientTs=server_ms + 10**number)  # each skew has its own length on the wire
            queries.append(client.subscribe("notes:texts", list="a"))
            await client.reflected()
        other = clients[0].subscribe("notes:texts", list="b")
        await clients[0].reflected()
        for text in "xyz":
            before = [client.stepped for client in clients]
            await t.mutation("notes:add", list="a", text=text)
            sent = [await client.transition() for client in clients]
            # The first of them has it computed, and the others find it, with the bytes.
            assert all(client.stepped == count + 1 for client, count in zip(clients, before, strict=True))
            assert [transition.pop("clientClockSkew") for transition in sent] == [10**number for number in range(10)]
            assert sent[1:] == sent[1:2] * 9
            assert sent[0]["modifications"] == sent[1]["modifications"] and len(sent[0]["modifications"]) == 1
        # Both of its queries at once, and its own answers before what covers them.
        answer = await clients[0].response(clients[0].mutate("notes:add_to", lists=["a", "b"], text="w"))
        assert clients[0].version[2] >= ts_of(answer["ts"])
        assert clients[0].results[other]["value"] == ["w"]
        for client, query in zip(clients, queries, strict=True):
            await client.until(query, [*"xyzw"])


@contextlib.asynccontextmanager
async def waiting_for_a_run(t: TestBackend, count: int) -> AsyncIterator[list[Socket]]:
    """Clients whose query has run again for a commit, and stands before the gate "run"."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(socket(t, direct=True)) for _ in range(count)]
        gate("run").open()
        for client in clients:
            client.subscribe("gated:texts", name="run", list="a")
            await client.reflected()
        gates.forget()
        await t.mutation("notes:add", list="a", text="x")
        await gate("run").reached.wait()
        # They wait for it together, without a task each.
        connections = t._server.connections._open
        await eventually_async(lambda: sum(each._awaited is not None for each in connections) == count, "all to wait for it")
        yield clients


async def test_who_waits_for_a_run_is_answered_meanwhile(t: TestBackend) -> None:
    async with waiting_for_a_run(t, 3) as clients:
        for client in clients:
            request = client.mutate("notes:add", list="b", text="y")
            assert (await client.receive())["requestId"] == request
        gate("run").open()
        for client in clients:
            await client.until(0, ["x"])
            await client.reflected()


async def test_who_waits_for_a_run_may_change_what_it_asks_for_or_go(t: TestBackend) -> None:
    async with waiting_for_a_run(t, 6) as clients:
        begun, less, more, other, gone, patient = clients
        less.unsubscribe(0)
        await less.reflected()
        query = more.subscribe("notes:texts", list="a")
        other.authenticate("Admin", ADMIN_KEY, impersonating={"subject": "ann"})
        await gone.leave()
        await turns(10)
        assert 0 in more.results and query not in more.results, "both of its queries are shown at one ts"
        gate("run").open()
        for client in (begun, more, other, patient):
            await client.until(0, ["x"])
            await client.reflected()
        assert more.results[query]["value"] == ["x"]
    assert not len(t._engine.live)


async def test_who_waits_for_a_run_learns_of_commits_meanwhile_too(t: TestBackend) -> None:
    async with waiting_for_a_run(t, 4) as clients:
        for text in "yz":
            await t.mutation("notes:add", list="a", text=text)
        gate("run").open()
        for client in clients:
            await client.until(0, [*"xyz"])
        # What suspended for so long was true when it began, and those who waited were shown it.
        assert [client.frames for client in clients] == [clients[0].frames] * 4


async def test_who_waits_for_a_run_that_gets_no_answer_from_the_database_asks_again(
    t: TestBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = LiveQuery._settle

    def fails_once(self: Any, *args: Any) -> None:
        monkeypatch.setattr(LiveQuery, "_settle", settle)
        raise StoreUnavailable("the database does not answer")

    async with waiting_for_a_run(t, 3) as clients:
        monkeypatch.setattr(LiveQuery, "_settle", fails_once)
        gate("run").open()
        for client in clients:
            await client.until(0, ["x"])


async def test_who_gets_no_answer_from_the_database_a_second_time_is_closed(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, *args: Any) -> None:
        raise StoreUnavailable("the database does not answer")

    async with waiting_for_a_run(t, 3) as (begun, *_):
        monkeypatch.setattr(LiveQuery, "_settle", fails)
        gate("run").open()
        assert (await begun.closed())[:2] == (1011, "InternalServerError")


async def test_the_clock_skew_is_told_once_the_client_has_told_its_clock(t: TestBackend) -> None:
    server_ms = t.runtime.now_ns() // 1_000_000
    async with socket(t, session=None) as client:
        client.modify()
        assert "clientClockSkew" not in await client.transition()
        client.session = str(uuid.uuid4())
        client.connect(clientTs=server_ms - 12)
        client.modify()
        transition = await client.transition()
        assert (transition["clientClockSkew"], transition["serverTs"]) == (-12, t.runtime.now_ns())


@pytest.mark.parametrize("event", [None, [], {"a": 1}, 3])
async def test_events_are_ignored_whatever_they_say(t: TestBackend, event: object) -> None:
    async with socket(t) as client:
        client.send(type="Event", eventType="Whatever", event=event)
        assert await client.result(client.subscribe("notes:texts", list="a")) == []


async def test_fields_that_nobody_knows_are_ignored(t: TestBackend) -> None:
    async with socket(t) as client:
        client.send(type="Mutation", requestId=0, udfPath="notes:look", args=[{"list": "a"}], componentPath="", later=[1])
        client._outstanding.append(0)
        assert (await client.response(0))["result"] == 0


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("/api/sync", "python-0.8.1"),
        ("/api/sync", "anything-1.2.3"),
        ("/api/sync", None),
        ("/api/0.0.1/sync", None),
        ("/api/1.48.0-alpha.1/sync", None),
        ("//api/1.48.0/sync", None),
    ],
)
async def test_every_client_is_served_that_says_a_version_or_none(t: TestBackend, path: str, header: str | None) -> None:
    async with socket(t, path=path, header=header) as client:
        assert await client.result(client.subscribe("notes:texts", list="a")) == []


@pytest.mark.parametrize(("path", "header"), [("/api/one/sync", None), ("/api/1.2/sync", None), ("/api/sync", "python")])
async def test_a_malformed_version_is_refused(t: TestBackend, path: str, header: str | None) -> None:
    with pytest.raises(Refused) as refused:
        async with socket(t, path=path, header=header):
            pass
    assert refused.value.status == 400 and b'"code":"InvalidClientVersion"' in refused.value.body


@pytest.mark.parametrize("path", ["/", "/api/sync/x", "/api/a/b/sync", "/sync"])
async def test_no_socket_is_served_elsewhere(t: TestBackend, path: str) -> None:
    with pytest.raises(Closed) as closed:
        async with socket(t, path=path):
            pass
    assert closed.value.reason == "NotFound"


async def test_a_stop_lets_what_runs_end_answers_it_and_closes(t: TestBackend) -> None:
    async with socket(t) as client:
        request = client.mutate("gated:add", name="stop", list="a", text="x")
        await gate("stop").reached.wait()
        stopping = asyncio.ensure_future(t._server.connections.stop(5))
        gate("stop").open()
        code, reason, _ = await client.closed()
        await stopping
        assert (code, reason) == (1001, "InternalServerError")
        assert client.responses[request]["success"]
        with pytest.raises(Refused):
            async with socket(t):
                pass


async def test_a_mutation_ends_although_its_client_went(t: TestBackend) -> None:
    async with socket(t) as client:
        client.mutate("gated:add", name="gone", list="a", text="x")
        await gate("gone").reached.wait()
        await client.leave()
        gate("gone").open()
    async for texts in t.subscribe("notes:texts", list="a"):
        if texts == ["x"]:
            break
    assert len(t._server.connections) == 0
    t._engine.live.check_invariants()


@pytest.mark.parametrize("turns_later", range(12))
async def test_a_client_that_leaves_while_its_queries_wait_leaves_no_snapshot_pinned(t: TestBackend, turns_later: int) -> None:
    async with socket(t) as client:
        client.subscribe("gated:slowly", list="a")
        await turns(turns_later)
    engine = t._runner.engine
    await eventually_async(lambda: engine._pins.oldest(Ts(engine.head_ts + 1)) > engine.head_ts, "every snapshot to be released")
