"""Signing in with the official React client in a real browser, against a real server and an identity provider."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from reactor.services.auth.tokens import TOLERANCE_S
from tests.support.browser import chromium
from tests.support.issuer import Issuer
from tests.support.server import ROOT, Server
from tests.support.waiting import eventually

SIGN_IN = Path(__file__).parent / "sign_in"
PACKAGES = ROOT / "examples" / "chat" / "node_modules"

expect.set_options(timeout=20_000)


class Desk(Issuer):
    """An issuer that hands the page its tokens.

    Attributes:
        handed: who asked for a token, and whether by force, in order.
        cached: handed out to who does not force another, if set.
        forced: handed out to who does, if set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.handed: list[tuple[str, bool]] = []
        self.cached: str | None = None
        self.forced: str | None = None
        self.mint = self._mint

    def _mint(self, asked: dict[str, str]) -> str:
        force = asked["force"] == "true"
        self.handed.append((asked["sub"], force))
        kept = self.forced if force else self.cached
        return kept or self.token(sub=asked["sub"], name=asked["sub"].title(), jti=str(len(self.handed)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, bundled."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text('<!doctype html><div id="root"></div><script src="page.js"></script>')
    arguments = [
        str(SIGN_IN / "page" / "page.tsx"),
        "--bundle",
        "--jsx=automatic",
        f"--outfile={folder / 'page.js'}",
        "--log-level=warning",
    ]
    subprocess.run([str(PACKAGES / ".bin" / "esbuild"), *arguments], check=True, env=os.environ | {"NODE_PATH": str(PACKAGES)}, timeout=60)
    return folder


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk() as desk:
        yield desk


@pytest.fixture
def server(tmp_path: Path, files: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TEST_ISSUER", desk.url)
    with Server(tmp_path, app=SIGN_IN, options=("--static", str(files))) as server:
        yield server


@pytest.fixture
def page(server: Server, desk: Desk, browser: Browser) -> Iterator[Page]:
    window = browser.new_context()
    errors: list[str] = []
    page = window.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{server.url}/?issuer={desk.url}")
    expect(page.get_by_role("status")).to_have_text("nobody")
    yield page
    window.close()
    assert errors == []


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()


def test_signing_in_out_and_in_as_another(page: Page) -> None:
    expect(page.get_by_text("Signed out")).to_be_visible()
    press(page, "Sign in as Ann")
    expect(page.get_by_role("status")).to_have_text("Ann")
    press(page, "Add")
    expect(page.get_by_role("listitem")).to_have_text(["hello"])
    press(page, "Sign out")
    expect(page.get_by_text("Signed out")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("nobody")
    press(page, "Sign in as Bob")
    expect(page.get_by_role("status")).to_have_text("Bob")
    expect(page.get_by_role("listitem")).to_have_count(0)
    press(page, "Sign in as Ann")
    expect(page.get_by_role("listitem")).to_have_text(["hello"])


def test_after_a_token_that_has_expired_before_it_was_shown_the_client_gets_another(page: Page, desk: Desk) -> None:
    desk.cached = desk.token(name="Ann", exp=int(time.time()) - 60, iat=int(time.time()) - 3600)
    press(page, "Sign in as Ann")
    expect(page.get_by_role("status")).to_have_text("Ann")
    assert desk.handed == [("ann", False), ("ann", True)]


def test_when_a_token_expires_under_way_the_client_gets_another_and_the_call_is_made(page: Page, desk: Desk) -> None:
    """Its claims promise a long life, so that the client does not get another in time by itself."""
    expires = int(time.time()) - TOLERANCE_S + 4
    desk.cached = desk.forced = desk.token(name="Ann", exp=expires, iat=expires - 3600)
    press(page, "Sign in as Ann")
    expect(page.get_by_role("status")).to_have_text("Ann")
    asked = len(desk.handed)
    desk.forced = None
    eventually(lambda: time.time() > expires + TOLERANCE_S, "the token to expire")
    press(page, "Add")
    expect(page.get_by_role("listitem")).to_have_text(["hello"])
    assert desk.handed[asked:] == [("ann", True)]
    expect(page.get_by_role("alert")).to_have_text("")


def test_a_token_that_is_refused_for_good_leaves_one_signed_out(page: Page, desk: Desk) -> None:
    desk.cached = desk.forced = desk.token(aud="other")
    press(page, "Sign in as Ann")
    expect(page.get_by_text("Signed out")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("nobody")
