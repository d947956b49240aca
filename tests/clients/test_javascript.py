"""The official JavaScript client, unchanged, against a live server. Each script holds several scenarios."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.node import run_scenarios
from tests.support.server import Server

SCENARIOS = Path(__file__).with_name("scenarios")


@pytest.mark.parametrize("subject", ["live", "values", "http", "pages", "restart", "files"])
def test_the_javascript_client(subject: str, tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        run_scenarios(SCENARIOS / f"{subject}.mjs", server)


def test_in_production_only_application_errors_speak(tmp_path: Path) -> None:
    with Server(tmp_path, command="start") as server:
        run_scenarios(SCENARIOS / "production.mjs", server)
