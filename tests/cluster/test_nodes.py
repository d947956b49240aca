"""Several nodes over one Postgres, each a process of its own: what clients of any of them see."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from reactor.client import Client
from reactor.engine.store import Ts
from reactor.stores.postgres import PostgresStore
from tests.cluster.cluster import APP, Cluster, become_ready, cluster, ready, settle
from tests.cluster.conftest import Figures
from tests.cluster.load import ACCOUNTS, BALANCE, quick_client, under_load
from tests.support.postgres import PostgresServer, new_database
from tests.support.server import REACTOR, Server
from tests.support.socket import Socket
from tests.support.sockets import ts_of
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

LONG = bool(os.environ.get("REACTOR_TEST_LONG"))


async def test_histories_of_two_nodes_are_strictly_serializable_and_live_queries_right(two: Cluster) -> None:
    async with two.loaded(pause_s=0) as load:
        await load.more(20_000 if LONG else 1500, within_s=600)
        await settle(two, load)


async def test_a_live_query_shows_the_commits_of_another_node(two: Cluster, figures: Figures, capsys: pytest.CaptureFixture[str]) -> None:
    # What commits reaches its database over a wire of the test's, the node that is told of it does not.
    async with Client(two.nodes[1].url) as here, Client(two.nodes[0].url) as there:
        seen: dict[str, dict[int, float]] = {"here": {}, "there": {}}
        answered: dict[int, float] = {}

        async def watch(name: str, client: Client) -> None:
            async for lists in client.subscribe("lists:everything", run="added"):
                seen[name][len(lists.get("x", ()))] = time.perf_counter()  # type: ignore[union-attr, index, arg-type, call-overload]

        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(watch("here", here)), tasks.create_task(watch("there", there))]
            for count in range(1, 101):
                began = time.perf_counter()
                await there.mutation("lists:append", run="added", keys=["x"], value=float(count))
                answered[count] = began
                await eventually_async(lambda count=count: all(count in of for of in seen.values()), "both nodes to show it", within_s=5)  # type: ignore[misc]
            for task in watching:
                task.cancel()

    def quantiles(times: list[float]) -> dict[str, float]:
        ordered = sorted(times)
        return {"p50_ms": round(1000 * statistics.median(ordered), 2), "p95_ms": round(1000 * ordered[94], 2)}

    figures["live query"] = {
        "of the node that commits, from the call": quantiles([seen["there"][count] - answered[count] for count in answered]),
        "of the other node, from the call": quantiles([seen["here"][count] - answered[count] for count in answered]),
        "added": quantiles([seen["here"][count] - seen["there"][count] for count in answered]),
    }
    with capsys.disabled():
        print(f"\nlive query: {figures['live query']}")
    # Not by its polling, which is once a second.
    assert figures["live query"]["added"]["p50_ms"] < 200


async def test_a_standby_is_promoted_and_nothing_is_lost(tmp_path: Path, figures: Figures, capsys: pytest.CaptureFixture[str]) -> None:
    with PostgresServer(durable=True) as postgres, postgres.standby() as standby:
        # A commit is acknowledged when both have it: what the primary alone has dies with it.
        postgres.run("psql", postgres.url, "-c", "ALTER SYSTEM SET synchronous_standby_names = '*'")
        postgres.run("psql", postgres.url, "-c", "SELECT pg_reload_conf()")
        url = f"postgres://postgres@127.0.0.1:{postgres.port},127.0.0.1:{standby.port}/postgres"
        async with cluster(url, tmp_path, wired=False) as two, two.loaded() as load:
            await load.more(100)
            began = time.monotonic()
            await asyncio.to_thread(postgres.kill)
            await asyncio.to_thread(standby.promote)
            over = time.monotonic()
            recovered = await load.every_node(over)
            silent = load.longest_silence_s(began, time.monotonic())
            await load.more(50)
            await settle(two, load)
            figures["standby promoted"] = {"recovery_s": round(recovered, 2), "nobody_answered_s": round(silent, 2)}
            with capsys.disabled():
                print(f"\nstandby promoted: {figures['standby promoted']}")


class TestSessions:
    """One client's session over two nodes, the first of which lags: it reaches its database over a wire that a test holds up."""

    @pytest.fixture
    def lagging(self, two: Cluster) -> Cluster:
        """The first node hears nothing of what is committed from now on, until the wire flows."""
        two.back.flowing.clear()
        return two

    async def test_a_client_that_comes_to_a_node_that_lags_is_shown_nothing_older(self, lagging: Cluster) -> None:
        two = lagging
        behind, current = two.nodes
        session = str(uuid.uuid4())

        def before() -> str:
            with Socket(current.url, sessionId=session) as socket:
                socket.subscribe("lists:everything", run=session)
                socket.receive("Transition")
                socket.send(type="Mutation", requestId=0, udfPath="lists:append", args=[{"run": session, "keys": ["a"], "value": 1.0}])
                seen: str = socket.receive("MutationResponse")["ts"]
                while ts_of(shown := socket.receive("Transition")["endVersion"]["ts"]) < ts_of(seen):
                    pass
                return shown

        newest = await asyncio.to_thread(before)
        with Socket(behind.url, sessionId=session, connectionCount=1, lastCloseReason="x", maxObservedTimestamp=newest) as socket:
            socket.subscribe("lists:everything", run=session)
            status, said = 200, {}
            async with asyncio.timeout(20):
                while status == 200:  # it notices after a moment
                    status, said = await ready(behind)
            assert status == 503 and said["behindSeconds"] > 1 and said["reason"]
            assert not said["ready"] and int(said["ts"]) < ts_of(newest)
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(socket.connection.recv, 1)
            two.back.flowing.set()
            shown = await asyncio.to_thread(socket.receive, "Transition")
            assert ts_of(shown["endVersion"]["ts"]) >= ts_of(newest)
            [update] = shown["modifications"]
            assert update["value"] == {"a": [1.0]}
        await become_ready(behind)

    async def test_an_unanswered_mutation_is_applied_once_and_answered_as_the_first_time(self, lagging: Cluster) -> None:
        two = lagging
        behind, current = two.nodes
        session = str(uuid.uuid4())
        append = {"type": "Mutation", "udfPath": "lists:append"}
        args: list[Any] = [{"run": session, "keys": ["a"], "value": 1.0}]
        with Socket(current.url, sessionId=session) as socket:
            socket.send(**append, requestId=0, args=args)
            socket.send(**append, requestId=1, args=[args[0] | {"value": 2.0}])
            answers = [await asyncio.to_thread(socket.receive, "MutationResponse") for _ in range(2)]
        # Its client never saw the answers: on another node it sends both again, and one that is new.
        with Socket(behind.url, sessionId=session, connectionCount=1, lastCloseReason="x") as socket:
            socket.send(**append, requestId=0, args=args)
            socket.send(**append, requestId=1, args=[args[0] | {"value": 2.0}])
            socket.send(**append, requestId=2, args=[args[0] | {"value": 3.0}])
            two.back.flowing.set()
            repeated = [await asyncio.to_thread(socket.receive, "MutationResponse") for _ in range(3)]
        assert [(answer["ts"], answer["result"]) for answer in repeated[:2]] == [(answer["ts"], answer["result"]) for answer in answers]
        assert repeated[2]["result"] == {"a": [1.0, 2.0, 3.0]}

    async def test_both_nodes_may_be_asked_for_one_mutation_at_once(self, two: Cluster) -> None:
        session = str(uuid.uuid4())
        with Socket(two.nodes[0].url, sessionId=session) as one, Socket(two.nodes[1].url, sessionId=session) as other:
            for request in range(50):
                args = [{"run": session, "keys": ["a"], "value": float(request)}]
                for socket in (one, other):
                    socket.send(type="Mutation", requestId=request, udfPath="lists:append", args=args)
                first, second = [await asyncio.to_thread(socket.receive, "MutationResponse") for socket in (one, other)]
                assert (first["ts"], first["result"]) == (second["ts"], second["result"])
                assert first["result"]["a"] == [float(number) for number in range(request + 1)]


