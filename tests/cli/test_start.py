"""`reactor start`: production."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from reactor.server.supervisor import _Board
from tests.cli.conftest import Reactor
from tests.support.preloaded import Command
from tests.support.server import Server
from tests.support.socket import Socket
from tests.support.waiting import eventually


@pytest.fixture
def server(app: Path, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, app=app, command="start") as server:
        yield server


def call(server: Server, kind: str, path: str, **args: object) -> Any:
    body = {"path": path, "args": args, "format": "json"}
    return httpx.post(f"{server.url}/api/{kind}", json=body, trust_env=False, verify=False, timeout=60).json()


def lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.output().splitlines()]


def test_every_line_is_json_and_a_run_says_who_and_how_long(server: Server) -> None:
    call(server, "mutation", "notes:add", text="one")
    call(server, "query", "notes:texts", wrong=1)
    run, failed = eventually(lambda: [line for line in lines(server) if line["message"] == "run"][1:2] and lines(server)[-2:], "the runs")
    assert (run["path"], run["ok"], run["log_lines"]) == ("notes:add", True, ["[LOG] 'adding one'"])
    assert run["duration_ms"] > 0
    assert (failed["path"], failed["level"], failed["error"]["code"]) == ("notes:texts", "error", "ArgumentValidationError")


def test_clients_are_told_the_request_and_nothing_else_of_what_failed(server: Server) -> None:
    answer = call(server, "query", "notes:texts", wrong=1)
    assert answer["errorMessage"].endswith("Server Error")
    request_id = answer["errorMessage"].removeprefix("[Request ID: ").partition("]")[0]
    eventually(lambda: any(line.get("request_id") == request_id for line in lines(server)), "its line in the log")


def test_saved_files_are_not_taken_up(server: Server, app: Path) -> None:
    file = app / "app_functions" / "notes.py"
    file.write_text("syntax error")
    assert call(server, "query", "notes:texts")["value"] == []
    assert "syntax" not in server.output()


def test_a_stop_finishes_what_runs_and_then_closes_the_sockets(server: Server, app: Path) -> None:
    with Socket(server.url) as client, ThreadPoolExecutor(1) as background:
        client.subscribe("notes:texts")
        client.send(type="Action", requestId=1, udfPath="notes:slowly", args=[{"text": "it"}])
        eventually(lambda: call(server, "query", "notes:texts")["value"] == ["it began"], "the action to begin")
        assert server.process is not None
        process = server.process
        stopped = background.submit(server.stop)
        eventually(lambda: refuses(server), "the listening socket to close")
        (app / "go on").touch()
        assert client.receive("ActionResponse")["success"]
        stopped.result()
    assert process.returncode == 0
    assert lines(server)[-1]["message"] == "Stopped"
    server.start()
    assert call(server, "query", "notes:texts")["value"][-1] == "it ended"


SCHEDULING = """
from datetime import timedelta

from app_functions import notes
from reactor import MutationCtx, mutation


@mutation
async def begin(ctx: MutationCtx, text: str) -> None:
    await ctx.scheduler.run_after(timedelta(0), notes.slowly, text=text)
