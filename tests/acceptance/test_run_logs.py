"""What a server prints of each run, of every kind of function, on both stores."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from reactor.client import Client
from tests.support.postgres import database
from tests.support.server import Server
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

SCHEMA = """
from reactor import Document, Index

class Note(Document, table="notes"):
    text: str
    by_text = Index("text")
"""

NOTES = """
import logging
from datetime import timedelta
from reactor import ActionCtx, AppError, MutationCtx, QueryCtx, action, internal_mutation, mutation, query
from schema import Note

log = logging.getLogger(__name__)

@query
async def count(ctx: QueryCtx) -> int:
    print("counting")
    return await ctx.db.query(Note).count()

@mutation
async def add(ctx: MutationCtx, text: str) -> None:
    log.warning("adding %s", text)
    await ctx.db.insert(Note(text=text))

@mutation
async def refuse(ctx: MutationCtx) -> None:
    print("refusing")
    raise AppError({"seats": 0})

@mutation
async def crash(ctx: MutationCtx) -> None:
    raise RuntimeError("the secret is 4711")

@action
async def act(ctx: ActionCtx, text: str) -> None:
    print("acting")
    await ctx.run_mutation(add, text=text)
    await ctx.run_action(inner)

@action
async def inner(ctx: ActionCtx) -> None:
    print("inside")

