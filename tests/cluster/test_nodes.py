"""Several nodes over one Postgres, each a process of its own, under load and under faults."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from reactor.client import Client
from tests.cluster.load import ACCOUNTS, BALANCE, Load, Viewer, viewing
from tests.cluster.wire import Wire, laid
from tests.support.postgres import PostgresServer
from tests.support.server import REACTOR, Server
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

APP = Path(__file__).parent / "app"


@dataclass
class Cluster:
    """Two nodes, and the wires between clients, nodes and database.

    Attributes:
        front: what clients are connected through, to any of the nodes.
        back: between the first node and Postgres.
    """

    postgres: PostgresServer
    nodes: list[Server]
    front: Wire
    back: Wire
    load: Load
    viewers: list[Viewer]


@pytest.fixture
def postgres() -> AsyncIterator[PostgresServer]:
    with PostgresServer(durable=True) as server:
        yield server


@asynccontextmanager
async def cluster(
    postgres: PostgresServer, folder: Path, clients: int = 6, *, url: str | None = None, apps: tuple[Path, Path] = (APP, APP)
) -> AsyncIterator[Cluster]:
    """Args:
    url: of the database, where it is not only ``postgres``.
    """
    async with AsyncExitStack() as stack:
        back = await stack.enter_async_context(laid(postgres.port))
        through = postgres.url.replace(str(postgres.port), str(back.port))
        nodes = [Server(folder, app=app, command="start", db=url or own) for app, own in zip(apps, (through, postgres.url), strict=True)]
        for node in nodes:
            stack.push_async_callback(asyncio.to_thread, node.stop)
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in nodes))
        front = await stack.enter_async_context(laid(*(node.port for node in nodes)))
        async with Client(nodes[0].url) as client:
            await client.mutation("bank:fill", accounts=ACCOUNTS, balance=BALANCE)
        viewers = [await stack.enter_async_context(viewing(node.url)) for node in nodes]
        yield Cluster(postgres, nodes, front, back, Load(f"http://127.0.0.1:{front.port}", clients), viewers)


async def settle(cluster: Cluster) -> None:
    """Stop the load, and check everything that clients were told."""
    load = cluster.load
    await load.stop()
    assert not load.failed, f"{len(load.failed)} calls failed: {load.failed[:3]}"
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        body = {"path": "lists:everything", "args": {}, "format": "json"}
        final = (await client.post(f"{cluster.nodes[1].url}/api/query", json=body)).json()["value"]
    load.history.check(final)
    for viewer in cluster.viewers:
        await eventually_async(lambda viewer=viewer: viewer.lists == final, "the live query to show the final lists", within_s=30)  # type: ignore[misc]


async def acknowledged(load: Load, more: int, within_s: float = 60.0) -> None:
    wanted = len(load.acknowledged) + more
    await eventually_async(lambda: len(load.acknowledged) >= wanted, f"{more} more calls to be answered", within_s=within_s)


async def test_histories_of_two_nodes_are_strictly_serializable_and_live_queries_right(postgres: PostgresServer, tmp_path: Path) -> None:
    async with cluster(postgres, tmp_path, clients=10) as two:
        two.load.start()
        await acknowledged(two.load, 1500)
        await settle(two)
        assert all(viewer.totals for viewer in two.viewers)


async def kill_node(cluster: Cluster) -> None:
    cluster.nodes[0].kill()
    await acknowledged(cluster.load, 20)
    await asyncio.to_thread(cluster.nodes[0].start)


async def stop_node_for_a_while(cluster: Cluster) -> None:
    cluster.nodes[0].pause()
    await asyncio.sleep(10)
    cluster.nodes[0].resume()


async def restart_postgres(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.postgres.restart)


async def kill_postgres(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.postgres.kill)
    await asyncio.to_thread(cluster.postgres.start)


async def cut_connections(cluster: Cluster) -> None:
    for _ in range(5):
        cluster.back.cut()
        await acknowledged(cluster.load, 10)


async def stall_connections(cluster: Cluster) -> None:
    cluster.back.flowing.clear()
    await asyncio.sleep(5)
    cluster.back.flowing.set()


async def lose_answers_to_commits(cluster: Cluster) -> None:
    for _ in range(5):
        lost = cluster.back.lost
        cluster.back.lose_answer_to = b"NOTIFY reactor_commits; COMMIT"
        await eventually_async(lambda lost=lost: cluster.back.lost > lost, "an answer to a COMMIT to be lost")  # type: ignore[misc]
        await acknowledged(cluster.load, 10)


async def cut_clients(cluster: Cluster) -> None:
    for _ in range(10):
        cluster.front.cut()
        await acknowledged(cluster.load, 10)


FAULTS: list[Callable[[Cluster], Awaitable[None]]] = [
    kill_node,
    stop_node_for_a_while,
    restart_postgres,
    kill_postgres,
    cut_connections,
    stall_connections,
    lose_answers_to_commits,
    cut_clients,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_no_acknowledged_mutation_is_lost_or_doubled_by(
    fault: Callable[[Cluster], Awaitable[None]], postgres: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with cluster(postgres, tmp_path) as two:
        two.load.start()
        await acknowledged(two.load, 100)
        began = time.monotonic()
        await fault(two)
        over = time.monotonic()
        await acknowledged(two.load, 50)
        await settle(two)
        silence, recovered = two.load.longest_silence_s(began), min(moment for moment in two.load.acknowledged if moment > over) - over
        with capsys.disabled():
            print(f"\n{fault.__name__}: {over - began:.1f} s, nobody answered for {silence:.2f} s, {recovered:.2f} s after its end")


async def test_a_live_query_shows_the_commits_of_another_node(
    postgres: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with cluster(postgres, tmp_path, clients=0) as two, Client(two.nodes[0].url) as here, Client(two.nodes[1].url) as there:
        seen: dict[str, dict[int, float]] = {"here": {}, "there": {}}

        async def watch(name: str, client: Client) -> None:
            async for lists in client.subscribe("lists:everything"):
                seen[name][len(lists.get("x", ()))] = time.perf_counter()  # type: ignore[union-attr, index, arg-type, call-overload]

        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(watch("here", here)), tasks.create_task(watch("there", there))]
            for count in range(100):
                await there.mutation("lists:append", keys=["x"], value=float(count))
                await eventually_async(lambda count=count: count + 1 in seen["here"], "the other node to show it", within_s=5)  # type: ignore[misc]
            for task in watching:
                task.cancel()
        added = sorted((seen["here"][count] - seen["there"][count]) * 1000 for count in range(1, 101))
        with capsys.disabled():
            print(f"\nadded latency of another node's live query: p50 {statistics.median(added):.1f} ms, p95 {added[94]:.1f} ms")
        assert statistics.median(added) < 100


async def test_a_standby_is_promoted_and_nothing_is_lost(
    postgres: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with postgres.standby() as standby:
        # A commit is acknowledged when both have it: what the primary alone has dies with it.
        postgres.run("psql", postgres.url, "-c", "ALTER SYSTEM SET synchronous_standby_names = '*'")
        postgres.run("psql", postgres.url, "-c", "SELECT pg_reload_conf()")
        url = f"postgres://postgres@127.0.0.1:{postgres.port},127.0.0.1:{standby.port}/postgres"
        async with cluster(postgres, tmp_path, url=url) as two:
            two.load.start()
            await acknowledged(two.load, 100)
            began = time.monotonic()
            await asyncio.to_thread(postgres.kill)
            await asyncio.to_thread(standby.promote)
            await acknowledged(two.load, 50)
            await settle(two)
            with capsys.disabled():
                print(f"\nstandby promoted: nobody answered for {two.load.longest_silence_s(began):.2f} s")


class TestSchemas:
    """Nodes with different versions of an app."""

    @pytest.fixture
    def apps(self, tmp_path: Path) -> tuple[Path, Path]:
        return shutil.copytree(APP, tmp_path / "one"), shutil.copytree(APP, tmp_path / "two")

    @staticmethod
    def upgrade(app: Path) -> None:
        """A further index, and a further table."""
        schema = (app / "schema.py").read_text()
        added = '    by_balance = Index("balance")\n\n\nclass Note(Document, table="notes"):\n    text: str\n'
        (app / "schema.py").write_text(schema.replace('    by_number = Index("number")\n', f'    by_number = Index("number")\n{added}'))
        bank = app / "app_functions" / "bank.py"
        bank.write_text(
            bank.read_text()
            + "\n\n@query\nasync def poorest(ctx: QueryCtx) -> float:\n"
            + "    account = await ctx.db.query(Account.by_balance()).first()\n    assert account is not None\n    return account.balance\n"
        )

    async def test_a_rolling_restart_with_another_index_and_table_fails_no_client(
        self, postgres: PostgresServer, tmp_path: Path, apps: tuple[Path, Path]
    ) -> None:
        async with cluster(postgres, tmp_path, apps=apps) as two:
            two.load.start()
            await acknowledged(two.load, 100)
            for node, app in zip(two.nodes, apps, strict=True):
                await asyncio.to_thread(node.stop)
                self.upgrade(app)
                await asyncio.to_thread(node.start)
                await acknowledged(two.load, 100)
            await settle(two)
            for node in two.nodes:
                answer = await asyncio.to_thread(self.call, node, "query", "bank:poorest")
                assert answer.json()["status"] == "success"

    async def test_a_node_with_the_old_schema_writes_no_more_and_says_why(
        self, postgres: PostgresServer, tmp_path: Path, apps: tuple[Path, Path]
    ) -> None:
        async with cluster(postgres, tmp_path, apps=apps) as two:
            new, old = two.nodes
            assert httpx.get(f"{old.url}/readyz", trust_env=False).is_success
            await asyncio.to_thread(new.stop)
            self.upgrade(apps[0])
            await asyncio.to_thread(new.start)
            answer = await asyncio.to_thread(self.append, old)
            assert (answer.status_code, answer.json()["code"]) == (503, "SchemaOutdated")
            ready = httpx.get(f"{old.url}/readyz", trust_env=False)
            assert ready.status_code == 503 and "another schema" in ready.json()["reason"]
            assert httpx.get(f"{old.url}/livez", trust_env=False).is_success
            assert (await asyncio.to_thread(self.append, new)).is_success
            # Started again by mistake, it does not take the new schema away.
            await asyncio.to_thread(old.stop)
            with pytest.raises(AssertionError, match="another one replaced it"):
                await asyncio.to_thread(old.start)
            old.process = None

    @staticmethod
    def call(node: Server, kind: str, path: str, **args: object) -> httpx.Response:
        """In a thread: the first node reaches its database through this loop."""
        body = {"path": path, "args": args, "format": "json"}
        return httpx.post(f"{node.url}/api/{kind}", json=body, trust_env=False, timeout=30)

    def append(self, node: Server) -> httpx.Response:
        return self.call(node, "mutation", "lists:append", keys=["x"], value=1.0)


async def test_workers_share_a_port_and_each_is_started_again(postgres: PostgresServer, tmp_path: Path) -> None:
    with Server(tmp_path, app=APP, command="start", db=postgres.url, options=("--workers", "2")) as server:
        await eventually_async(lambda: server.log.read_text().count("Serving 2 tables") == 2, "both workers to serve")
        load = Load(server.url, clients=4)
        async with Client(server.url) as client:
            await client.mutation("bank:fill", accounts=ACCOUNTS, balance=BALANCE)
        load.start()
        await acknowledged(load, 50)
        assert server.process is not None
        children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
        workers = [int(pid) for file in children for pid in file.read_text().split()]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        await eventually_async(lambda: server.log.read_text().count("Serving 2 tables") == 3, "the worker to be started again")
        await acknowledged(load, 50)
        await load.stop()
        assert not load.failed


def test_sqlite_refuses_workers(tmp_path: Path) -> None:
    command = [str(REACTOR), "start", "--db", str(tmp_path / "test.db"), "--workers", "2"]
    ended = subprocess.run(command, cwd=APP, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "is for one process" in ended.stderr
