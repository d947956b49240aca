"""`reactor run`: a function called from the terminal, with or without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Reactor


@pytest.mark.usefixtures("running")
def test_it_prints_the_result_as_json_and_the_log_beside_it(reactor: Reactor) -> None:
    added = reactor("run", "notes:add", '{"text": "ein Fähnchen"}')
    assert added.returncode == 0, added.stderr
    assert len(json.loads(added.stdout)) >= 31
    assert "adding ein Fähnchen" in added.stderr
    assert json.loads(reactor("run", "notes:texts").stdout) == ["ein Fähnchen"]


@pytest.mark.usefixtures("running")
def test_internal_functions_can_be_called(reactor: Reactor) -> None:
    assert json.loads(reactor("run", "notes:count").stdout) == 0


WRONG: tuple[tuple[tuple[str, ...], str], ...] = (
    (("notes:nope",), "Could not find"),
    (("notes:add", '{"text": 5}'), "text"),
    (("notes:add", "[]"), "object"),
    (("notes:add", "{text"), "not JSON"),
)


@pytest.mark.usefixtures("running")
def test_what_fails_is_said_with_exit_status_1(reactor: Reactor) -> None:
    for arguments, said in WRONG:
        failed = reactor("run", *arguments)
        assert failed.returncode == 1, arguments
        assert said in failed.stderr, arguments
        assert failed.stdout == ""
        assert "Traceback" not in failed.stderr


def test_a_server_that_was_killed_leaves_nothing_in_the_way(reactor: Reactor, app: Path) -> None:
    assert reactor("dev", "--once").returncode == 0
    (app / ".reactor" / "reactor.db-server").write_text("http://127.0.0.1:1\n")
    assert json.loads(reactor("run", "notes:texts").stdout) == []
