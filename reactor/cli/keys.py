"""``reactor keys``."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reactor.cli.admin import ask_server
from reactor.cli.serving import run_loop
from reactor.errors import StoreLocked
from reactor.server.admin_keys import AdminKeys
from reactor.server.app import open_backend
from reactor.server.logs import Logs
from reactor.server.settings import Settings

__all__ = ["create", "revoke", "show"]


def create(name: str, settings: Settings) -> None:
    """Make a key and print it.

    Raises:
        ReactorError: it could not be made.
    """

    async def here(keys: AdminKeys) -> Any:
        return {"key": await keys.create(name)}

    print(_ask(settings, "POST", "/api/admin_keys", {"name": name}, here)["key"])


def show(settings: Settings) -> None:
    """Print all keys.

    Raises:
        ReactorError: they could not be read.
    """

    async def here(keys: AdminKeys) -> Any:
        return {"keys": await keys.list()}

    for key in _ask(settings, "GET", "/api/admin_keys", None, here)["keys"]:
        made = datetime.fromtimestamp(key["createdAt"] / 1000, UTC)
        print(f"{made:%Y-%m-%d %H:%M:%S} UTC  {key['name']}")


def revoke(name: str, settings: Settings) -> None:
    """Make a key useless.

    Raises:
        ReactorError: there is none of this name.
    """

    async def here(keys: AdminKeys) -> Any:
        await keys.revoke(name)
        return {}

    _ask(settings, "POST", "/api/admin_keys/revoke", {"name": name}, here)


def _ask(settings: Settings, method: str, route: str, body: object, here: Callable[[AdminKeys], Awaitable[Any]]) -> Any:
    """The answer of the database's server, or what ``here`` gives if none runs."""
    answer = ask_server(settings.beside, method, route, body)
    if answer is not None:
        return answer
    try:
        return _here(settings, here)
    except StoreLocked:
        # A server took the database between the two.
        answer = ask_server(settings.beside, method, route, body)
        if answer is None:
            raise
        return answer


def _here(settings: Settings, ask: Callable[[AdminKeys], Awaitable[Any]]) -> Any:
    answers: list[Any] = []

    async def run() -> None:
        logs = Logs(sys.stderr, machine=False, folder=Path.cwd())
        try:
            async with open_backend(Path.cwd(), settings, logs) as backend:
                answers.append(await ask(backend.authenticator.keys))
        finally:
            logs.close()

    run_loop(run())
    return answers[0]