"""


def test_a_node_that_waits_for_scheduled_functions_at_a_stop_is_not_taken_for_one_that_hangs(app: Path, tmp_path: Path) -> None:
    (app / "app_functions" / "scheduling.py").write_text(SCHEDULING)
    with Server(tmp_path, app=app, command="start") as server, ThreadPoolExecutor(1) as background:
        call(server, "mutation", "scheduling:begin", text="it")
        eventually(lambda: call(server, "query", "notes:texts")["value"] == ["it began"], "the action to begin")
        assert server.process is not None
        (node,) = psutil.Process(server.process.pid).children()
        stopped = background.submit(server.stop)
        eventually(lambda: lines(server)[-1]["message"] == "Stopped", "all else to end")
        before = beats(node.pid)
        eventually(lambda: beats(node.pid) > before + 1, "the node to go on beating")
        (app / "go on").touch()
        stopped.result()
        server.start()
        assert call(server, "query", "notes:texts")["value"][-1] == "it ended"


def beats(node: int) -> int:
    """How often a node's event loop has told its supervisor that it is alive."""
    for file in Path(f"/proc/{node}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if "(deleted)" in str(file.readlink()) and file.stat().st_size == _Board.SIZE:
                with file.open("rb") as board:
                    return int.from_bytes(board.read(8), "little")
    raise AssertionError("the node has no board")


def refuses(server: Server) -> bool:
    try:
        httpx.get(f"{server.url}/version", trust_env=False, verify=False, timeout=0.2)
    except httpx.TransportError:
        return True
    return False


def test_a_second_signal_does_not_wait(server: Server) -> None:
    with Socket(server.url) as client:
        client.send(type="Action", requestId=1, udfPath="notes:slowly", args=[{"text": "it"}])
        eventually(lambda: call(server, "query", "notes:texts")["value"] == ["it began"], "the action to begin")
        assert server.process is not None
        server.send(signal.SIGTERM)
        eventually(lambda: refuses(server), "the first signal to be taken")
        server.stop()
    server.start()
    assert call(server, "query", "notes:texts")["value"] == ["it began"]


def test_a_node_that_hangs_in_c_is_started_again_and_refuses_the_call(server: Server) -> None:
    """A regular expression holds the interpreter: no thread of the node could interrupt it."""
    text = "a" * 40 + "b"
    assert call(server, "mutation", "notes:add", text="kept")["status"] == "success"
    with pytest.raises(httpx.TransportError):
        call(server, "query", "notes:catastrophic", text=text)
    assert call(server, "query", "notes:texts")["value"] == ["kept"]  # the connection waits for the new node
    (hung,) = [line for line in lines(server) if "did not answer" in line["message"]]
    assert f'notes:catastrophic {{"text":"{text}"}}' in hung["message"]
    refused = call(server, "query", "notes:catastrophic", text=text)
    assert refused["status"] == "error"
    failed = eventually(lambda: [line for line in lines(server) if line.get("error", {}).get("code") == "CallRefused"], "the log")
    assert "refused for a while" in failed[0]["error"]["text"]
    assert call(server, "query", "notes:catastrophic", text="aaa")["value"] is True


def test_a_node_that_dies_is_started_again(server: Server) -> None:
    call(server, "mutation", "notes:add", text="kept")
    assert server.process is not None
    (node,) = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    os.kill(int(node), signal.SIGSEGV)
    eventually(lambda: "died of SIGSEGV" in server.output(), "the supervisor's word")
    assert call(server, "query", "notes:texts")["value"] == ["kept"]


def test_what_keeps_it_from_starting_is_said_once(app: Path, tmp_path: Path) -> None:
    (app / "schema.py").write_text("nonsense")
    server = Server(tmp_path, app=app, command="start")
    with pytest.raises(AssertionError, match="ended with 1"):
        server.start()
    assert server.output() == "schema.py:1: NameError: name 'nonsense' is not defined\n    nonsense\n"


def test_the_port_of_a_supervisor_that_was_killed_is_waited_for_until_its_node_has_ended(server: Server) -> None:
    call(server, "mutation", "notes:add", text="before")
    assert server.process is not None
    (node,) = psutil.Process(server.process.pid).children()
    node.suspend()  # as one that has not noticed yet
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(20)
    server.process = Command(server.arguments, server.app, server.log)
    eventually(lambda: f"Port {server.port} is in use" in server.output(), "the new one to find the port in use")
    node.kill()
    eventually(server.answers, "the new one to answer")
    assert call(server, "query", "notes:texts")["value"] == ["before"]


def test_a_port_that_stays_in_use_is_given_up(reactor: Reactor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = reactor("start", "--port", str(port))
    assert failed.returncode == 1
    assert failed.stderr == f"Port {port} is in use. Stop what uses it, or choose another with --port.\n"
