"""`reactor env`, `.env.local`, and settings that an app cannot do without."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Reactor
from tests.support.preloaded import Command, run_command
from tests.support.server import REACTOR, Server
from tests.support.socket import Socket
from tests.support.waiting import eventually

SETTINGS = """
from pydantic import SecretStr
from reactor import EnvSettings


class Settings(EnvSettings):
    api_key: SecretStr
    sender: str = "nobody"
"""

MAIL = """
from deployment import Settings
from reactor import QueryCtx, query


@query
async def sender(ctx: QueryCtx) -> str:
    return ctx.env.settings(Settings).sender
"""

NAMES = """
from reactor import QueryCtx, query


@query
async def value(ctx: QueryCtx, name: str) -> str | None:
    return ctx.env.get(name)
"""


@pytest.fixture(autouse=True)
def names(app: Path) -> None:
    (app / "app_functions" / "names.py").write_text(NAMES)


def declare_settings(app: Path) -> None:
    (app / "deployment.py").write_text(SETTINGS)
    (app / "app_functions" / "mail.py").write_text(MAIL)


@pytest.mark.usefixtures("running")
def test_variables_are_set_listed_read_and_removed(reactor: Reactor, app: Path) -> None:
    assert reactor("env", "list").stdout == ""
    assert reactor("env", "set", "GREETING", "hej då").stdout == "Set GREETING\n"
    assert reactor("env", "set", "B=1=2").stdout == "Set B\n"
    assert reactor("env", "set", "C", input="from a pipe\n").stdout == "Set C\n"
    assert reactor("env", "list").stdout == "B=1=2\nC=from a pipe\nGREETING=hej då\n"
    assert reactor("env", "get", "GREETING").stdout == "hej då\n"
    assert json.loads(reactor("run", "names:value", '{"name": "GREETING"}').stdout) == "hej då"
    assert reactor("env", "remove", "GREETING").stdout == "Removed GREETING\n"
    missing = reactor("env", "get", "GREETING")
    assert (missing.returncode, missing.stderr) == (1, "GREETING is not set.\n")
    assert reactor("env", "remove", "GREETING").returncode == 0


@pytest.mark.usefixtures("running")
def test_a_file_is_set_as_a_whole_unless_it_would_replace_something(reactor: Reactor, app: Path) -> None:
    (app / "production.env").write_text("# comment\nA=1\nexport B='two words'\nC=\"a\\nb\"\n")
    assert reactor("env", "set", "--from-file", "production.env").stdout == "Set A\nSet B\nSet C\n"
    assert reactor("env", "get", "C").stdout == "a\nb\n"
    (app / "production.env").write_text("A=2\nB='two words'\nD=4\n")
    refused = reactor("env", "set", "--from-file", "production.env")
    assert refused.returncode == 1
    assert refused.stderr == "Nothing was changed: A has another value already. Write --force to replace it.\n"
    assert "D" not in reactor("env", "list").stdout
    assert reactor("env", "set", "--from-file", "production.env", "--force").returncode == 0
    assert reactor("env", "list").stdout.startswith("A=2\nB=two words\n")


WRONG: tuple[tuple[tuple[str, ...], int, str], ...] = (
    (("set", "1A", "x"), 1, "'1A' is no name of an environment variable"),
    (("set", "CONVEX_CLOUD_URL", "x"), 1, "cannot be set"),
    (("set", "A", "s3cret" * 2000), 1, "The value of A has 12000 bytes, at most 8192"),
    (("set",), 2, "give NAME VALUE, or --from-file FILE"),
    (("set", "A", "1", "--from-file", "x.env"), 2, "give NAME VALUE, or --from-file FILE"),
    (("set", "--from-file", "nowhere.env"), 1, "There is no file nowhere.env"),
    (("set", "--from-file", "latin.env"), 1, "latin.env: "),
    (("remove", "1A"), 1, "'1A' is no name"),
)


@pytest.mark.usefixtures("running")
def test_what_cannot_be_is_said(reactor: Reactor, app: Path) -> None:
    (app / "latin.env").write_bytes(b"A=\xe4\n")
    for arguments, status, said in WRONG:
        failed = reactor("env", *arguments)
        assert failed.returncode == status, arguments
        assert said in failed.stderr, arguments
        assert "s3cret" not in failed.stderr and "Traceback" not in failed.stderr
        assert reactor("env", "list").stdout == "", arguments


def test_a_live_query_follows_a_variable_and_no_log_has_its_value(reactor: Reactor, server: Server) -> None:
    with server, Socket(server.url) as client:
        client.subscribe("names:value", name="TOKEN")
        assert client.updated()["value"] is None
        reactor("env", "set", "TOKEN", "s3cret")
        assert client.updated()["value"] == "s3cret"
        reactor("env", "remove", "TOKEN")
        assert client.updated()["value"] is None
        assert "s3cret" not in server.output()


def test_dev_waits_for_a_variable_that_the_settings_need(reactor: Reactor, server: Server, app: Path) -> None:
    declare_settings(app)
    process = Command(server.arguments, app, server.log)
    try:
        eventually(lambda: "Save a change" in server.output(), "the message")
        assert "deployment.Settings needs the environment variable API_KEY, which is not set" in server.output()
        assert reactor("env", "set", "API_KEY", "sk").returncode == 0
        server.process = process
        eventually(server.answers, "the server")
        refused = reactor("env", "remove", "API_KEY")
        assert refused.returncode == 1 and "needs the environment variable API_KEY" in refused.stderr
    finally:
        process.kill()
        process.wait()


def test_settings_declared_while_it_serves_are_pushed_once_they_are_met(reactor: Reactor, server: Server, app: Path) -> None:
    with server:
        declare_settings(app)
        eventually(lambda: "API_KEY, which is not set" in server.output(), "the message")
        reactor("env", "set", "API_KEY", "sk")
        eventually(lambda: "OK again" in server.output(), "the push")
        assert json.loads(reactor("run", "mail:sender").stdout) == "nobody"


def test_start_says_what_is_missing_and_ends(server: Server, app: Path, reactor: Reactor) -> None:
    declare_settings(app)
    ended = subprocess.run([str(REACTOR), "start", "--port", "0"], cwd=app, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "needs the environment variable API_KEY" in ended.stdout + ended.stderr


def test_what_env_local_says_is_set_and_followed_in_development(reactor: Reactor, server: Server, app: Path) -> None:
    declare_settings(app)
    file = app / ".env.local"
    file.write_text("API_KEY=sk\nSENDER=ann\nVITE_CONVEX_URL=http://127.0.0.1:3210\nCONVEX_CLOUD_URL=http://127.0.0.1:3210\n")
    with server, Socket(server.url) as client:
        client.subscribe("mail:sender")
        assert client.updated()["value"] == "ann"
        file.write_text("API_KEY=sk\nSENDER=bob\n")
        assert client.updated()["value"] == "bob"
        file.write_text("API_KEY=sk\n")
        assert client.updated()["value"] == "nobody"
        file.write_text("SENDER=eve\n")
        eventually(lambda: "needs the environment variable API_KEY" in server.output(), "the message")
        assert "API_KEY=sk" in reactor("env", "list").stdout
        file.write_text("API_KEY=sk\n1SENDER=eve\n")
        eventually(lambda: "'1SENDER' is no name" in server.output(), "the message")
        file.write_bytes(b"API_KEY=\xe4\n")
        eventually(lambda: ".env.local: " in server.output(), "the message")
        file.write_text("API_KEY=sk\nSENDER=eve\n")
        assert client.updated()["value"] == "eve"


def test_production_does_not_read_env_local(reactor: Reactor, server: Server, app: Path) -> None:
    (app / ".env.local").write_text("A=1\n")
    server.arguments[1] = "start"
    with server:
        assert reactor("env", "list").stdout == ""


@pytest.mark.parametrize("command", [["env", "set", "KEY", "secret"], ["env", "list"], ["keys", "create", "deploy"]])
def test_no_database_is_made_where_there_is_no_app(tmp_path: Path, app: Path, command: list[str]) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    done = run_command(str(REACTOR), *command, cwd=folder)
    assert done.returncode == 1 and "elsewhere holds no app" in done.stderr, done
    assert list(folder.iterdir()) == []
    named = run_command(str(REACTOR), *command, "--db", "own.db", cwd=folder)
    assert named.returncode == 0, named.stderr
