"""``reactor run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from reactor.cli.admin import ask_server, on_server_or_here
from reactor.errors import ReactorError
from reactor.server.settings import Settings

if TYPE_CHECKING:
    from reactor.functions.outcome import Outcome

__all__ = ["run"]


def run(path: str, args: str, settings: Settings) -> None:
    """Call a function and print its result as JSON; what it logged goes to stderr.

    Args:
        path: of the function; internal ones can be called.
        args: a JSON object.

    Raises:
        ReactorError: the call failed, or could not be made.
    """
    try:
        parsed = orjson.loads(args)
    except orjson.JSONDecodeError as error:
        raise ReactorError(f'The arguments are not JSON: {error}. Write \'{{"name": "value"}}\'.', code="BadArguments") from None
    result = on_server_or_here(lambda: _on_server(path, parsed, settings.beside), lambda: _here(path, orjson.dumps(parsed), settings))
    print(orjson.dumps(orjson.loads(result), option=orjson.OPT_INDENT_2).decode())


def _on_server(path: str, args: object, database: Path) -> bytes | None:
    """The result by the server of the database, or None if none runs."""
    answer = ask_server(database, "POST", "/api/function", {"path": path, "args": args, "format": "json"})
    if answer is None:
        return None
    _show(answer.get("logLines", ()))
    if answer["status"] == "error":
        raise ReactorError(answer["errorMessage"], code="FunctionError")
    return orjson.dumps(answer["value"])


def _here(path: str, args: bytes, settings: Settings) -> bytes:
    """The result by a backend that lives as long as the call."""
    from reactor.cli.loop import run_loop
    from reactor.functions.identity import Caller
    from reactor.server.app import open_backend
    from reactor.server.logs import Logs
    from reactor.values import codec

    outcomes: list[Outcome] = []

    async def call() -> None:
        logs = Logs(sys.stderr, machine=False, folder=Path.cwd())
        try:
            async with open_backend(Path.cwd(), settings, logs, serving=False) as backend:
                caller = Caller(None, True, backend.runner.runtime.random_bytes(8).hex(), "cli")
                outcomes.append(await backend.runner.any_kind(path, args, caller))
        finally:
            logs.close()

    run_loop(call())
    (outcome,) = outcomes
    if outcome.error is not None:
        raise ReactorError(outcome.error.message, code=outcome.error.code)
    return codec.clean(outcome.value)


def _show(lines: list[str] | tuple[()]) -> None:
    for line in lines:
        print(line, file=sys.stderr)
