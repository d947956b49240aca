"""``/metrics`` of real servers: on either store, under load, and of several processes on one port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from reactor.client import Client
from reactor.server.metrics import FAMILIES
from tests.support.metrics import Scrape
from tests.support.postgres import database
from tests.support.server import CLIENTS_APP, Server
from tests.support.waiting import eventually, eventually_async

pytestmark = pytest.mark.anyio

LATER = """
from datetime import timedelta
from reactor import MutationCtx, mutation
from app_functions.counters import add

@mutation
async def soon(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(timedelta(0), add, name="soon")
"""


def admin_key(server: Server) -> str:
    """The key that the server left beside its database, or for one on Postgres beside the app."""
    db = server.arguments[server.arguments.index("--db") + 1]
    if db.startswith("postgres"):
        (file,) = {*(server.app / ".reactor").glob("postgres-*-admin-key")}
        return file.read_text().strip()
    return Path(f"{db}-admin-key").read_text().strip()


def scrape(server: Server, key: str | None = None) -> Scrape:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = httpx.get(f"{server.url}/metrics", headers=headers, trust_env=False, timeout=20)
    assert answer.status_code == 200, answer.text
    return Scrape(answer.text)


def app_in(folder: Path) -> Path:
    """The clients' app where this test alone uses it."""
    app = folder / "app"
    (app / "app_functions").mkdir(parents=True)
    for file in CLIENTS_APP.rglob("*.py"):
        (app / file.relative_to(CLIENTS_APP)).write_text(file.read_text())
    return app


async def traffic(server: Server) -> None:
    """Live queries of two clients, mutations of one."""
    async with Client(server.url) as client, Client(server.url) as other:
        await asyncio.gather(*(client.mutation("counters:add", name=f"n{number}") for number in range(20)))
        watching = client.subscribe("counters:get", name="n1")
        assert await anext(watching) == 1
        await other.mutation("counters:add", name="n1")
        assert await anext(watching) == 2
        await client.action("counters:add_twice", name="n2")


async def test_after_traffic_a_server_on_sqlite_tells_every_metric_that_there_is(tmp_path: Path) -> None:
    app = app_in(tmp_path)
    scheduled = "from datetime import timedelta\nfrom reactor import MutationCtx, mutation\nfrom app_functions.counters import add\n"
    scheduled += (
        "\n@mutation\nasync def soon(ctx: MutationCtx) -> None:\n    await ctx.scheduler.run_after(timedelta(0), add, name='soon')\n"
    )
    (app / "app_functions" / "later.py").write_text(scheduled)
    with Server(tmp_path, app=app, db=str(tmp_path / "test.db")) as server:
        await traffic(server)
        for path in ("counters:get", "counters:get", "made:up"):
            httpx.post(f"{server.url}/api/query", json={"path": path, "args": {"name": "n3"}}, trust_env=False)
        httpx.post(f"{server.url}/api/mutation", json={"path": "later:soon", "args": {}}, trust_env=False)
        ran = eventually(lambda: scrape(server)("reactor_scheduler_lateness_seconds_count"), "the scheduled function to begin")
        told = await asyncio.to_thread(scrape, server)
    assert ran == 1
    assert told("reactor_function_duration_seconds_count", function="counters:add") >= 23
    assert told("reactor_function_duration_seconds_count", function="counters:add_twice", kind="action") == 1
    assert told("reactor_function_errors_total", function="unknown", code="FunctionNotFound") == 1
    assert told("reactor_reruns_total", kind="query", cause="commit") >= 1
    assert told("reactor_commit_group_size_sum") >= 23
    for step in ("write", "commit", "snapshot"):
        assert told("reactor_store_duration_seconds_count", step=step) > 0, step
    assert told("process_resident_memory_bytes") > 10_000_000
    # A table only has series once something lost a conflict in it, and workers are told when there are several.
    assert set(FAMILIES) - set(told.kinds) == {"reactor_conflicts_total", "reactor_worker_up"}


async def test_in_production_who_shows_no_key_is_told_nothing(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REACTOR_METRICS_KEY", "scraper")
        with Server(tmp_path, command="start", db=str(tmp_path / "test.db")) as server:
            for header, status in ((None, 401), ("Bearer wrong", 403), ("Convex wrong", 403)):
                headers = {} if header is None else {"authorization": header}
                answer = httpx.get(f"{server.url}/metrics", headers=headers, trust_env=False)
                assert answer.status_code == status and "reactor_" not in answer.text
            assert scrape(server, "scraper")("reactor_sessions") == 0
            assert scrape(server, admin_key(server))("reactor_sessions") == 0
            asked_as_admin = httpx.get(f"{server.url}/api/admin_keys", headers={"authorization": "Convex scraper"}, trust_env=False)
            assert asked_as_admin.status_code == 403


@pytest.mark.parametrize("setting", ["open", "off"])
async def test_a_setting_opens_it_in_production_or_closes_it(setting: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REACTOR_METRICS", setting)
        with Server(tmp_path, command="start", db=str(tmp_path / "test.db")) as server:
            assert httpx.get(f"{server.url}/metrics", trust_env=False).status_code == (200 if setting == "open" else 404)


async def test_scrapes_under_load_hold_up_nobody_and_lose_no_run(tmp_path: Path) -> None:
    with Server(tmp_path, db=str(tmp_path / "test.db")) as server:
        async with Client(server.url) as client, httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20) as http:
            sent = 0
            loading = True

            async def load() -> None:
                nonlocal sent
                while loading:
                    sent += 1
                    await client.mutation("counters:add", name=f"n{sent % 7}")

            tasks = [asyncio.create_task(load()) for _ in range(4)]
            counts: list[float] = []
            for _ in range(20):
                before = sent
                told = Scrape((await http.get("/metrics")).text)
                counts.append(told("reactor_function_duration_seconds_count", function="counters:add"))
                await eventually_async(lambda before=before: sent > before, "mutations to go on")  # type: ignore[misc]
            loading = False
            await asyncio.gather(*tasks)
        assert counts == sorted(counts)
        assert (await asyncio.to_thread(scrape, server))("reactor_function_duration_seconds_count", function="counters:add") == sent


async def test_one_scrape_has_all_workers_also_while_one_of_them_is_gone(postgres_url: str, tmp_path: Path) -> None:
    with (
        database(postgres_url) as url,
        Server(tmp_path, app=app_in(tmp_path), command="start", db=url, options=("--workers", "2")) as server,
    ):
        key = await asyncio.to_thread(admin_key, server)

        def up() -> dict[str, float]:
            told = scrape(server, key)
            return {labels["worker"]: told("reactor_worker_up", **labels) for labels in told.series("reactor_worker_up")}

        await asyncio.to_thread(eventually, lambda: up() == {"0": 1, "1": 1}, "both workers to serve")
        # Each connection goes to the worker that takes it first: sooner or later both have some.
        asked = 0

        def asked_of_both() -> bool:
            nonlocal asked
            for _ in range(10):
                asked += 1
                answer = httpx.post(f"{server.url}/api/mutation", json={"path": "counters:add", "args": {"name": "n"}}, trust_env=False)
                assert answer.status_code == 200, answer.text
            told = scrape(server, key)
            counts = [told("reactor_function_duration_seconds_count", function="counters:add", worker=worker) for worker in "01"]
            assert sum(counts) == asked, "no run is told twice or by nobody, whichever worker is asked"
            return all(counts)

        await asyncio.to_thread(eventually, asked_of_both, "both workers to have run something", within_s=60)
        told = await asyncio.to_thread(scrape, server, key)
        for step in ("lock", "write", "commit", "snapshot", "read"):
            assert told("reactor_store_duration_seconds_count", step=step) > 0, step
        assert told("process_resident_memory_bytes", worker="1") > 10_000_000

        assert server.process is not None
        nodes = psutil.Process(server.process.pid).children()
        os.kill(nodes[0].pid, signal.SIGSTOP)
        try:
            # It may have been given our connection before it stopped, so one is tried after another.
            def one_up() -> bool:
                try:
                    return sorted(up().values()) == [0, 1]
                except httpx.TimeoutException:
                    return False

            await asyncio.to_thread(eventually, one_up, "the other to answer alone")
        finally:
            with contextlib.suppress(ProcessLookupError):  # its supervisor may have given it up
                os.kill(nodes[0].pid, signal.SIGCONT)
        await asyncio.to_thread(eventually, lambda: up() == {"0": 1, "1": 1}, "both workers to serve again", within_s=60)
