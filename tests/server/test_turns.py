"""Whoever asks for much at once, of what waits for nothing, is served in turns with all others."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

import reactor.functions.calls
import reactor.server.connection
from reactor.engine.live_query import LiveQueries
from reactor.functions.runner import Runner
from reactor.server.supervisor import _Board
from reactor.testing import TestBackend
from tests.server.gates import gate, turns
from tests.server.support import ADMIN_KEY, post, socket

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("what waits for nothing")]

MANY = 100


def adds(path: str, *, first: int = 0) -> list[dict[str, Any]]:
    return [{"type": "Add", "queryId": first + number, "udfPath": path, "args": [{"list": f"{number}"}]} for number in range(MANY)]


@pytest.fixture(autouse=True)
def no_breath(monkeypatch: pytest.MonkeyPatch) -> None:
    """One query at a time."""
    monkeypatch.setattr(reactor.server.connection, "BREATH_S", 0.0)


async def test_a_client_with_many_queries_does_not_hold_up_another(t: TestBackend) -> None:
    async with socket(t, direct=True) as greedy, socket(t, direct=True) as other:
        greedy.modify(*adds("notes:texts"))
        assert await other.result(other.subscribe("notes:texts", list="other")) == []
        assert greedy.unread == 0
        await greedy.reflected()
        assert len(greedy.results) == MANY


async def test_who_waits_for_many_queries_may_change_what_it_asks_for_and_is_answered_meanwhile(t: TestBackend) -> None:
    async with socket(t, direct=True) as client:
        client.modify(*adds("notes:texts"))
        await turns(10)
        client.modify({"type": "Remove", "queryId": MANY - 1})
        answer = await client.response(client.mutate("notes:add_to", lists=["0", f"{MANY - 2}", f"{MANY - 1}"], text="a"))
        assert answer["success"]
        await client.until(0, ["a"])
        await client.until(MANY - 2, ["a"])
        assert client.results[MANY - 1]["type"] == "QueryRemoved"


@pytest.mark.parametrize("later", range(6))
async def test_an_answer_does_not_wait_for_a_query_whenever_it_comes(t: TestBackend, later: int) -> None:
    async with socket(t, direct=True) as client:
        slow = {"type": "Add", "queryId": MANY, "udfPath": "gated:texts", "args": [{"name": "held", "list": "a"}]}
        client.modify(slow, *adds("notes:texts")[:2])
        await turns(later)
        client.mutate("failing:refuses", data=None)
        assert (await client.receive())["type"] == "MutationResponse"
        gate("held").open()
        await client.reflected()


async def test_a_query_that_another_client_has_seen_newer_meanwhile_is_told_of_it(t: TestBackend) -> None:
    last = f"{MANY - 1}"
    async with socket(t, direct=True) as greedy, socket(t, direct=True) as other:
        greedy.modify(*adds("notes:texts"))
        await turns(10)
        await t.mutation("notes:add", list=last, text="a")
        assert await other.result(other.subscribe("notes:texts", list=last)) == ["a"]
        assert greedy.unread == 0
        await greedy.until(MANY - 1, ["a"])


async def test_a_client_may_leave_while_its_queries_are_asked(t: TestBackend) -> None:
    async with socket(t, direct=True) as client:
        client.modify(*adds("notes:texts"))
        await turns(10)
    assert len(t._runner.engine.live) == 0
    assert t._runner.engine._pins._count == {}


async def test_all_results_of_a_transition_are_those_of_one_identity(t: TestBackend) -> None:
    async with socket(t, direct=True) as client:
        client.authenticate("Admin", ADMIN_KEY, impersonating={"issuer": "https://id", "subject": "ann"})
        client.modify(*adds("gated:at_once"))
        await turns(10)
        client.authenticate("None")
        assert (await client.transition())["endVersion"]["identity"] == 1
        assert {result["value"]["who"] for result in client.results.values()} == {"ann"}
        await client.reflected()
        assert {result["value"]["who"] for result in client.results.values()} == {None}


async def test_of_many_changes_of_identity_only_the_last_is_looked_at(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    subscribed = 0
    subscribe = LiveQueries.subscribe

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal subscribed
        subscribed += 1
        return subscribe(*args, **kwargs)

    monkeypatch.setattr(LiveQueries, "subscribe", counted)
    async with socket(t, direct=True) as client:
        client.modify(*adds("gated:at_once"))
        await client.reflected()
        runs, subscribed = t._runner.engine.live.runs, 0
        for _ in range(MANY):
            client.authenticate("Admin", ADMIN_KEY, impersonating={"issuer": "https://id", "subject": "ann"})
            client.authenticate("None")
        client.authenticate("Admin", ADMIN_KEY, impersonating={"issuer": "https://id", "subject": "bob"})
        await client.reflected()
        assert {result["value"]["who"] for result in client.results.values()} == {"bob"}
        assert (subscribed, t._runner.engine.live.runs) == (MANY, runs + MANY)


@pytest.mark.parametrize(
    ("session", "call"), [("", ("failing:refuses", {"data": None})), (None, ("notes:look", {"list": "a"}))], ids=["failing", "no session"]
)
async def test_mutations_that_wait_for_no_commit_do_not_run_in_one_turn(
    t: TestBackend, monkeypatch: pytest.MonkeyPatch, session: str | None, call: tuple[str, dict[str, Any]]
) -> None:
    ran = 0
    mutation = Runner.mutation

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal ran
        ran += 1
        return await mutation(*args, **kwargs)

    monkeypatch.setattr(Runner, "mutation", counted)
    path, args = call
    async with socket(t, direct=True, session=session) as client:
        for _ in range(MANY):
            client.mutate(path, **args)
        assert ran == 1
        await client.reflected()
        assert ran == MANY


async def passed_during(work: Coroutine[Any, Any, object]) -> int:
    """How many turns others had."""
    passed = 0

    async def others() -> None:
        nonlocal passed
        while True:
            passed += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(others())
    await work
    counting.cancel()
    return passed


async def test_the_queries_of_one_request_do_not_run_in_one_turn(t: TestBackend) -> None:
    asking = post(t, "/api/query_batch", {"queries": [{"path": "notes:texts", "args": {"list": "a"}}] * MANY})
    assert await passed_during(asking) >= MANY


async def test_what_an_action_calls_does_not_run_in_one_turn(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reactor.functions.calls, "TURN_S", 0.0)
    assert await passed_during(t.action("notes:look_often", list="a", times=MANY)) >= MANY


def test_a_node_that_runs_one_function_after_another_does_not_hang() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(_Board.SIZE)
        board = _Board(file.fileno())
        run = cast(Any, SimpleNamespace(path="notes:texts", args=b"{}"))
        for beats in (1, 2):
            board.note(run)
            assert board.beats == beats and board.noted() is not None
            board.note(None)
            assert board.beats == beats and board.noted() is None
