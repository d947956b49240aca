"""The page of examples/chat in a real browser: the official React hooks against a live server."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.browser import chromium
from tests.support.server import ROOT, Server

PAGE_FILES = ROOT / "examples" / "chat" / "dist"
OLDER = 100  # messages in #random that were there before anyone came

expect.set_options(timeout=20_000)

Enter = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    assert (PAGE_FILES / "index.html").exists(), "the page is not built: run make web"
    with Server(tmp_path, app=ROOT, options=("--static", str(PAGE_FILES))) as server:
        yield server


@pytest.fixture
def enter(server: Server, browser: Browser) -> Iterator[Enter]:
    """Opens the page in a window of its own and enters under a name."""
    windows = []
    errors: list[str] = []

    def enter(name: str, **options: Any) -> Page:
        window = browser.new_context(**options)
        windows.append(window)
        page = window.new_page()
        page.on("pageerror", lambda error: errors.append(f"{name}: {error}"))
        page.goto(server.url)
        page.get_by_label("Your name").fill(name)
        page.get_by_role("button", name="Enter the chat").click()
        expect(page.get_by_role("heading", name="general", exact=True)).to_be_visible()
        expect(page.get_by_role("log")).to_have_attribute("aria-busy", "false")
        return page

    yield enter
    for window in windows:
        window.close()
    assert errors == []


def call(server: Server, path: str, **args: Any) -> Any:
    """A mutation over HTTP, as a script of the user's would make it."""
    response = httpx.post(f"{server.url}/api/mutation", json={"path": path, "args": args, "format": "json"}, trust_env=False, verify=False)
    answer = response.raise_for_status().json()
    assert answer["status"] == "success", answer
    return answer["value"]


def query(server: Server, path: str, **args: Any) -> Any:
    response = httpx.post(f"{server.url}/api/query", json={"path": path, "args": args, "format": "json"}, trust_env=False, verify=False)
    return response.raise_for_status().json()["value"]


def say(page: Page, text: str) -> None:
    page.get_by_label("Message to #").fill(text)
    page.keyboard.press("Enter")


def message(page: Page, text: str) -> Locator:
    return page.locator(".message").filter(has_text=text)


def go_to(page: Page, channel: str) -> None:
    page.get_by_role("complementary", name="Channels").get_by_role("link", name=channel).click()
    expect(page.get_by_role("heading", name=channel, level=1)).to_be_visible()


def test_two_windows_follow_each_other(enter: Enter) -> None:
    ada, grace = enter("Ada"), enter("Grace")
    members = ada.get_by_role("complementary", name="Members")
    expect(members.get_by_text("Grace")).to_be_visible()

    say(ada, "Hello, is anyone here?")
    expect(message(grace, "Hello, is anyone here?").get_by_text("Ada")).to_be_visible()
    say(grace, "I am!")
    expect(message(ada, "I am!")).to_be_visible()

    grace.get_by_label("Message to #").press_sequentially("Let me th")
    expect(ada.get_by_text("Grace is typing")).to_be_visible()
    say(grace, "Done thinking.")
    expect(ada.get_by_text("Grace is typing")).to_be_hidden()


def test_editing_reacting_and_removing_show_in_the_other_window(enter: Enter) -> None:
    ada, grace = enter("Ada"), enter("Grace")
    say(ada, "First verison")
    expect(message(grace, "First verison")).to_be_visible()

    ada.keyboard.press("ArrowUp")
    ada.get_by_label("Edit the message").fill("First version")
    ada.keyboard.press("Enter")
    expect(message(grace, "First version").get_by_text("(edited)")).to_be_visible()

    message(grace, "First version").hover()
    message(grace, "First version").get_by_label("React with 🎉").click()
    expect(message(ada, "First version").get_by_label("🎉 1")).to_be_visible()

    ada.on("dialog", lambda dialog: dialog.accept())
    message(ada, "First version").hover()
    message(ada, "First version").get_by_label("Remove").click()
    expect(message(grace, "First version")).to_have_count(0)


