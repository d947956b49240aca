"""Scheduled functions over two nodes and one Postgres, with nodes killed under load."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reactor.client import Client
from tests.acceptance.test_scheduler import APP, all_runs, check_runs, drained, killed_meanwhile
from tests.support.postgres import database
from tests.support.server import Server

pytestmark = pytest.mark.anyio


async def test_over_kills_of_either_node_mutations_run_once_actions_at_most_once_and_what_is_canceled_never(
    tmp_path: Path, postgres_url: str
) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    submitted: list[str] = []
    acknowledged: list[str] = []
    canceled: dict[str, bool] = {}
    with database(postgres_url) as url:
        nodes = [Server(tmp_path, app=APP, command="start", db=url) for _ in range(2)]
        try:
            for node in nodes:
                await asyncio.to_thread(node.start)
            async with Client(nodes[0].url) as one, Client(nodes[1].url) as two:

                async def submit(client: Client) -> None:
                    while len(submitted) < 1_000_000:
                        key = f"{len(submitted):06d}"
                        submitted.append(key)
                        assert await client.mutation("jobs:submit", key=key, file=str(effects)) == key
                        acknowledged.append(key)
                        id: Any = await client.mutation("jobs:soon", key=key)
                        canceled[key] = bool(await two.mutation("jobs:cancel", id=id))

                await killed_meanwhile(nodes, [submit(client) for client in (one, two, one, two)], acknowledged)
                await drained(one, 120)
                runs = await all_runs(one)
                failed: Any = await one.query("jobs:failures")
        finally:
            for node in nodes:
                await asyncio.to_thread(node.stop)
    print(f"{len(acknowledged)} acknowledged, {sum(canceled.values())} canceled, {len(failed)} actions interrupted")
    check_runs(runs, failed, Counter(effects.read_text().split()), submitted, acknowledged)
    assert canceled and any(canceled.values())
    for key, in_time in canceled.items():
        assert runs[f"c{key}"] == (0 if in_time else 1), key
