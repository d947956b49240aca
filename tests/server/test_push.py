"""Code and schema of a running server are replaced in one step, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from reactor.errors import CodeError, EnvironmentVariableError, ReactorError
from reactor.functions.environment import change_variables
from reactor.functions.registry import load_app
from reactor.server.app import Backend, open_backend
from reactor.server.logs import Logs
from reactor.server.push import Watcher, _files, _folders, describe, push
from reactor.server.settings import Settings
from tests.server.gates import gate
from tests.server.test_logs import Terminal
from tests.support.issuer import Issuer
from tests.support.sockets import Socket
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio

SCHEMA = """
from reactor import Document, Index

class Note(Document, table="notes"):
    text: str
    rank: float
"""
NOTES = """
from reactor import MutationCtx, QueryCtx, mutation, query
from schema import Note

@query
async def texts(ctx: QueryCtx) -> list[str]:
    return [note.text async for note in ctx.db.query(Note)]

@mutation
async def add(ctx: MutationCtx, text: str, rank: float) -> str:
    return await ctx.db.insert(Note(text=text, rank=rank))
"""
SHOUTS = NOTES.replace("note.text async", "note.text.upper() async")


class App:
    """An app's folder, its files written by the test, and the server that runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "app"
        (self.folder / "app_functions").mkdir(parents=True)
        self.terminal = Terminal()
        self.write(SCHEMA, NOTES)

    def write(self, schema: str | None = None, notes: str | None = None, **more: str) -> None:
        for name, text in {
            "schema": schema,
            "app_functions/notes": notes,
            **{f"app_functions/{name}": more[name] for name in more},
        }.items():
            if text is not None:
                (self.folder / f"{name}.py").write_text(textwrap.dedent(text).lstrip())

    @contextlib.asynccontextmanager
    async def running(self, *, watched: bool = False) -> AsyncIterator[Backend]:
        logs = Logs(self.terminal.stream, machine=False)
        watcher = Watcher(self.folder) if watched else None
        settings = Settings.model_validate({"db": self.folder.parent / "test.db"})
        try:
            async with open_backend(self.folder, settings, logs, watcher=watcher) as node:
                yield node
        finally:
            logs.close()


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


@contextlib.asynccontextmanager
async def client_of(node: Backend) -> AsyncIterator[tuple[Socket, int]]:
    """A client that watches a note."""
    async with Socket(node) as client:
        await add(client, "one", 1)
        query = client.subscribe("notes:texts")
        assert await client.result(query) == ["one"]
        yield client, query


async def add(client: Socket, text: str, rank: float) -> Any:
    answer = await client.response(client.mutate("notes:add", text=text, rank=rank))
    assert answer["success"], answer
    return answer["result"]


async def refused(node: Backend) -> str:
    with pytest.raises(ReactorError) as error:
        await push(node.runner)
    return error.value.message


async def test_pushed_code_serves_and_live_queries_run_again(app: App) -> None:
    async with app.running() as node, client_of(node) as (client, query):
        app.write(notes=SHOUTS, more="from reactor import QueryCtx, query\n\n@query\nasync def f(ctx: QueryCtx) -> int:\n    return 1")
        assert describe(await push(node.runner)) == "1 table and 3 functions"
        await client.until(query, ["ONE"])
        assert await client.result(client.subscribe("more:f")) == 1
        await add(client, "two", 2)
        await client.until(query, ["ONE", "TWO"])


CRONS = """
from datetime import timedelta
from app_functions import notes
from reactor import Crons

crons = Crons()
crons.interval("note", timedelta(hours=1), notes.add, text="first", rank=0)
"""


async def test_crons_are_pushed_with_the_code(app: App) -> None:
    app.write(crons=CRONS)
    async with app.running() as node, Socket(node) as client:
        query = client.subscribe("notes:texts")
        await client.until(query, ["first"])
        app.write(crons=CRONS.replace("first", "second").replace("hours=1", "hours=2"))
        await push(node.runner)
        await client.until(query, ["first", "second"])
        app.write(crons=CRONS.replace("first", "third"))
        await push(node.runner)
        await client.until(query, ["first", "second", "third"])


