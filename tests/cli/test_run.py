"""`reactor run`: a function called from the terminal, with or without a server."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.conftest import Reactor
from tests.support.server import Server
from tests.support.waiting import eventually


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


def test_a_server_that_is_killed_before_it_has_answered_is_said_to_be_lost(reactor: Reactor, server: Server) -> None:
    with server, ThreadPoolExecutor() as threads:
        waiting = threads.submit(reactor, "run", "notes:slowly", '{"text": "it"}')
        eventually(lambda: "it began" in reactor("run", "notes:texts").stdout, "the action has begun")
        server.kill()
        failed = waiting.result()
    assert failed.returncode == 1
    assert f"The server at {server.url} went away before it had answered" in failed.stderr
    assert "see whether it has" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello", b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n[]", b"220 mail\r\n"],
)
def test_another_program_at_the_address_of_a_server_that_was_killed_is_named(reactor: Reactor, app: Path, answer: bytes) -> None:
    assert reactor("dev", "--once").returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor() as threads:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        (app / ".reactor" / "reactor.db-server").write_text(f"{url}\n")

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        serving = threads.submit(serve)
        failed = reactor("run", "notes:texts")
        serving.result()
    assert failed.returncode == 1
    assert url in failed.stderr
    assert "Traceback" not in failed.stderr