async def test_a_node_stopped_for_longer_than_the_log_is_kept_goes_on_by_itself(
    two: Cluster, figures: Figures, capsys: pytest.CaptureFixture[str]
) -> None:
    asleep, awake = two.nodes
    newest: dict[str, Any] = {}

    async def watch(client: Client) -> None:
        async for value in client.subscribe("lists:everything", run="trimmed"):
            newest["lists"] = value

    async with quick_client(asleep.url) as here, quick_client(awake.url) as there, asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch(here))
        await there.mutation("lists:append", run="trimmed", keys=["a"], value=0.0)
        await eventually_async(lambda: newest.get("lists") == {"a": [0.0]}, "the live query to show the first append")
        pid = asleep.process and asleep.process.pid
        workers = asleep.log.read_text().count("Serving 2 tables")
        asleep.pause()
        for value in range(1, 21):
            await there.mutation("lists:append", run="trimmed", keys=["a"], value=float(value))
        store = await PostgresStore.open(two.database)
        await store.trim(log_before=Ts(1 << 62), requests_before=Ts(0))
        await store.close()
        await there.mutation("lists:append", run="trimmed", keys=["a"], value=21.0)
        asleep.resume()
        began = time.monotonic()
        expected = {"a": [float(value) for value in range(22)]}
        await eventually_async(lambda: newest["lists"] == expected, "the live query to show all appends")
        took = time.monotonic() - began
        assert await here.mutation("lists:append", run="trimmed", keys=["a"], value=22.0) == {"a": [*expected["a"], 22.0]}
        await become_ready(asleep)
        watching.cancel()
    assert "It starts over from the database as it is" in asleep.log.read_text()
    assert asleep.process and asleep.process.pid == pid and asleep.log.read_text().count("Serving 2 tables") == workers
    figures["log trimmed under a stopped node"] = {"recovery_s": round(took, 2)}
    with capsys.disabled():
        print(f"\nlog trimmed under a stopped node: {figures['log trimmed under a stopped node']}")