@mutation
async def later(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(timedelta(0), scheduled)
    await ctx.scheduler.run_after(timedelta(0), inner)

@internal_mutation
async def scheduled(ctx: MutationCtx) -> None:
    print("scheduled")
    await ctx.db.insert(Note(text="scheduled"))
"""

CRONS = """
from datetime import timedelta
from reactor import Crons
from app_functions.notes import scheduled

crons = Crons()
crons.interval("tidy", timedelta(hours=1), scheduled)
"""

HTTP = """
from reactor import ActionCtx, HttpRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from app_functions.notes import count

http = HttpRouter()

@http.route("/hook", methods=["POST"])
async def hook(ctx: ActionCtx, request: Request) -> Response:
    print("hooked")
    return PlainTextResponse(str(await ctx.run_query(count)))
"""


@pytest.fixture(params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    app = tmp_path / "app"
    (app / "app_functions").mkdir(parents=True)
    (app / "schema.py").write_text(SCHEMA)
    for name, text in (("notes", NOTES), ("crons", CRONS), ("http", HTTP)):
        (app / "app_functions" / f"{name}.py").write_text(text)
    if request.param == "sqlite":
        with Server(tmp_path, app=app, command="start", db=str(tmp_path / "test.db")) as server:
            yield server
    else:
        with database(request.getfixturevalue("postgres_url")) as url, Server(tmp_path, app=app, command="start", db=url) as server:
            yield server


def runs(server: Server) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"] == "run"]


async def test_every_run_is_one_line_with_all_that_is_known_of_it(server: Server) -> None:
    async with Client(server.url) as client, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        await client.query("notes:count")
        await client.mutation("notes:add", text="one")
        await client.action("notes:act", text="two")
        for failing in ("notes:refuse", "notes:crash"):
            with pytest.raises(Exception, match=r"."):
                await client.mutation(failing)
        await client.mutation("notes:later")
        assert (await http.post("/hook")).status_code == 200
        await http.post("/api/query", json={"path": "made:up", "args": {}}, headers={"convex-request-id": "my-request"})
        wanted = {
            ("query", "notes:count", "sync"),
            ("mutation", "notes:add", "sync"),
            ("action", "notes:act", "sync"),
            ("mutation", "notes:add", "action"),
            ("action", "notes:inner", "action"),
            ("mutation", "notes:refuse", "sync"),
            ("mutation", "notes:crash", "sync"),
            ("mutation", "notes:later", "sync"),
            ("mutation", "notes:scheduled", "scheduler"),
            ("action", "notes:inner", "scheduler"),
            ("mutation", "notes:scheduled", "cron"),
            ("action", "POST /hook", "http action"),
            ("query", "notes:count", "action"),
            ("query", "made:up", "http"),
        }
        seen = lambda: {(line["kind"], line["path"], line["origin"]) for line in runs(server)}  # noqa: E731
        await eventually_async(lambda: seen() >= wanted, f"lines of {wanted}")
    by_run = {(line["path"], line["origin"]): line for line in runs(server)}
    for line in by_run.values():
        assert line["time"] > 1.7e9 and line["duration_ms"] > 0 and line["request_id"], line
        assert line["level"] == ("info" if line["ok"] else "error") and isinstance(line["cached"], bool), line
        assert line["attempts"] >= (0 if line["cached"] else 1), line

    added = by_run["notes:add", "sync"]
    assert added["ok"] and added["log_lines"] == ["[WARN] 'adding one'"]
    assert added["usage"]["documents_written"] == 1 and added["usage"]["bytes_written"] > 0
    counted = by_run["notes:count", "sync"]
    assert counted["log_lines"] == ["[LOG] 'counting'"] and counted["usage"]["documents_read"] >= 0
    assert by_run["notes:act", "sync"]["log_lines"] == ["[LOG] 'acting'"]
    same_request = {by_run[name]["request_id"] for name in (("notes:act", "sync"), ("notes:add", "action"), ("notes:inner", "action"))}
    assert len(same_request) == 1, "what an action calls has the request of the action"
    assert by_run["notes:inner", "action"]["log_lines"] == ["[LOG] 'inside'"]
    assert by_run["notes:scheduled", "cron"]["log_lines"] == by_run["notes:scheduled", "scheduler"]["log_lines"] == ["[LOG] 'scheduled'"]
    assert by_run["POST /hook", "http action"]["log_lines"] == ["[LOG] 'hooked'"]
    assert by_run["notes:refuse", "sync"]["error"]["code"] == "AppError"
    assert by_run["notes:refuse", "sync"]["log_lines"] == ["[LOG] 'refusing'"]
    crashed = by_run["notes:crash", "sync"]["error"]
    assert crashed["text"] == "RuntimeError: the secret is 4711" and any("notes.py" in frame for frame in crashed["trace"])
    assert by_run["made:up", "http"]["request_id"] == "my-request"


async def test_results_that_were_known_and_attempts_that_were_lost_are_told(server: Server) -> None:
    # The cron runs at the start, and what it adds is counted.
    await eventually_async(lambda: any(line["path"] == "notes:scheduled" for line in runs(server)), "the cron's run")
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        for _ in range(2):
            await http.post("/api/query", json={"path": "notes:count", "args": {}})
        await eventually_async(lambda: len([line for line in runs(server) if line["path"] == "notes:count"]) == 2, "both lines")
    first, second = [line for line in runs(server) if line["path"] == "notes:count"]
    assert (first["cached"], second["cached"]) == (False, True)
    assert "usage" in first and "usage" not in second and "log_lines" not in second


async def test_an_action_that_is_cut_off_at_a_stop_has_a_line_too(server: Server) -> None:
    notes = server.app / "app_functions" / "notes.py"
    server.stop()
    notes.write_text(f"{NOTES}\n@action\nasync def hang(ctx: ActionCtx) -> None:\n    import asyncio\n    await asyncio.Event().wait()\n")
    server.arguments += ["--host", "127.0.0.1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REACTOR_STOP_TIMEOUT_S", "0.2")
        await asyncio.to_thread(server.start)
    async with Client(server.url) as client:
        hanging = asyncio.ensure_future(client.action("notes:hang"))
        await client.query("notes:count")
        await asyncio.to_thread(server.stop)
        hanging.cancel()
    (line,) = [line for line in runs(server) if line["path"] == "notes:hang"]
    assert (line["ok"], line["error"]["code"]) == (False, "Canceled")
