"""The commands on a Postgres database: with a server on it in this folder, with one elsewhere, and with none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.cli.conftest import Reactor
from tests.cli.test_env import NAMES
from tests.support.postgres import database
from tests.support.server import Server
from tests.support.socket import Socket

Succeeds: TypeAlias = Callable[..., str]


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    with database(postgres_url) as url:
        yield url


@pytest.fixture
def server(app: Path, url: str) -> Server:
    """Not started."""
    (app / "app_functions" / "names.py").write_text(NAMES)
    return Server(app, app=app, command="start", db=url)


@pytest.fixture
def succeeds(reactor: Reactor, url: str, server: Server) -> Succeeds:
    """Runs the command on the database, and gives what it prints."""

    def run(*arguments: str) -> str:
        done = reactor(*arguments, "--db", url)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.usefixtures("running")
def test_variables_functions_and_keys(succeeds: Succeeds, reactor: Reactor, app: Path, url: str) -> None:
    assert succeeds("env", "set", "GREETING", "hej då") == "Set GREETING\n"
    (app / "more.env").write_text("D='two words'\n")
    assert succeeds("env", "set", "--from-file", "more.env") == "Set D\n"
    assert succeeds("env", "list") == "D=two words\nGREETING=hej då\n"
    assert json.loads(succeeds("run", "names:value", '{"name": "GREETING"}')) == "hej då"
    assert succeeds("env", "remove", "GREETING") == "Removed GREETING\n"
    missing = reactor("env", "get", "GREETING", "--db", url)
    assert (missing.returncode, missing.stderr) == (1, "GREETING is not set.\n")

    assert json.loads(succeeds("run", "notes:count")) == 0

    assert succeeds("keys", "create", "deploy").startswith("deploy|")
    assert succeeds("keys", "list").endswith(" UTC  deploy\n")
    assert succeeds("keys", "revoke", "deploy") == ""


def test_a_server_elsewhere_follows_what_the_commands_change(succeeds: Succeeds, server: Server, app: Path) -> None:
    with server, Socket(server.url) as client:
        for left in (app / ".reactor").glob("*-server"):
            left.unlink()
        client.subscribe("names:value", name="TOKEN")
        assert client.updated()["value"] is None
        succeeds("env", "set", "TOKEN", "s3cret")
        assert client.updated()["value"] == "s3cret"
        client.subscribe("notes:texts")
        assert client.updated()["value"] == []
        succeeds("run", "notes:add", '{"text": "from elsewhere"}')
        assert client.updated()["value"] == ["from elsewhere"]
        assert "s3cret" not in server.output()


def test_the_address_may_come_from_the_environment(succeeds: Succeeds, reactor: Reactor, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Pushed 1 table and 6 functions to postgres://" in succeeds("dev", "--once")
    monkeypatch.setenv("REACTOR_DB", url)
    assert reactor("env", "set", "A", "1").returncode == 0
    assert reactor("env", "list").stdout == "A=1\n"
    assert json.loads(reactor("run", "notes:count").stdout) == 0


def test_a_database_that_does_not_answer_is_said_to(reactor: Reactor) -> None:
    address = "postgres://someone:s3cret@127.0.0.1:1/none"
    for arguments in (("env", "set", "A", "1"), ("keys", "list"), ("run", "notes:count")):
        failed = reactor(*arguments, "--db", address)
        assert failed.returncode == 1
        assert failed.stderr.startswith("postgres://127.0.0.1:1/none: the database does not answer"), failed.stderr
        assert "s3cret" not in failed.stderr and "Traceback" not in failed.stderr