async def test_a_node_whose_database_was_set_back_starts_again_by_itself(postgres: PostgresServer, tmp_path: Path) -> None:
    url = new_database(postgres.url)
    name = url.rpartition("/")[2]

    async def administer(*statements: str) -> None:
        connection = await asyncpg.connect(postgres.url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    server = Server(tmp_path, app=APP, command="start", db=url)
    try:
        await asyncio.to_thread(server.start)
        async with quick_client(server.url) as client:
            await client.mutation("lists:append", run="x", keys=["a"], value=1.0)
        await asyncio.to_thread(server.stop)
        await administer(f"CREATE DATABASE {name}_copy TEMPLATE {name}")
        await asyncio.to_thread(server.start)
        async with quick_client(server.url) as client:
            await client.mutation("lists:append", run="x", keys=["a"], value=2.0)
            await administer(f"DROP DATABASE {name} WITH (FORCE)", f"ALTER DATABASE {name}_copy RENAME TO {name}")
            await eventually_async(lambda: server.log.read_text().count("Serving 2 tables") == 3, "the node to be started again")
            assert await client.mutation("lists:append", run="x", keys=["a"], value=3.0) == {"a": [1.0, 3.0]}
        assert "behind" in server.log.read_text() and "lacked the last commits" in server.log.read_text()
    finally:
        await asyncio.to_thread(server.stop)
        await administer(f"DROP DATABASE {name} WITH (FORCE)")


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
        self, database_url: str, tmp_path: Path, apps: tuple[Path, Path]
    ) -> None:
        async with cluster(database_url, tmp_path, apps=apps) as two, two.loaded(breaks=1) as load:
            await load.more(100)
            for node, app in zip(two.nodes, apps, strict=True):
                await asyncio.to_thread(node.stop)
                self.upgrade(app)
                await asyncio.to_thread(node.start)
                await load.more(100)
            await settle(two, load)
            for node in two.nodes:
                answer = await asyncio.to_thread(self.call, node, "query", "bank:poorest")
                assert answer.json()["status"] == "success"

    async def test_a_node_with_the_old_schema_writes_no_more_and_says_why(
        self, database_url: str, tmp_path: Path, apps: tuple[Path, Path]
    ) -> None:
        async with cluster(database_url, tmp_path, apps=apps) as two:
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
        return self.call(node, "mutation", "lists:append", run="x", keys=["x"], value=1.0)


async def test_workers_share_a_port_and_each_is_started_again(database_url: str, tmp_path: Path) -> None:
    with Server(tmp_path, app=APP, command="start", db=database_url, options=("--workers", "2")) as server:
        await eventually_async(lambda: server.log.read_text().count("Serving 2 tables") == 2, "both workers to serve")
        async with Client(server.url) as client:
            await client.mutation("bank:fill", accounts=ACCOUNTS, balance=BALANCE)
        async with under_load(server.url, [server.url], breaks=1) as load:
            await load.more(50)
            assert server.process is not None
            children = Path(f"/proc/{server.process.pid}/task").glob("*/children")
            workers = [int(pid) for file in children for pid in file.read_text().split()]
            assert len(workers) == 2
            os.kill(workers[0], signal.SIGKILL)
            await eventually_async(lambda: server.log.read_text().count("Serving 2 tables") == 3, "the worker to be started again")
            await load.more(50)
            await load.stop()
            assert not load.failed, load.failed


def test_sqlite_refuses_workers(tmp_path: Path) -> None:
    command = [str(REACTOR), "start", "--db", str(tmp_path / "test.db"), "--workers", "2"]
    ended = subprocess.run(command, cwd=APP, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "is for one process" in ended.stderr
