"""Faults under load: nothing that was acknowledged is lost or happens twice, and no live query is wrong in the end.

All in one cluster, one after the other, each several times. ``REACTOR_TEST_LONG=1`` repeats them more often.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import httpx
import pytest

from tests.cluster.cluster import Cluster, settle
from tests.cluster.conftest import Figures
from tests.cluster.load import ACCOUNTS, BALANCE, Load
from tests.support.postgres import PostgresServer
from tests.support.server import Server
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

LONG = bool(os.environ.get("REACTOR_TEST_LONG"))


@dataclass
class Scene:
    two: Cluster
    postgres: PostgresServer
    load: Load


@pytest.fixture
async def scene(two: Cluster, postgres: PostgresServer) -> AsyncIterator[Scene]:
    """The cluster under load."""
    async with two.loaded() as load:
        yield Scene(two, postgres, load)


async def kill_node(scene: Scene) -> None:
    node = scene.two.nodes[0]
    node.kill()
    await scene.load.more(20)
    await asyncio.to_thread(node.start)


async def stop_node_for_10_s(scene: Scene) -> None:
    scene.two.nodes[0].pause()
    await asyncio.sleep(10)
    scene.two.nodes[0].resume()


async def restart_postgres(scene: Scene) -> None:
    await asyncio.to_thread(scene.postgres.restart)


async def kill_postgres(scene: Scene) -> None:
    await asyncio.to_thread(scene.postgres.kill)
    await asyncio.to_thread(scene.postgres.start)


async def cut_connections(scene: Scene) -> None:
    scene.two.back.cut()


async def reset_connections(scene: Scene) -> None:
    scene.two.back.reset()


async def silence_connections_for_ever(scene: Scene) -> None:
    scene.two.back.silence()


async def stall_connections_for_5_s(scene: Scene) -> None:
    scene.two.back.flowing.clear()
    await asyncio.sleep(5)
    scene.two.back.flowing.set()


async def lose_the_answer_to_a_commit(scene: Scene) -> None:
    back = scene.two.back
    lost = back.lost
    back.lose_answer_to = b"NOTIFY reactor_commits; COMMIT"
    await eventually_async(lambda: back.lost > lost, "an answer to a COMMIT to be lost")


async def cut_clients(scene: Scene) -> None:
    scene.two.front.cut()


#: And how often each comes in one test.
FAULTS: dict[Callable[[Scene], Awaitable[None]], int] = {
    kill_node: 2,
    stop_node_for_10_s: 1,
    restart_postgres: 2,
    kill_postgres: 2,
    cut_connections: 5,
    reset_connections: 5,
    silence_connections_for_ever: 1,
    stall_connections_for_5_s: 1,
    lose_the_answer_to_a_commit: 5,
    cut_clients: 5,
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_nothing_is_lost_or_doubled_by(
    fault: Callable[[Scene], Awaitable[None]], scene: Scene, figures: Figures, capsys: pytest.CaptureFixture[str]
) -> None:
    took: list[float] = []
    recovered: list[float] = []
    silent: list[float] = []
    for _ in range(FAULTS[fault] * (5 if LONG else 1)):
        await scene.load.more(50)
        began = time.monotonic()
        await fault(scene)
        over = time.monotonic()
        recovered.append(await scene.load.every_node(over))
        took.append(over - began)
        silent.append(scene.load.longest_silence_s(began, time.monotonic()))
    await scene.load.more(50)
    await settle(scene.two, scene.load)
    figures[fault.__name__] = {
        "times": len(took),
        "fault_s": round(max(took), 2),
        "recovery_s": round(max(recovered), 2),  # from the end of the fault until each node has answered a call
        "nobody_answered_s": round(max(silent), 2),
        "calls": len(scene.load.acknowledged),
    }
    with capsys.disabled():
        print(f"\n{fault.__name__}: {figures[fault.__name__]}")


async def test_calls_made_while_the_database_is_away_are_answered_when_it_is_back(two: Cluster, postgres: PostgresServer) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:

        async def call(node: Server, kind: str, path: str, **args: object) -> object:
            answer = await client.post(f"{node.url}/api/{kind}", json={"path": path, "args": args, "format": "json"})
            assert answer.is_success, answer.text
            return answer.json()["value"]

        await asyncio.to_thread(postgres.kill)
        try:
            calls = [
                asyncio.ensure_future(asked)
                for node in two.nodes
                for asked in (
                    call(node, "query", "bank:total"),
                    call(node, "query", "lists:everything", run="away"),
                    call(node, "mutation", "bank:total_now"),
                )
            ]
            done, _ = await asyncio.wait(calls, timeout=3)
            assert not done, "none has failed by then"
        finally:
            await asyncio.to_thread(postgres.start)
        assert await asyncio.gather(*calls) == [ACCOUNTS * BALANCE, {}, ACCOUNTS * BALANCE] * 2
