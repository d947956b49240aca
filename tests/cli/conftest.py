"""A small app of its own for each test, and the command."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support.preloaded import run_command
from tests.support.server import REACTOR, Server

Reactor: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]

SCHEMA = """
from reactor import Document, Index


class Note(Document, table="notes"):
    text: str
    stars: float = 0

    by_stars = Index("stars")
"""

NOTES = """
import asyncio
import re
from pathlib import Path

from reactor import ActionCtx, Id, MutationCtx, QueryCtx, action, internal_query, mutation, query
from schema import Note


@query
async def texts(ctx: QueryCtx) -> list[str]:
    return [note.text for note in await ctx.db.query(Note).collect()]


@mutation
async def add(ctx: MutationCtx, text: str) -> Id[Note]:
    print("adding", text)
    return await ctx.db.insert(Note(text=text))


@internal_query
async def count(ctx: QueryCtx) -> float:
    return await ctx.db.query(Note).count()


@action
async def slowly(ctx: ActionCtx, text: str) -> None:
    await ctx.run_mutation(add, text=f"{text} began")
    while not Path("go on").exists():
        await asyncio.sleep(0.01)
    await ctx.run_mutation(add, text=f"{text} ended")


@query
async def catastrophic(ctx: QueryCtx, text: str) -> bool:
    return re.fullmatch("(a+)+", text) is not None
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    (folder / "app_functions").mkdir(parents=True)
    (folder / "schema.py").write_text(SCHEMA)
    (folder / "app_functions" / "notes.py").write_text(NOTES)
    return folder


@pytest.fixture
def reactor(app: Path) -> Reactor:
    """Runs the command in the app's folder."""

    def run(*arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
        return run_command(str(REACTOR), *arguments, cwd=app, input=input)

    return run


@pytest.fixture
def server(app: Path) -> Server:
    """On the database that the command takes too; not started."""
    folder = app / ".reactor"
    folder.mkdir()
    return Server(folder, app=app, db=str(folder / "reactor.db"))


@pytest.fixture(params=["without a server", "on the server"])
def running(request: pytest.FixtureRequest, server: Server) -> Iterator[None]:
    """A test is run twice: while ``server``, as its file has it, does not serve the database, and while it does."""
    if request.param == "without a server":
        yield
        return
    with server:
        yield
