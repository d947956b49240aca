"""Scheduled functions on a real server: killed under load, and with more due at once than it can run."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from reactor.client import Client
from reactor.limits import DEFAULT_LIMITS
from reactor.services.scheduler import INTERRUPTED
from tests.support.server import Server

pytestmark = pytest.mark.anyio

APP = Path(__file__).parent / "scheduled_app"
LONG = bool(os.environ.get("REACTOR_TEST_LONG"))


async def all_runs(client: Client) -> Counter[str]:
    found: list[Any] = []
    while True:
        page: Any = await client.query("jobs:runs", after=found[-1] if found else "")
        if not page:
            return Counter(found)
        # A page may end between two equal keys, which are what these tests look for: the last key is read again.
        found = [key for key in found if key != page[-1]] + page


async def drained(client: Client, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        async for waiting in client.subscribe("jobs:waiting"):
            if not waiting:
                return


async def killed_meanwhile(servers: Sequence[Server], submit: Sequence[Coroutine[Any, Any, None]], acknowledged: Sequence[str]) -> None:
    """Kill and start each server in turn while ``submit`` goes on, each time after some more that were acknowledged. It is cut off then."""
    submitting = [asyncio.create_task(one) for one in submit]
    for server in servers:
        until = len(acknowledged) + random.randrange(20, 150)
        while len(acknowledged) < until:
            await asyncio.wait(submitting, timeout=0.02)
            assert not any(task.done() for task in submitting)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
    for task in submitting:
        task.cancel()
    await asyncio.gather(*submitting, return_exceptions=True)


def check_runs(
    runs: Counter[str], failed: Sequence[Any], effects: Counter[str], submitted: Sequence[str], acknowledged: Sequence[str]
) -> None:
    """Raise AssertionError unless each mutation that was acknowledged ran once, no action twice, and none failed but by an interruption.

    Args:
        effects: how often each action began.
    """
    # One that was cut off before its acknowledgement may have been taken or not.
    for key in submitted:
        taken = runs[f"m{key}"]
        assert taken == 1 or (taken == 0 and key not in acknowledged), (key, taken)
        assert effects[f"a{key}"] <= 1 and runs[f"a{key}"] <= effects[f"a{key}"], key
    assert {job["state"]["error"] for job in failed} <= {INTERRUPTED}
    interrupted = {job["args"][0]["key"] for job in failed}
    for key in acknowledged:
        assert f"a{key}" in interrupted or runs[f"a{key}"] == 1, key


async def test_over_kills_mutations_run_exactly_once_and_actions_at_most_once(tmp_path: Path) -> None:
    kills, effects = 60 if LONG else 5, tmp_path / "effects"
    effects.touch()
    submitted: list[str] = []
    acknowledged: list[str] = []
    with Server(tmp_path, app=APP, command="start") as server:
        async with Client(server.url) as client:

            async def submit() -> None:
                while len(submitted) < 1_000_000:
                    key = f"{len(submitted):06d}"
                    submitted.append(key)
                    assert await client.mutation("jobs:submit", key=key, file=str(effects)) == key
                    acknowledged.append(key)

            await killed_meanwhile([server] * kills, [submit() for _ in range(4)], acknowledged)
            await drained(client, 120)
            runs = await all_runs(client)
            failed: Any = await client.query("jobs:failures")
    print(f"{len(acknowledged)} acknowledged over {kills} kills, {len(failed)} actions interrupted")
    check_runs(runs, failed, Counter(effects.read_text().split()), submitted, acknowledged)


CRON_APP = {
    "schema.py": """
from reactor import Document

class Tick(Document, table="ticks"):
    at: float
""",
    "app_functions/ticks.py": """
from reactor import CronJob, MutationCtx, QueryCtx, internal_mutation, query
from schema import Tick

@internal_mutation
async def tick(ctx: MutationCtx) -> None:
    await ctx.db.insert(Tick(at=ctx.now))

@query
async def times(ctx: QueryCtx) -> list[float]:
    return [tick.at async for tick in ctx.db.query(Tick)]

@query
async def crons(ctx: QueryCtx) -> list[CronJob]:
    return await ctx.db.query(CronJob).collect()
""",
    "app_functions/crons.py": """
from datetime import timedelta

from app_functions import ticks
from reactor import Crons

crons = Crons()
crons.interval("tick", timedelta(seconds=1), ticks.tick)
""",
}


async def test_a_cron_goes_on_after_kills_with_one_run_for_each_time(tmp_path: Path) -> None:
    app = tmp_path / "app"
    (app / "app_functions").mkdir(parents=True)
    for name, text in CRON_APP.items():
        (app / name).write_text(text)
    times: Any = []
    with Server(tmp_path, app=app, command="start") as server:
        async with Client(server.url) as client:
            for _ in range(3):
                known = len(times)
                async with asyncio.timeout(30):
                    async for times in client.subscribe("ticks:times"):
                        if len(times) >= known + 2:
                            break
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            crons: Any = await client.query("ticks:crons")
    [cron] = crons
    seconds = [int((at - cron["firstRun"]) // 1000) for at in times]
    assert len(set(seconds)) == len(seconds)
    assert cron["nextRun"] > cron["lastRun"]
    assert (cron["nextRun"] - cron["firstRun"]) % 1000 == 0


async def test_a_backlog_starves_no_client_and_takes_no_memory(tmp_path: Path) -> None:
    count = 100_000 if LONG else 6000
    with Server(tmp_path, app=APP, command="start") as server:
        async with Client(server.url) as client:
            await client.mutation("jobs:touch")
            before = resident_bytes(server)
            for first in range(0, count, 1000):
                await client.mutation("jobs:backlog", first=first, count=1000)
            began = time.monotonic()
            draining = asyncio.create_task(drained(client, 600))
            latencies: list[float] = []
            most = before
            while not draining.done():
                sent = time.monotonic()
                await client.mutation("jobs:touch")
                latencies.append(time.monotonic() - sent)
                most = max(most, resident_bytes(server))
                await asyncio.wait([draining], timeout=0.02)
            await draining
            took = time.monotonic() - began
            runs = await all_runs(client)
    latencies.sort()
    print(
        f"{count} in {took:.1f} s; a client's mutation meanwhile: median {latencies[len(latencies) // 2] * 1000:.0f} ms, "
        f"longest {latencies[-1] * 1000:.0f} ms; memory grew by {(most - before) / 2**20:.0f} MiB"
    )
    assert {key: times for key, times in runs.items() if key != "touch"} == {f"{number:06d}": 1 for number in range(count)}
    assert latencies[len(latencies) // 2] < 0.5 and latencies[-1] < 5
    # SQLite's caches fill, 80 MiB in all, and the row cache; nothing grows with the number of functions.
    assert most - before < 110 * 2**20 + (DEFAULT_LIMITS.row_cache_bytes if LONG else 20 * 2**20)


def resident_bytes(server: Server) -> int:
    """Memory of the server's processes."""
    assert server.process is not None
    pages = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == server.process.pid:  # its process group, which the server leads
            pages += int(fields[21])
    return pages * os.sysconf("SC_PAGE_SIZE")
