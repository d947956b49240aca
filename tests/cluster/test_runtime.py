"""What the server offers beside queries and mutations, over two nodes that share one Postgres."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from stripe import WebhookSignature

from reactor.client import Client
from tests.support.issuer import Issuer
from tests.support.postgres import database
from tests.support.server import Server
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

APP = Path(__file__).parent / "runtime_app"


@dataclass
class Two:
    """Two nodes, each with a client of HTTP.

    Attributes:
        folder: of the app, where both have their files.
        admin: the header of an admin.
    """

    nodes: list[Server]
    folder: Path
    admin: dict[str, str]
    http: list[httpx.AsyncClient]

    async def call(self, node: int, path: str, kind: str = "mutation", headers: dict[str, str] | None = None, **args: Any) -> Any:
        answer = await self.http[node].post(f"/api/{kind}", json={"path": path, "args": args, "format": "json"}, headers=headers)
        told = answer.json()
        assert told.get("status") == "success", told
        return told["value"]

    async def set_env(self, node: int, **changes: str | None) -> httpx.Response:
        wire = [{"name": name, "value": value} for name, value in changes.items()]
        return await self.http[node].post("/api/update_environment_variables", json={"changes": wire}, headers=self.admin)

    async def upload(self, node: int, content: bytes) -> str:
        # The URL names the address that clients are told of, which here is each node's own.
        url = httpx.URL(await self.call(node, "photos:upload_url"))
        answer = await self.http[node].post(url.raw_path.decode(), content=content, headers={"content-type": "image/png"})
        id: str = answer.json()["storageId"]
        return id

    def stored(self) -> list[Path]:
        return [file for folder in self.folder.glob(".reactor/*-files") for file in folder.glob("*/*")]


@pytest.fixture(scope="module")
def servers(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Server], Path]]:
    folder = tmp_path_factory.mktemp("runtime")
    app = shutil.copytree(APP, folder / "app")
    with database(postgres_url) as url:
        nodes = [Server(folder, app=app, command="start", db=url) for _ in range(2)]
        try:
            for node in nodes:
                node.start()
            yield nodes, app
        finally:
            for node in nodes:
                node.stop()


@pytest.fixture
async def two(servers: tuple[list[Server], Path], anyio_backend: str) -> AsyncIterator[Two]:
    nodes, folder = servers
    [key] = folder.glob(".reactor/*-admin-key")
    clients = [httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=60) for node in nodes]
    yield Two(nodes, folder, {"authorization": f"Convex {key.read_text().strip()}"}, clients)
    for client in clients:
        await client.aclose()


class TestFiles:
    async def test_what_one_node_stored_the_other_serves_whole_and_in_parts(self, two: Two) -> None:
        content = bytes(range(256)) * 2000
        id = await two.upload(0, content)
        await two.call(0, "photos:add", title="cat", file=id)
        url = httpx.URL(await two.call(1, "photos:url", "query", title="cat")).raw_path.decode()
        whole = await two.http[1].get(url)
        assert (whole.content, whole.headers["content-type"]) == (content, "image/png")
        part = await two.http[1].get(url, headers={"range": "bytes=300000-300009"})
        assert (part.status_code, part.content) == (206, content[300_000:300_010])

    async def test_what_one_node_deletes_is_gone_on_the_other_and_its_live_queries_follow(self, two: Two) -> None:
        id = await two.upload(0, b"short-lived")
        await two.call(0, "photos:add", title="brief", file=id)
        async with Client(two.nodes[1].url) as client:
            shown = client.subscribe("photos:url", title="brief")
            url = httpx.URL(str(await anext(shown))).raw_path.decode()
            assert (await two.http[1].get(url)).content == b"short-lived"
            await two.call(0, "photos:remove", file=id)
            assert await anext(shown) is None
            assert (await two.http[1].get(url)).status_code == 404

    async def test_of_two_nodes_that_delete_a_file_one_does(self, two: Two) -> None:
        id = await two.upload(0, b"twice")
        answers = await asyncio.gather(
            *(http.post("/api/mutation", json={"path": "photos:remove", "args": {"file": id}, "format": "json"}) for http in two.http * 3)
        )
        assert sorted(answer.json()["status"] for answer in answers) == [*["error"] * 5, "success"]

    async def test_an_upload_whose_client_leaves_leaves_nothing_for_either_node(self, two: Two) -> None:
        before = {file.name for file in two.stored()}
        url = httpx.URL(await two.call(0, "photos:upload_url"))
        server = two.nodes[0]
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"POST {url.raw_path.decode()} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n".encode() + bytes(2_000_000))
        await writer.drain()
        await eventually_async(lambda: {file.name for file in two.stored()} - before, "the upload to begin")
        writer.close()
        await eventually_async(lambda: {file.name for file in two.stored()} <= before, "what it left to be gone")


class TestOnce:
    async def test_an_event_that_is_delivered_to_both_nodes_at_once_has_one_effect(self, two: Two) -> None:
        assert (await two.set_env(0, STRIPE_SECRET="whsec_test")).is_success
        text = json.dumps({"id": "evt_many", "object": "event", "type": "invoice.paid"})
        signed = {"stripe-signature": WebhookSignature.generate_signature_header(text, "whsec_test", int(time.time()))}
        answers = await asyncio.gather(*(http.post("/stripe", content=text, headers=signed) for http in two.http * 10))
        assert {answer.status_code for answer in answers} == {200}
        assert [await two.call(node, "payments:count", "query", event="evt_many") for node in (0, 1)] == [1, 1]
        forged = await two.http[1].post("/stripe", content=text.replace("many", "much"), headers=signed)
        assert forged.status_code == 401

    async def test_an_idempotency_key_that_comes_to_both_nodes_at_once_has_one_effect(self, two: Two) -> None:
        results = await asyncio.gather(*(two.call(number % 2, "payments:pay", key="k", name="paid once") for number in range(20)))
        assert len(set(results)) == 1
        assert await two.call(0, "payments:count", "query", event="paid once") == 1

    @pytest.mark.parametrize("limit", ["bucket", "sharded", "window"])
    async def test_both_nodes_together_spend_as_much_as_a_limit_allows(self, two: Two, limit: str) -> None:
        spent = await asyncio.gather(*(two.call(number % 2, "payments:spend", limit=limit, key="ann") for number in range(50)))
        assert sum(spent) == 20


class TestIdentity:
    async def test_admin_keys_are_made_and_revoked_on_one_node_for_both(self, two: Two) -> None:
        made = await two.http[0].post("/api/admin_keys", json={"name": "ci"}, headers=two.admin)
        key = {"authorization": f"Convex {made.json()['key']}"}

        async def accepted(node: int) -> bool:
            return (await two.http[node].get("/api/list_environment_variables", headers=key)).is_success

        async def becomes(node: int, wanted: bool) -> None:
            async with asyncio.timeout(10):
                while await accepted(node) != wanted:
                    await asyncio.sleep(0.01)

        assert await accepted(0)
        await becomes(1, True)
        assert (await two.http[1].post("/api/admin_keys/revoke", json={"name": "ci"}, headers=two.admin)).is_success
        assert not await accepted(1)
        await becomes(0, False)

    async def test_a_provider_that_is_named_on_one_node_signs_in_on_both(self, two: Two) -> None:
        with Issuer() as issuer:
            token = {"authorization": f"Bearer {issuer.token()}"}
            assert (await two.http[1].post("/api/query", json={"path": "payments:who", "args": {}}, headers=token)).status_code == 401
            async with Client(two.nodes[1].url) as client:
                greetings = client.subscribe("payments:greeting")
                await anext(greetings)
                assert (await two.set_env(0, ISSUER=issuer.url, GREETING="signed in")).is_success
                assert await anext(greetings) == "signed in"
            for node in (0, 1):
                assert await two.call(node, "payments:who", "query", headers=token) == "ann"
            refused = await two.set_env(1, ISSUER="http://not.encrypted.example")
            assert (refused.status_code, refused.json()["code"]) == (400, "InvalidAuthConfig")
            assert await two.call(0, "payments:who", "query", headers=token) == "ann"

    async def test_a_variable_that_is_set_on_one_node_runs_a_query_again_on_the_other(self, two: Two) -> None:
        async with Client(two.nodes[1].url) as client:
            greetings = client.subscribe("payments:greeting")
            await anext(greetings)
            for text in ("one", "two"):
                assert (await two.set_env(0, GREETING=text)).is_success
                assert await anext(greetings) == text
            assert (await two.set_env(0, GREETING=None)).is_success
            assert await anext(greetings) == "hello"


class TestCrons:
    async def test_of_two_nodes_one_runs_a_cron_for_each_time(self, two: Two) -> None:
        async def enough() -> list[Any]:
            ticks: list[Any] = []
            async with asyncio.timeout(60), Client(two.nodes[0].url) as client:
                async for ticks in client.subscribe("ticks:of", cron="each second"):  # type: ignore[assignment]
                    if len(ticks) >= 4:
                        break
            return ticks

        ticks = await enough()
        [cron] = [cron for cron in await two.call(1, "ticks:crons", "query") if cron["name"] == "each second"]
        # The clock of a run is that of its node, on one machine the same: a run never comes before its time.
        due = [int((tick["at"] - cron["firstRun"]) // 1000) for tick in ticks]
        assert len(set(due)) == len(due) and due == sorted(due)

    async def test_on_two_nodes_a_cron_does_not_overlap_itself_and_skips_what_it_missed(self, two: Two) -> None:
        ticks: list[Any] = []
        async with asyncio.timeout(60), Client(two.nodes[1].url) as client:
            async for ticks in client.subscribe("ticks:of", cron="slow"):  # type: ignore[assignment]
                if len(ticks) >= 4:
                    break
        phases = [tick["phase"] for tick in ticks]
        assert phases == ["began", "ended"] * (len(phases) // 2) + ["began"] * (len(phases) % 2)
        [cron] = [cron for cron in await two.call(0, "ticks:crons", "query") if cron["name"] == "slow"]
        began = [int((tick["at"] - cron["firstRun"]) // 1000) for tick in ticks if tick["phase"] == "began"]
        assert all(later - earlier >= 2 for earlier, later in pairwise(began)), "each run, of 1.3 s, misses a time"


async def test_more_nodes_of_one_command_share_the_files(postgres_url: str, tmp_path: Path) -> None:
    app = shutil.copytree(APP, tmp_path / "app")
    with database(postgres_url) as url:
        server = Server(tmp_path, app=app, command="start", db=url, options=("--workers", "2"))
        with server:
            clients = [httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=60) for _ in range(8)]
            two = Two([server], app, {}, clients)
            id = await two.upload(0, b"shared")
            await two.call(0, "photos:add", title="shared", file=id)
            # Each connection is taken by either node.
            for client in clients:
                url_of = (
                    await client.post("/api/query", json={"path": "photos:url", "args": {"title": "shared"}, "format": "json"})
                ).json()
                assert (await client.get(httpx.URL(url_of["value"]).raw_path.decode())).content == b"shared"
                await client.aclose()
