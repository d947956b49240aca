"""``reactor keys``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from reactor.cli.admin import ask_server, on_server_or_here
from reactor.server.settings import Settings

if TYPE_CHECKING:
    from reactor.server.admin_keys import AdminKeys

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
    return on_server_or_here(lambda: ask_server(settings.beside, method, route, body), lambda: _here(settings, here))


def _here(settings: Settings, ask: Callable[[AdminKeys], Awaitable[Any]]) -> Any:
    from reactor.cli.database import open_database
    from reactor.cli.loop import run_loop
    from reactor.server.admin_keys import AdminKeys

    answers: list[Any] = []

    async def run() -> None:
        async with open_database(settings) as runner:
            keys = AdminKeys(runner)
            try:
                answers.append(await ask(keys))
            finally:
                keys.close()

    run_loop(run())
    return answers[0]
