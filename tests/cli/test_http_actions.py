"""HTTP actions as `reactor start` and `reactor dev` serve them: on both ports, opaque, and started again after a hang."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.ports import reserve_port
from tests.support.server import Server
from tests.support.waiting import eventually

HTTP = """
import re

from reactor import ActionCtx, HttpRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from app_functions import notes

http = HttpRouter()


@http.route("/notes", methods=["POST"])
async def add(ctx: ActionCtx, request: Request) -> Response:
    await ctx.run_mutation(notes.add, text=(await request.body()).decode())
    return PlainTextResponse("\\n".join(await ctx.run_query(notes.texts)))


@http.route("/fails")
async def fails(ctx: ActionCtx, request: Request) -> Response:
    raise ValueError("a secret of the app")


@http.route(prefix="/match/")
async def match(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse(str(re.fullmatch("(a+)+", request.path_params["rest"]) is not None))
"""


@pytest.fixture
def site(app: Path) -> str:
    (app / "app_functions" / "http.py").write_text(HTTP)
    return str(reserve_port())


@pytest.fixture
def server(app: Path, tmp_path: Path, site: str) -> Iterator[Server]:
    with Server(tmp_path, app=app, command="start", options=("--site-port", site)) as server:
        yield server


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, verify=False, timeout=60)


def test_both_ports_serve_them_also_after_the_node_hung(server: Server, site: str) -> None:
    own = f"http://127.0.0.1:{site}"
    assert httpx.post(f"{own}/notes", content="one", trust_env=False, verify=False).text == "one"
    assert httpx.post(f"{server.url}/notes", content="two", trust_env=False, verify=False).text == "one\ntwo"
    assert get(f"{own}/version").status_code == 404
    with pytest.raises(httpx.TransportError):
        get(f"{own}/match/{'a' * 40}b")
    assert get(f"{own}/match/aaa").text == "True"  # the connection waits for the new node
    assert "GET /match/* /match/" in server.output()
    assert get(f"{own}/match/{'a' * 40}b").status_code == 503


def test_a_failure_tells_clients_the_request_that_the_log_has_in_full(server: Server) -> None:
    answer = get(f"{server.url}/fails")
    assert answer.status_code == 500 and list(answer.json()) == ["code"]
    request_id = answer.json()["code"].removeprefix("[Request ID: ").removesuffix("] Server Error")

    def logged() -> list[dict[str, object]]:
        lines = [json.loads(line) for line in server.output().splitlines()]
        return [line for line in lines if line.get("request_id") == request_id]

    (line,) = eventually(logged, "its line in the log")
    assert (line["path"], line["kind"], line["origin"]) == ("GET /fails", "action", "http action")
    assert "a secret of the app" in str(line["error"])


def test_reactor_dev_says_where_they_are_and_takes_up_a_changed_route(app: Path, tmp_path: Path, site: str) -> None:
    with Server(tmp_path, app=app, options=("--site-port", site)) as server:
        assert f"HTTP       http://127.0.0.1:{site}/\n" in server.output()
        (app / "app_functions" / "http.py").write_text(HTTP.replace('"/fails"', '"/failing"'))
        eventually(lambda: get(f"{server.url}/failing").status_code == 500, "the new route")
        assert get(f"{server.url}/fails").status_code == 404