@pytest.mark.parametrize(
    ("crons", "says"),
    [
        (CRONS.replace("timedelta(hours=1)", "60"), "app_functions/crons.py:6: Cron 'note' takes a timedelta, not int"),
        (CRONS.replace("rank", "rnak"), "Cron 'note': notes:add was called with arguments that do not fit"),
        (CRONS.replace("notes.add", "notes.texts"), "app_functions/crons.py:6: Cron 'note' takes a mutation, an action or a path"),
        (CRONS.replace("crons", "jobs"), "app_functions.crons.jobs is a Crons that nobody looks at"),
    ],
)
async def test_crons_that_cannot_be_are_refused_and_those_before_go_on(app: App, crons: str, says: str) -> None:
    app.write(crons=CRONS)
    async with app.running() as node, Socket(node) as client:
        await client.until(client.subscribe("notes:texts"), ["first"])
        app.write(crons=crons)
        assert says in await refused(node)
        assert [cron.name for cron in node.runner.app.crons] == ["note"]


async def test_a_database_served_again_keeps_the_crons_next_run(app: App) -> None:
    app.write(crons=CRONS)
    async with app.running() as node, Socket(node) as client:
        await client.until(client.subscribe("notes:texts"), ["first"])
    async with app.running() as node, Socket(node) as client:
        await add(client, "later", 1)
        assert await client.result(client.subscribe("notes:texts")) == ["first", "later"]


HTTP = """
from reactor import ActionCtx, HttpRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

http = HttpRouter()

@http.route("/hello")
async def hello(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse("hello")
"""


async def get(node: Backend, path: str) -> tuple[int, str]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=node), base_url="http://test.invalid") as client:
        answer = await client.get(path)
        return answer.status_code, answer.text


async def test_the_routes_of_http_actions_are_pushed_with_the_functions(app: App) -> None:
    async with app.running() as node:
        assert (await get(node, "/hello"))[0] == 404
        app.write(http=HTTP)
        assert describe(await push(node.runner)) == "1 table, 2 functions and 1 HTTP route"
        assert await get(node, "/hello") == (200, "hello")
        app.write(http=HTTP.replace('"/hello"', '"hello"'))
        assert await refused(node) == "app_functions/http.py:7: A route's path is a text that begins with '/', not 'hello'."
        app.write(http="from starlette.responses import Response\n")
        assert await refused(node) == "app_functions/http.py has no HttpRouter. Write: http = HttpRouter()"
        assert await get(node, "/hello") == (200, "hello")
        (app.folder / "app_functions" / "http.py").unlink()
        await push(node.runner)
        assert (await get(node, "/hello"))[0] == 404


async def test_a_query_whose_function_is_gone_fails_and_recovers_when_it_comes_back(app: App) -> None:
    async with app.running() as node, client_of(node) as (client, query):
        app.write(notes=NOTES.replace("def texts", "def words"))
        await push(node.runner)
        while client.results[query]["type"] != "QueryFailed":
            await client.receive()
        assert "Could not find public function for 'notes:texts'" in client.results[query]["errorMessage"]
        app.write(notes=NOTES)
        await push(node.runner)
        await client.until(query, ["one"])


