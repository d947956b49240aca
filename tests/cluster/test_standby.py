"""Nodes that read from a hot standby, each a process of its own, under load and while the standby fails."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.cluster.cluster import APP, Cluster, cluster, settle
from tests.cluster.load import Load
from tests.support.postgres import PostgresServer
from tests.support.server import REACTOR, Server

pytestmark = pytest.mark.anyio


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def standby(postgres: PostgresServer) -> Iterator[PostgresServer]:
    with postgres.standby() as server:
        yield server


async def health(node: Server) -> dict[str, Any]:
    """What ``/readyz`` says of the standby. The node is ready all the time."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.get(f"{node.url}/readyz")
    assert answer.is_success and answer.json()["ready"]
    told: dict[str, Any] = answer.json()["standby"]
    return told


async def serves(nodes: list[Server], wanted: bool) -> None:
    async with asyncio.timeout(30):
        while any([(await health(node))["serves"] != wanted for node in nodes]):
            await asyncio.sleep(0.05)


async def stop_replay(two: Cluster, load: Load, standby: PostgresServer) -> None:
    """For longer than it is waited for."""
    standby.run("psql", standby.url, "-c", "SELECT pg_wal_replay_pause()")
    await serves(two.nodes, False)
    assert "behind" in (await health(two.nodes[0]))["reason"]
    await load.more(100)
    standby.run("psql", standby.url, "-c", "SELECT pg_wal_replay_resume()")


async def stop_replay_now_and_then(two: Cluster, load: Load, standby: PostgresServer) -> None:
    for _ in range(10):
        standby.run("psql", standby.url, "-c", "SELECT pg_wal_replay_pause()")
        await load.more(20)
        standby.run("psql", standby.url, "-c", "SELECT pg_wal_replay_resume()")
        await load.more(5)
    await stop_replay(two, load, standby)


async def kill_standby(two: Cluster, load: Load, standby: PostgresServer) -> None:
    await asyncio.to_thread(standby.kill)
    await serves(two.nodes, False)
    await load.more(100)
    await asyncio.to_thread(standby.start)


@pytest.mark.parametrize("fault", [stop_replay, stop_replay_now_and_then, kill_standby], ids=lambda fault: fault.__name__)
async def test_nobody_sees_anything_go_back_while(
    fault: Callable[[Cluster, Load, PostgresServer], Awaitable[None]], postgres: PostgresServer, standby: PostgresServer, tmp_path: Path
) -> None:
    # Each of several hosts is tried, and the standby among them taken.
    read_db = f"postgres://postgres@127.0.0.1:{postgres.port},127.0.0.1:{standby.port}/postgres"
    async with cluster(postgres.url, tmp_path, options=("--read-db", read_db)) as two:
        await serves(two.nodes, True)
        async with two.loaded() as load:
            await load.more(100)
            await fault(two, load, standby)
            await serves(two.nodes, True)
            await load.more(100)
            await settle(two, load)
        for node in two.nodes:
            told = node.log.read_text()
            assert "Reads go to the primary. " in told and "Reads go to postgres://" in told


async def test_every_worker_reads_from_the_standby(postgres: PostgresServer, standby: PostgresServer, tmp_path: Path) -> None:
    sessions = (
        "SELECT count(DISTINCT client_port) FROM pg_stat_activity WHERE application_name = 'reactor' AND query LIKE '%instance_name%'"
    )
    with Server(tmp_path, app=APP, command="start", db=postgres.url, options=("--workers", "2", "--read-db", standby.url)):
        connection = await asyncpg.connect(standby.url)
        try:
            async with asyncio.timeout(20):
                while await connection.fetchval(sessions) != 2:
                    await asyncio.sleep(0.05)
        finally:
            await connection.close()


def test_sqlite_has_no_standby(tmp_path: Path) -> None:
    command = [str(REACTOR), "start", "--db", str(tmp_path / "test.db"), "--read-db", "postgres://localhost/none"]
    ended = subprocess.run(command, cwd=APP, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "--db postgres://… --read-db postgres://…" in ended.stderr
