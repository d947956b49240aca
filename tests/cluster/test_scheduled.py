"""Scheduled functions over two nodes and one Postgres, with nodes killed under load."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reactor.client import Client
from reactor.services.scheduler import INTERRUPTED
from tests.acceptance.test_scheduler import APP, all_runs, drained
from tests.support.postgres import database
from tests.support.server import Server

pytestmark = pytest.mark.anyio


async def test_over_kills_of_either_node_mutations_run_once_actions_at_most_once_and_what_is_canceled_never(
    tmp_path: Path, postgres_url: str
) -> None:
    effects, chance = tmp_path / "effects", random.Random()
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

                submitting = [asyncio.create_task(submit(client)) for client in (one, two, one, two)]
                for node in nodes:
                    until = len(acknowledged) + chance.randrange(20, 100)
                    while len(acknowledged) < until:
                        await asyncio.wait(submitting, timeout=0.02)
                        assert not any(task.done() for task in submitting)
                    await asyncio.to_thread(node.kill)
                    await asyncio.to_thread(node.start)
                for task in submitting:
                    task.cancel()
                await asyncio.gather(*submitting, return_exceptions=True)
                await drained(one, 120)
                runs = await all_runs(one)
                failed: Any = await one.query("jobs:failures")
        finally:
            for node in nodes:
                await asyncio.to_thread(node.stop)
    print(f"{len(acknowledged)} acknowledged, {sum(canceled.values())} canceled, {len(failed)} actions interrupted")
    lines = Counter(effects.read_text().split())
    for key in submitted:
        taken = runs[f"m{key}"]
        assert taken == 1 or (taken == 0 and key not in acknowledged), (key, taken)
        assert lines[f"a{key}"] <= 1 and runs[f"a{key}"] <= lines[f"a{key}"], key
    assert {job["state"]["error"] for job in failed} <= {INTERRUPTED}
    interrupted = {job["args"][0]["key"] for job in failed}
    for key in acknowledged:
        assert f"a{key}" in interrupted or runs[f"a{key}"] == 1, key
    assert canceled and any(canceled.values())
    for key, in_time in canceled.items():
        assert runs[f"c{key}"] == (0 if in_time else 1), key
