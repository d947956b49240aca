"""kill -9 in a loop under write load: what was acknowledged stays, and nothing happens twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.node import run_scenarios
from tests.support.server import Server

#: REACTOR_TEST_LONG=1 is for a machine with time: it finds what only a rare moment shows.
KILLS = 100 if os.environ.get("REACTOR_TEST_LONG") else 5


@pytest.mark.parametrize("command", ["dev", "start"])
def test_every_acknowledged_mutation_survives_kills_and_none_is_applied_twice(command: str, tmp_path: Path) -> None:
    with Server(tmp_path, command=command) as server:
        run_scenarios(Path(__file__).with_name("kill.mjs"), server, within_s=60 + 20 * KILLS, kills=str(KILLS))
