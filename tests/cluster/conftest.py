"""One Postgres, that waits for its disk as a real one does, for the tests of a file; and where their figures go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, become_ready, cluster
from tests.support.benchmarks import keep_figures
from tests.support.postgres import PostgresServer, database

Figures = dict[str, Any]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer(durable=True) as server:
        yield server


@pytest.fixture(scope="module")
async def shared(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Cluster]:
    """Two nodes for all tests of a file that do not need their own; see ``two``."""
    with database(postgres.url) as url:
        async with cluster(url, tmp_path_factory.mktemp("cluster")) as two:
            yield two


@pytest.fixture
async def two(shared: Cluster, postgres: PostgresServer) -> Cluster:
    """The nodes, as they should be: a test before this one may have failed halfway."""
    shared.back.flowing.set()
    if postgres.process is None:
        await asyncio.to_thread(postgres.start)
    for node in shared.nodes:
        if node.process is None:
            await asyncio.to_thread(node.start)
        node.resume()
        await become_ready(node)
    return shared


@pytest.fixture
def database_url(postgres: PostgresServer) -> Iterator[str]:
    """The address of an empty database."""
    with database(postgres.url) as url:
        yield url


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """What the tests of a file measure, by what it is of: printed by each, kept in ``.benchmarks`` at the end."""
    measured: Figures = {}
    yield measured
    keep_figures(request.module.__name__.rpartition(".")[2].removeprefix("test_"), measured)


@pytest.fixture(autouse=True)
def quiet_clients(caplog: pytest.LogCaptureFixture) -> None:
    """That they reconnect is what is wanted."""
    caplog.set_level("ERROR", logger="reactor.client")
