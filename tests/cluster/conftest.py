"""One Postgres, that waits for its disk as a real one does, for the tests of a file; and where their figures go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

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
