"""Two nodes over one Postgres, each a process of its own, and the wires between clients, nodes and database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from reactor.client import Client
from tests.cluster.load import ACCOUNTS, BALANCE, PAUSE_S, Load, under_load
from tests.cluster.wire import Wire, laid
from tests.support.server import Server

__all__ = ["APP", "Cluster", "become_ready", "cluster", "ready", "settle"]

APP = Path(__file__).parent / "app"


@dataclass
class Cluster:
    """See the module.

    Attributes:
        database: its address, without a wire.
        front: what clients are connected through, to any of the nodes.
        back: between the first node and Postgres.
    """

    database: str
    nodes: list[Server]
    front: Wire
    back: Wire

    @asynccontextmanager
    async def loaded(self, pause_s: float = PAUSE_S, breaks: int = 0) -> AsyncIterator[Load]:
        """Inside, clients are at work. The arguments are those of ``Load``."""
        async with under_load(f"http://127.0.0.1:{self.front.port}", [node.url for node in self.nodes], pause_s, breaks) as load:
            yield load


@asynccontextmanager
async def cluster(
    database: str, folder: Path, *, wired: bool = True, apps: tuple[Path, Path] = (APP, APP), options: tuple[str, ...] = ()
) -> AsyncIterator[Cluster]:
    """Args:
    database: its address.
    wired: whether the first node reaches it over ``back``; the address has one host then.
    options: further ones of the command line.
    """
    async with AsyncExitStack() as stack:
        port = urlsplit(database).port if wired else 1
        assert port is not None
        back = await stack.enter_async_context(laid(port))
        through = database.replace(f":{port}/", f":{back.port}/") if wired else database
        nodes = [
            Server(folder, app=app, command="start", db=url, options=options) for app, url in zip(apps, (through, database), strict=True)
        ]
        for node in nodes:
            stack.push_async_callback(asyncio.to_thread, node.stop)
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in nodes))
        front = await stack.enter_async_context(laid(*(node.port for node in nodes)))
        async with Client(nodes[0].url) as client:
            await client.mutation("bank:fill", accounts=ACCOUNTS, balance=BALANCE)
        yield Cluster(database, nodes, front, back)


async def ready(node: Server) -> tuple[int, dict[str, Any]]:
    """What the node says of itself at /readyz: status and body."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.get(f"{node.url}/readyz")
    return answer.status_code, answer.json()


async def become_ready(node: Server, within_s: float = 30.0) -> None:
    """Wait until clients may be sent to it."""
    async with asyncio.timeout(within_s):
        while (await ready(node))[0] != 200:
            await asyncio.sleep(0.05)


async def settle(two: Cluster, load: Load) -> None:
    """Stop the load, and check everything that clients were told."""
    await load.stop()
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        body = {"path": "lists:everything", "args": {"run": load.run}, "format": "json"}
        answer = await client.post(f"{two.nodes[1].url}/api/query", json=body)
        assert answer.is_success, answer.text
    await load.check(answer.json()["value"])