@pytest.mark.parametrize(
    ("schema", "notes", "says"),
    [
        (None, NOTES + "\ndef broken(:\n    pass\n", ["app_functions/notes.py:12: ", "def broken(:"]),
        (None, NOTES + "\nraise ValueError('at import')\n", ["app_functions/notes.py:12: ", "ValueError: at import"]),
        (None, NOTES.replace("from schema", "from shema"), ["app_functions/notes.py:2: ", "shema"]),
        (None, NOTES + "\nadd_again = 1 / 0\n", ["app_functions/notes.py:12: ", "ZeroDivisionError"]),
        (None, NOTES + "\n@query\nasync def twice(ctx: QueryCtx, x: object()) -> int:\n    return 1\n", ["twice"]),
        (SCHEMA + "    by_rank = Index('rnak')\n", None, ["rnak"]),
        (SCHEMA + "    by_rank = Index()\n", None, ["by_rank"]),
        (SCHEMA.replace('"notes"', '"_notes"'), None, ["_notes"]),
        (SCHEMA + "    when: complex\n", None, ["when"]),
        (SCHEMA + "  x = (\n", None, ["schema.py:6: "]),
        (SCHEMA + "    when: 'Index.nope'\n", None, ["schema.py:3", "class Note", "AttributeError", "nope"]),
        (
            None,
            NOTES.replace("text: str,", "text: 'list[str',"),
            ["notes:add", "notes.py:8", "cannot be evaluated: SyntaxError", "list[str"],
        ),
        (None, NOTES.replace("text: str,", "text: 'Note.nope',"), ["notes:add", "notes.py:8", "cannot be evaluated: AttributeError: nope"]),
        (
            None,
            NOTES.replace("(ctx: QueryCtx", "(ctx: MutationCtx"),
            ["notes:texts", "notes.py:4", "@query, and gets a QueryCtx, not a MutationCtx"],
        ),
        (None, NOTES.replace("rank: float)", "rank: float, /)"), ["notes:add", "notes.py:8", "'text' cannot be. Write the '/' before it."]),
        (None, NOTES + "exit()\n", ["notes.py:11: SystemExit", "exit()"]),
        (None, NOTES + "# \0\n", ["app_functions", "null bytes"]),
        (
            None,
            NOTES + NOTES.partition("schema import Note\n")[2],
            ["notes.py:13: notes:texts is declared here and in line 5", "Rename one."],
        ),
    ],
)
async def test_code_that_does_not_load_is_named_and_the_version_before_goes_on(
    app: App, schema: str | None, notes: str | None, says: list[str]
) -> None:
    async with app.running() as node, client_of(node) as (client, query):
        app.write(schema, notes)
        message = await refused(node)
        assert all(part in message for part in says), message
        await add(client, "two", 2)
        await client.until(query, ["one", "two"])
        app.write(SCHEMA, SHOUTS)
        await push(node.runner)
        await client.until(query, ["ONE", "TWO"])


@pytest.mark.parametrize("overload", ["overload", "typing.overload"])
async def test_a_function_may_have_overloads(app: App, overload: str) -> None:
    async with app.running() as node, client_of(node) as (client, query):
        body = SHOUTS.partition("@query\n")[2]
        head = f"import typing\nfrom typing import overload\n{SHOUTS.partition('@query')[0]}"
        app.write(SCHEMA, f"{head}@{overload}\nasync def texts(ctx: QueryCtx) -> list[str]: ...\n@query\n{body}")
        await push(node.runner)
        await client.until(query, ["ONE"])


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("text: float; rank: float", "text"),
        ("text: str; rank: float; stars: float", "stars"),
        ("text: Literal['one']; rank: float", "text"),
        ("text: str", "rank"),
    ],
)
async def test_a_document_that_does_not_fit_is_named_and_nothing_changes(app: App, fields: str, says: str) -> None:
    async with app.running() as node, client_of(node) as (client, query):
        known = [node.engine.catalog, node.runner.app]
        bad = await add(client, "bad", 2)
        lines = "\n    ".join([*fields.split("; "), "by_text = Index('text')"])
        head = "from typing import Literal\nfrom reactor import Document, Index\n\nclass Note(Document, table='notes'):\n    "
        app.write(
            head + lines, "from reactor import QueryCtx, query\n\n@query\nasync def texts(ctx: QueryCtx) -> list[str]:\n    return []"
        )
        message = await refused(node)
        one = (await client.response(client.mutate("notes:add", text="still", rank=5)))["success"]
        assert one and [node.engine.catalog, node.runner.app] == known
        assert says in message and "notes" in message
        assert re.search(r"\b[0-9a-z]{32}\b", message), "the document's id"
        assert bad in message or "Literal" not in fields, "the other one fits"
        await client.until(query, ["one", "bad", "still"])