def test_unread_messages_are_counted_until_they_are_looked_at(enter: Enter) -> None:
    ada, grace = enter("Ada"), enter("Grace")
    go_to(grace, "random")
    for number in range(3):
        say(ada, f"Number {number}")
    general = grace.get_by_role("complementary", name="Channels").get_by_role("link", name="general")
    expect(general).to_contain_text("3 unread")
    go_to(grace, "general")
    expect(general).not_to_contain_text("unread")
    expect(message(grace, "Number 2")).to_be_visible()


def test_a_sent_message_shows_at_once_and_settles_when_the_server_answers(enter: Enter, server: Server) -> None:
    ada = enter("Ada")
    server.pause()
    say(ada, "Anybody out there?")
    expect(ada.locator(".message[data-unsent]")).to_contain_text("Anybody out there?")
    server.resume()
    expect(ada.locator(".message[data-unsent]")).to_have_count(0)
    expect(message(ada, "Anybody out there?")).to_have_count(1)


def test_a_refused_mutation_is_told_and_its_optimistic_update_taken_back(enter: Enter, browser: Browser, server: Server) -> None:
    ada = enter("Ada")
    ada.get_by_role("button", name="New channel").click()
    ada.get_by_label("Name of the new channel").fill("general")
    ada.keyboard.press("Enter")
    expect(ada.get_by_text("There is a channel #general already.")).to_be_visible()

    stranger = browser.new_context().new_page()
    stranger.goto(server.url)
    stranger.get_by_label("Your name").fill("Ada")
    stranger.get_by_role("button", name="Enter the chat").click()
    expect(stranger.get_by_text("Ada is here already. Please choose another name.")).to_be_visible()
    stranger.context.close()


def test_history_loads_page_after_page(enter: Enter, server: Server) -> None:
    session = secrets.token_hex(24)
    call(server, "users:join", session=session, name="Historian")
    random = next(channel for channel in query(server, "channels:overview", session=session) if channel["name"] == "random")
    for number in range(OLDER):
        call(server, "messages:send", session=session, channel=random["id"], body=f"Entry {number:03}.")

    ada = enter("Ada")
    expect(ada.get_by_role("complementary", name="Channels").get_by_role("link", name="random")).to_contain_text("99+")
    go_to(ada, "random")
    expect(message(ada, "Entry 099.")).to_be_visible()
    expect(message(ada, "Entry 000.")).to_have_count(0)
    shown = ada.locator(".message")
    while shown.count() < OLDER:
        before = shown.count()
        ada.locator(".history").evaluate("(box) => box.scrollTo({ top: -box.scrollHeight })")
        expect(shown.nth(before)).to_be_attached()
    expect(shown).to_have_count(OLDER)
    assert [f"Entry {number:03}." in text for number, text in enumerate(shown.all_inner_texts())] == [True] * OLDER
    expect(ada.get_by_text("This is where it began.")).to_be_visible()


def test_the_page_survives_the_death_of_the_server(enter: Enter, server: Server) -> None:
    ada, grace = enter("Ada"), enter("Grace")
    say(ada, "Before")
    expect(message(grace, "Before")).to_be_visible()
    server.kill()
    channels = ada.get_by_role("complementary", name="Channels")
    expect(channels.get_by_text("Reconnecting")).to_be_visible()
    say(ada, "Into the void")
    expect(ada.locator(".message[data-unsent]")).to_contain_text("Into the void")
    server.start()
    expect(message(grace, "Into the void")).to_have_count(1)
    expect(ada.locator(".message[data-unsent]")).to_have_count(0)
    expect(message(ada, "Into the void")).to_have_count(1)
    expect(channels.get_by_text("Live", exact=True)).to_be_visible()


def test_on_a_phone_the_channels_are_a_drawer(enter: Enter) -> None:
    ada = enter("Ada", viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    channels = ada.get_by_role("complementary", name="Channels")
    expect(channels).to_be_hidden()
    ada.get_by_label("Show the channels").click()
    expect(channels).to_be_visible()
    go_to(ada, "random")
    expect(channels).to_be_hidden()
