"""The official JavaScript client, unchanged, against a live server. Each script holds several scenarios."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import Databases
from tests.support.node import run_scenarios
from tests.support.server import Server

SCENARIOS = Path(__file__).with_name("scenarios")


@pytest.fixture(scope="module")
def server(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For all scripts: each uses names of its own, and leaves a server that runs."""
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.mark.parametrize("subject", ["live", "values", "http", "pages", "restart", "files"])
def test_the_javascript_client(server: Server, subject: str) -> None:
    run_scenarios(SCENARIOS / f"{subject}.mjs", server)


def test_the_javascript_client_prints_the_lines_of_functions(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        run_scenarios(SCENARIOS / "logs.mjs", server)


def test_in_production_only_application_errors_speak(tmp_path: Path) -> None:
    with Server(tmp_path, command="start") as server:
        run_scenarios(SCENARIOS / "production.mjs", server)


def test_in_production_no_line_of_a_function_reaches_a_client_and_all_are_in_the_log(tmp_path: Path) -> None:
    with Server(tmp_path, command="start") as server:
        run_scenarios(SCENARIOS / "logs.mjs", server, production="yes")
        server.stop()
        logged = server.log.read_text()
    for line in ("[LOG] 'looking for live'", "[INFO] 'writing socket'", "[WARN] 'acting on http'", "[LOG] 'refusing http'"):
        assert line in logged