async def test_a_field_that_may_be_absent_can_be_added(app: App) -> None:
    async with app.running() as node, client_of(node) as (client, query):
        app.write(SCHEMA + "    by: str | None = None\n", NOTES.replace("note.text async", "f'{note.text} by {note.by}' async"))
        await push(node.runner)
        await client.until(query, ["one by None"])


BY_RANK = NOTES.replace("ctx.db.query(Note)", "ctx.db.query(Note.by_rank())")


async def test_a_new_index_holds_every_document_before_it_serves_those_written_meanwhile_too(app: App) -> None:
    async with app.running() as node, client_of(node) as (client, query):
        for number in range(300):
            client.mutate("notes:add", text=str(number), rank=-number)
        await client.reflected()
        app.write(SCHEMA + "    by_rank = Index('rank')\n", BY_RANK)
        pushing = asyncio.ensure_future(push(node.runner))
        meanwhile = 0
        while not pushing.done():
            await add(client, f"meanwhile {meanwhile}", 1000 + meanwhile)
            meanwhile += 1
        await pushing
        assert meanwhile > 0
        expected = [*(str(number) for number in reversed(range(300))), "one", *(f"meanwhile {number}" for number in range(meanwhile))]
        await client.until(query, expected)


async def test_a_mutation_that_began_before_the_push_ends_with_the_code_it_began_with(app: App) -> None:
    held = """
from reactor import MutationCtx, mutation
from schema import Note
from tests.server.gates import gate

@mutation
async def add(ctx: MutationCtx) -> str:
    await gate("push").reach()
    await ctx.db.insert(Note(text="old", rank=0))
    return "old"
"""
    app.write(held=held)
    async with app.running() as node, client_of(node) as (client, query):
        request = client.mutate("held:add")
        await gate("push").reached.wait()
        app.write(held=held.replace('"old"', '"new"'))
        pushing = asyncio.ensure_future(push(node.runner))
        await asyncio.wait([pushing], timeout=0.05)
        gate("push").open()
        await pushing
        answer = await client.response(request)
        # It committed as it began, or ran again as a whole with the new code; never half and half.
        await client.until(query, ["one", answer["result"]])
        assert (await client.response(client.mutate("held:add")))["result"] == "new"


async def test_pushes_at_once_end_with_the_last_one(app: App) -> None:
    async with app.running() as node, client_of(node) as (client, query):
        app.write(notes=SHOUTS)
        first = asyncio.ensure_future(push(node.runner))
        await asyncio.sleep(0)
        app.write(notes=NOTES.replace("note.text async", "note.text[::-1] async"))
        await asyncio.gather(first, push(node.runner))
        await client.until(query, ["eno"])


async def test_a_saved_file_is_pushed_and_a_broken_one_is_shown(app: App) -> None:
    async with app.running(watched=True) as node, client_of(node) as (client, query):
        app.write(notes=SHOUTS)
        await client.until(query, ["ONE"])
        app.write(notes="def broken(:\n")
        await eventually_async(lambda: "Not pushed" in app.terminal.text(), "the refusal")
        assert "app_functions/notes.py:1: " in app.terminal.text() and "The version before goes on serving." in app.terminal.text()
        app.write(notes=NOTES)
        await client.until(query, ["one"])
        await eventually_async(lambda: "OK again: pushed 1 table and 2 functions" in app.terminal.text(), "the push")


def auth_config(issuer: Issuer, audience: str = "app") -> str:
    return f"from reactor import OIDC\n\nproviders = [OIDC({issuer.url!r}, audience={audience!r})]\n"


