"""A mutation that is sent again has its effect once, whatever came between."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reactor.server.app import Backend, open_backend
from reactor.server.logs import Logs
from reactor.server.settings import Settings
from reactor.testing import TestBackend
from tests.server.gates import gate
from tests.server.support import APP, SmallBackend, socket
from tests.support.sockets import Socket

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def backend(folder: Path) -> AsyncIterator[Backend]:
    """A node over the database in ``folder``."""
    logs = Logs(io.TextIOWrapper(io.BytesIO()), machine=False)
    try:
        async with open_backend(APP, Settings.model_validate({"db": folder / "test.db"}), logs) as node:
            yield node
    finally:
        logs.close()


async def test_a_mutation_sent_again_gets_its_first_answer_and_runs_no_more(t: TestBackend) -> None:
    async with socket(t) as first:
        answer = await first.response(first.mutate("notes:add", list="a", text="x"))
    await t.mutation("notes:add", list="a", text="between")
    async with socket(t, session=first.session) as again:
        assert await again.response(again.mutate("notes:add", request=0, list="a", text="x")) == answer
        assert await again.result(again.subscribe("notes:texts", list="a")) == ["x", "between"]


async def test_lines_of_the_first_time_in_development_are_not_sent_in_production() -> None:
    async with SmallBackend(APP) as t:
        async with socket(t) as first:
            answer = await first.response(first.mutate("notes:add", list="a", text="x"))
            assert answer["logLines"] == ["[LOG] 'adding x'"]
        t._runner.production = True
        async with socket(t, session=first.session) as again:
            assert await again.response(again.mutate("notes:add", request=0, list="a", text="x")) == {**answer, "logLines": []}


async def test_sent_again_on_the_same_connection_it_is_answered_the_same(t: TestBackend) -> None:
    async with socket(t) as client:
        answer = await client.response(client.mutate("notes:add", request=7, list="a", text="x"))
        client.responses.clear()
        assert await client.response(client.mutate("notes:add", request=7, list="a", text="x")) == answer
    assert await t.query("notes:texts", list="a") == ["x"]


async def test_sent_again_while_the_first_still_runs_it_waits_for_that_one(t: TestBackend) -> None:
    async with socket(t) as first:
        first.mutate("gated:add", name="twice", list="a", text="x")
        await gate("twice").reached.wait()
        await first.leave()  # the connection breaks, and the client sends it again on another
        async with socket(t, session=first.session) as again:
            request = again.mutate("gated:add", request=0, name="twice", list="a", text="x")
            again.modify()
            await again.transition()
            gate("twice").open()
            assert (await again.response(request))["success"]
    assert gate("twice").waiting == 1
    assert await t.query("notes:texts", list="a") == ["x"]


async def test_another_session_or_request_is_another_mutation(t: TestBackend) -> None:
    async with socket(t) as one, socket(t) as two:
        await one.response(one.mutate("notes:add", request=0, list="a", text="x"))
        await one.response(one.mutate("notes:add", request=1, list="a", text="x"))
        await two.response(two.mutate("notes:add", request=0, list="a", text="x"))
    assert await t.query("notes:texts", list="a") == ["x"] * 3


async def test_a_failed_mutation_is_not_remembered_and_runs_again(t: TestBackend) -> None:
    async with socket(t) as first:
        failed = await first.response(first.mutate("failing:first_time", list="a"))
        assert failed["success"] is False and failed["errorData"] == "empty"
    await t.mutation("notes:add", list="a", text="first")
    async with socket(t, session=first.session) as again:
        assert (await again.response(again.mutate("failing:first_time", request=0, list="a")))["result"] == "second"
    assert await t.query("notes:texts", list="a") == ["first", "second"]


async def test_a_mutation_that_wrote_nothing_is_answered_when_sent_again(t: TestBackend) -> None:
    async with socket(t) as first:
        answer = await first.response(first.mutate("notes:look", list="a"))
    async with socket(t, session=first.session) as again:
        repeated = await again.response(again.mutate("notes:look", request=0, list="a"))
    assert repeated["result"] == answer["result"]


async def test_a_mutation_is_remembered_over_a_restart_on_the_same_database(tmp_path: Path) -> None:
    async with backend(tmp_path) as node, Socket(node) as first:
        answer = await first.response(first.mutate("notes:add", list="a", text="x"))
        refused = await first.response(first.mutate("failing:first_time", list="b"))
        assert refused["success"] is False
    async with backend(tmp_path) as node, Socket(node, session=first.session) as again:
        again.connect(connectionCount=1, maxObservedTimestamp=answer["ts"])
        assert await again.response(again.mutate("notes:add", request=0, list="a", text="x")) == answer
        await again.response(again.mutate("notes:add", request=2, list="b", text="first"))
        assert (await again.response(again.mutate("failing:first_time", request=1, list="b")))["success"]
        assert await again.result(again.subscribe("notes:texts", list="a")) == ["x"]
        assert await again.result(again.subscribe("notes:texts", list="b")) == ["first", "second"]
