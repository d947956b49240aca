"""The official JavaScript client, unchanged, against a live server. Each script holds several scenarios."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.node import run_scenarios
from tests.support.server import Server

SCENARIOS = Path(__file__).with_name("scenarios")


@pytest.mark.parametrize("subject", ["live", "values", "http", "pages", "restart", "files", "logs"])
def test_the_javascript_client(subject: str, tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        run_scenarios(SCENARIOS / f"{subject}.mjs", server)


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