async def test_a_folder_that_is_removed_while_it_is_looked_at_has_nothing_in_it(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    real, gone = os.scandir, app.folder / "app_functions" / "gone"

    def scandir(path: Any = ".") -> Any:
        if not isinstance(path, int) and Path(path) == gone:
            monkeypatch.undo()
            shutil.rmtree(gone)
        return real(path)

    for look in (_files, _folders, load_app):
        gone.mkdir()
        (gone / "more.py").write_text("")
        monkeypatch.setattr(os, "scandir", scandir)
        look(app.folder)
        assert not gone.exists()


async def test_identity_providers_are_pushed_with_the_functions(app: App) -> None:
    me = (
        NOTES
        + "\n@query\nasync def me(ctx: QueryCtx) -> str | None:\n    who = await ctx.auth.identity()\n    return who and who.subject\n"
    )
    app.write(notes=me)
    with Issuer() as issuer:
        async with app.running() as node:
            async with Socket(node) as client:
                client.authenticate("User", issuer.token())
                _, _, last = await client.closed()
                assert last is not None and "No identity provider is configured" in last["error"]
            app.write(auth_config=auth_config(issuer))
            await push(node.runner)
            async with Socket(node) as client:
                client.authenticate("User", issuer.token())
                query = client.subscribe("notes:me")
                assert await client.result(query) == "ann"
                asked = len(issuer.asked)
                app.write(notes=me.replace("who.subject", "who.subject.upper()"))
                await push(node.runner)
                await client.until(query, "ANN")
                assert len(issuer.asked) == asked, "the keys are kept"
                app.write(auth_config=auth_config(issuer, audience="other"))
                await push(node.runner)
                _, _, last = await client.closed()
                assert last is not None and last["authUpdateAttempted"] is False


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("providers = [{'domain': 'id.example'}]", "declares no identity provider"),
        ("from reactor import OIDC\nproviders = [OIDC('http://id.example', 'app')]", "app_functions/auth_config.py:2: The issuer"),
        ("import os\nissuer = os.environ['NOT_SET_ANYWHERE']", "app_functions/auth_config.py:2: KeyError: 'NOT_SET_ANYWHERE'"),
        ("def providers(env):\n    return []", "providers(env) gives no identity provider"),
        ("def providers(env):\n    return 1 / 0", "providers(env) raised ZeroDivisionError"),
        ("from reactor import OIDC\ndef providers(env):\n    return OIDC('http://id.example', 'app')", "The issuer 'http://id.example'"),
    ],
)
async def test_identity_providers_that_cannot_be_are_not_pushed(app: App, text: str, says: str) -> None:
    with Issuer() as issuer:
        app.write(auth_config=auth_config(issuer))
        async with app.running() as node:
            app.write(auth_config=text)
            with pytest.raises(CodeError, match=re.escape(says)):
                await push(node.runner)
            async with Socket(node) as client:
                client.authenticate("User", issuer.token())
                await client.reflected()


FROM_ENV = """
from reactor import OIDC

def providers(env):
    return [OIDC(env["ISSUER"], audience=env.get("AUDIENCE", "app"))]
"""


async def test_identity_providers_follow_the_environment_variables_that_they_are_made_of(app: App) -> None:
    app.write(auth_config=auth_config_of_nobody())
    with Issuer() as issuer:
        async with app.running() as node:
            runner = node.runner
            app.write(auth_config=FROM_ENV)
            with pytest.raises(EnvironmentVariableError, match=r"auth_config\.py needs the environment variable ISSUER") as raised:
                await push(runner)
            assert raised.value.code == "MissingEnvironmentVariables"

            async def change(changes: dict[str, str | None]) -> None:
                await change_variables(runner.engine, changes, check=runner.app.check_environment, built_in=runner.addresses)

            await change({"ISSUER": issuer.url})
            await push(runner)
            async with Socket(node) as client:
                client.authenticate("User", issuer.token())
                await client.reflected()
                for wrong in ({"ISSUER": None}, {"ISSUER": "http://id.example"}):
                    with pytest.raises(ReactorError):
                        await change(wrong)
                await client.reflected()
                await change({"AUDIENCE": "other"})
                client.subscribe("notes:texts")
                _, _, last = await client.closed()
                assert last is not None and "No identity provider" in last["error"]
            async with Socket(node) as client:
                client.authenticate("User", issuer.token(aud="other"))
                await client.reflected()


def auth_config_of_nobody() -> str:
    return "from reactor import OIDC\n\nproviders = [OIDC('https://nobody.example', 'app')]\n"
