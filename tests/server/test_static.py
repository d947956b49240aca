"""The page of an app, beside its API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reactor.server.admin import Authenticator
from reactor.server.app import Backend
from reactor.server.static import find_static
from reactor.testing import TestBackend
from tests.server.support import ADMIN_KEY, APP

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("files of a page, of which no store hears")]


@pytest.fixture
async def t(anyio_backend: str, tmp_path: Path) -> AsyncIterator[TestBackend]:
    page = tmp_path / "dist"
    (page / "assets").mkdir(parents=True)
    (page / "index.html").write_text("<h1>the page</h1>")
    (page / "assets" / "app.js").write_text("let a")
    (tmp_path / "secret.txt").write_text("4711")
    async with TestBackend(APP) as backend:
        backend._server = Backend(backend._runner, Authenticator(ADMIN_KEY, backend._runner), instance_name="test", static=page)
        yield backend


@pytest.mark.parametrize("path", ["/", "/index.html", "/channels/5", "/channels", "/assets", "/deep/er/route?x=1.5"])
async def test_the_page_is_served_at_the_root_and_at_its_own_routes(t: TestBackend, path: str) -> None:
    answer = await t.fetch(path)
    if answer.is_redirect:
        answer = await t.fetch(answer.headers["location"])
    assert (answer.status_code, answer.text) == (200, "<h1>the page</h1>")
    assert answer.headers["content-type"].startswith("text/html")


async def test_files_are_served_with_their_type_and_looked_at_again_each_time(t: TestBackend) -> None:
    answer = await t.fetch("/assets/app.js")
    assert (answer.status_code, answer.text, answer.headers["cache-control"]) == (200, "let a", "no-cache")
    assert "javascript" in answer.headers["content-type"]
    again = await t.fetch("/assets/app.js", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    assert (await t.fetch("/assets/app.js", method="HEAD")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/assets/gone.js", "/favicon.ico", "/%2e%2e/secret.txt", "/assets/..%2f..%2fsecret.txt", "//etc/passwd.txt"]
)
async def test_what_looks_like_a_file_and_is_none_is_not_found(t: TestBackend, path: str) -> None:
    answer = await t.fetch(f"http://test.invalid{path}")
    assert answer.status_code == 404 and "4711" not in answer.text


async def test_a_page_takes_nothing(t: TestBackend) -> None:
    assert (await t.fetch("/", method="POST", content="x")).status_code == 405


@pytest.mark.parametrize(("path", "status"), [("/api/query", 400), ("/api/nothing", 404), ("/version", 200)])
async def test_the_api_comes_before_the_page(t: TestBackend, path: str, status: int) -> None:
    answer = await t.fetch(path)
    assert answer.status_code == status and "the page" not in answer.text


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["dist/index.html", "public/index.html"], "dist"),
        (["dist/app.js", "public/index.html"], "public"),
        (["dist/app.js"], None),
        ([], None),
    ],
)
def test_the_page_is_looked_for_beside_the_schema(tmp_path: Path, files: list[str], found: str | None) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("")
    assert find_static(tmp_path) == (tmp_path / found if found else None)
