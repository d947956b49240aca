"""`reactor dev`: one command, no question, and code that is taken up as it is saved."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import textwrap
from collections.abc import Iterator
from pathlib import Path

import apsw
import httpx
import pytest

from tests.cli.conftest import Reactor
from tests.support.preloaded import Command
from tests.support.server import Server
from tests.support.socket import Socket
from tests.support.waiting import eventually


@pytest.fixture
def server(app: Path, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, app=app) as server:
        yield server


def call(server: Server, kind: str, path: str, **args: object) -> object:
    body = {"path": path, "args": args, "format": "json"}
    answer = httpx.post(f"{server.url}/api/{kind}", json=body, trust_env=False, verify=False).json()
    assert answer["status"] == "success", answer
    return answer["value"]


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def test_it_greets_in_ten_lines_with_all_that_a_front_end_needs(server: Server) -> None:
    greeting = server.output()
    assert len(greeting.splitlines()) <= 10
    for part in (server.url, "app_functions/", "CONVEX_URL", "VITE_CONVEX_URL", "NEXT_PUBLIC_CONVEX_URL", "EXPO_PUBLIC_CONVEX_URL"):
        assert part in greeting


def test_each_run_is_a_line_with_its_duration_and_what_it_printed(server: Server) -> None:
    call(server, "mutation", "notes:add", text="one")
    call(server, "query", "notes:texts")
    output = eventually(lambda: server.output() if "notes:texts" in server.output() else "", "the line")
    mutation, printed, query = output.splitlines()[-3:]
    assert "mutation notes:add" in mutation
    assert re.search(r" \d+\.\d ms read 0 \(0 B\), wrote 1 \(\d+ B\) \[\w+\]$", mutation)
    assert printed.strip() == "[LOG] 'adding one'"
    assert "query    notes:texts" in query


def test_a_saved_function_serves_and_live_queries_follow_on_the_same_socket(server: Server, app: Path) -> None:
    call(server, "mutation", "notes:add", text="one")
    with Socket(server.url) as client:
        client.subscribe("notes:texts")
        assert client.updated()["value"] == ["one"]
        edit(app / "app_functions" / "notes.py", "[note.text for", "[note.text.upper() for")
        assert client.updated()["value"] == ["ONE"]
        call(server, "mutation", "notes:add", text="two")
        assert client.updated()["value"] == ["ONE", "TWO"]


def test_a_new_module_and_a_helper_beside_the_schema_are_taken_up(server: Server, app: Path) -> None:
    (app / "helper.py").write_text("WORD = 'first'\n")
    (app / "app_functions" / "deep").mkdir()
    (app / "app_functions" / "deep" / "new.py").write_text(
        "from helper import WORD\nfrom reactor import QueryCtx, query\n\n\n@query\nasync def word(ctx: QueryCtx) -> str:\n    return WORD\n"
    )
    eventually(lambda: "6 functions" in server.output(), "the push")
    assert call(server, "query", "deep/new:word") == "first"
    edit(app / "helper.py", "first", "second")
    eventually(lambda: call(server, "query", "deep/new:word") == "second", "the change of the helper")


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("app_functions/notes.py", "return await ctx.db.insert", "return return", "app_functions/notes.py:18: invalid syntax"),
        ("app_functions/notes.py", "from schema import Note", "from schema import Nope", "app_functions/notes.py:7: ImportError"),
        ("schema.py", 'Index("stars")', 'Index("stras")', "schema.py:5, class Note, index 'by_stars': there is no field 'stras'"),
        ("schema.py", "stars: float = 0", "stars: str", "stars"),
    ],
    ids=["syntax error", "import error", "wrong schema", "a schema that a document does not fit"],
)
def test_what_cannot_serve_is_shown_and_the_version_before_goes_on(
    server: Server, app: Path, file: str, before: str, after: str, said: str
) -> None:
    id = call(server, "mutation", "notes:add", text="one")
    edit(app / file, before, after)
    output = eventually(lambda: server.output() if "The version before" in server.output() else "", "the message")
    assert said in output
    if "document" in output:
        assert str(id) in output
    assert "Traceback" not in output
    assert call(server, "query", "notes:texts") == ["one"]
    edit(app / file, after, before)
    eventually(lambda: "OK again" in server.output(), "the push")
    call(server, "mutation", "notes:add", text="two")


def test_an_app_that_does_not_load_at_the_start_is_waited_for(app: Path, tmp_path: Path) -> None:
    edit(app / "schema.py", "text: str", "text: str:")
    server = Server(tmp_path, app=app)
    process = Command(server.arguments, app, tmp_path / "out")
    try:
        eventually(lambda: "schema.py:6: invalid syntax" in (tmp_path / "out").read_text(), "the message")
        edit(app / "schema.py", "text: str:", "text: str")
        server.process = process
        eventually(server.answers, "the server")
    finally:
        process.kill()
        process.wait()


def test_once_pushes_and_ends(reactor: Reactor, app: Path) -> None:
    done = reactor("dev", "--once")
    assert done.returncode == 0, done.stderr
    assert "Pushed 1 table and 5 functions" in done.stdout
    edit(app / "schema.py", 'Index("stars")', 'Index("text", "text")')
    failed = reactor("dev", "--once")
    assert failed.returncode == 1
    assert failed.stderr == "schema.py:5, class Note, index 'by_stars' names the field 'text' twice.\n"


def test_without_an_app_it_says_what_to_do(reactor: Reactor, app: Path) -> None:
    shutil.rmtree(app / "app_functions")
    (app / "schema.py").unlink()
    failed = reactor("dev", "--port", "0")
    assert failed.returncode == 1
    assert "reactor init" in failed.stderr


def test_a_port_in_use_is_told_before_anything_else(reactor: Reactor, app: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = reactor("dev", "--port", str(port))
    assert failed.returncode == 1
    assert failed.stderr == f"Port {port} is in use. Stop what uses it, or choose another with --port.\n"
    assert not (app / ".reactor").exists()


def newer(file: Path) -> None:
    connection = apsw.Connection(str(file))
    connection.execute(f"PRAGMA user_version={2**30}")
    connection.close()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda file: file.write_bytes(os.urandom(20_000)), "not a"),
        (lambda file: file.write_bytes(b""), ""),
        (newer, "later version"),
    ],
    ids=["no database", "empty", "of a later version"],
)
def test_a_database_that_it_cannot_use_is_left_as_it_is(reactor: Reactor, app: Path, harm: object, said: str) -> None:
    assert reactor("dev", "--once").returncode == 0
    file = app / ".reactor" / "reactor.db"
    assert callable(harm)
    harm(file)
    before = file.read_bytes()
    done = reactor("dev", "--once", "--no-reload")
    if not said:
        assert done.returncode == 0  # a new file: what a crash at the first start leaves
        return
    assert done.returncode == 1
    assert str(file.relative_to(app)) in done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert file.read_bytes() == before


def test_a_second_server_on_the_database_is_refused(server: Server, reactor: Reactor) -> None:
    refused = reactor("dev", "--port", "0", "--db", server.arguments[-1])
    assert refused.returncode == 1
    assert "in use by process" in refused.stderr


def test_a_folder_that_cannot_be_written_is_named(reactor: Reactor) -> None:
    refused = reactor("dev", "--port", "0", "--db", "/proc/nowhere/reactor.db", "--no-reload")
    assert refused.returncode == 1
    assert "/proc/nowhere" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(("name", "value"), [("REACTOR_PORT", "many"), ("REACTOR_SYNCHRONOUS", "off")])
def test_a_wrong_setting_is_named(app: Path, reactor: Reactor, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    refused = reactor("dev")
    assert refused.returncode == 1
    assert name in refused.stderr
    assert value in refused.stderr


@pytest.mark.parametrize("where", ["in an action", "in a module that is saved"])
def test_ctrl_c_pressed_again_ends_what_computes_on_and_on(server: Server, app: Path, where: str) -> None:
    began = app / "began"
    spin = f"__import__('pathlib').Path({str(began)!r}).touch()\nwhile True:\n    pass\n"
    if where == "in an action":
        action = "from reactor import ActionCtx, action\n\n@action\nasync def spin(ctx: ActionCtx) -> None:\n"
        (app / "app_functions" / "busy.py").write_text(action + textwrap.indent(spin, "    "))
        eventually(lambda: "functions in" in server.output(), "the push")
        with contextlib.suppress(httpx.TimeoutException):
            httpx.post(f"{server.url}/api/action", json={"path": "busy:spin", "args": {}}, trust_env=False, verify=False, timeout=0.5)
    else:
        (app / "app_functions" / "busy.py").write_text(spin)
    eventually(began.exists, "the loop")

    def ended() -> bool:
        assert server.process is not None
        with contextlib.suppress(ProcessLookupError):
            server.send(signal.SIGINT)
        return server.process.poll() is not None

    eventually(ended, "its end")
