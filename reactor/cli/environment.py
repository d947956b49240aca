"""``reactor env``: on the running server of the database, else on the database itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from getpass import getpass
from pathlib import Path

from dotenv import dotenv_values

from reactor.cli.admin import ask_server, on_server_or_here
from reactor.errors import EnvironmentVariableError
from reactor.server.settings import Settings

__all__ = ["change", "load", "read_value", "show", "show_all"]


def show_all(settings: Settings) -> None:
    """Print all variables as lines of ``NAME=value``."""
    for name, value in _variables(settings).items():
        print(f"{name}={value}")


def show(name: str, settings: Settings) -> None:
    """Print a variable's value.

    Raises:
        EnvironmentVariableError: it is not set.
    """
    value = _variables(settings).get(name)
    if value is None:
        raise EnvironmentVariableError(f"{name} is not set.")
    print(value)


def read_value() -> str:
    """A value from standard input, without the newline at its end: in no process list and no shell's history."""
    if sys.stdin.isatty():
        return getpass("Value: ")
    return sys.stdin.read().removesuffix("\n")


def change(changes: Mapping[str, str | None], settings: Settings) -> None:
    """Set variables, and remove those whose value is None.

    Raises:
        ReactorError: nothing was changed; says why.
    """
    wire = [{"name": name, "value": value} for name, value in changes.items()]
    on_server_or_here(
        lambda: ask_server(settings.beside, "POST", "/api/update_environment_variables", {"changes": wire}),
        lambda: _on_database(settings, changes),
    )
    for name, value in changes.items():
        print(f"{'Removed' if value is None else 'Set'} {name}")


def load(file: Path, settings: Settings, *, force: bool) -> None:
    """Set what a file of lines ``NAME=value`` says.

    Args:
        force: also where a variable has another value already.

    Raises:
        EnvironmentVariableError: the file cannot be read, or a variable has another value.
        ReactorError: nothing was changed; says why.
    """
    try:
        found = dotenv_values(file, interpolate=False, encoding="utf-8") if file.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentVariableError(f"{file}: {error}") from None
    if found is None:
        raise EnvironmentVariableError(f"There is no file {file}.")
    known = _variables(settings)
    values = {name: value for name, value in found.items() if value is not None}
    if other := [name for name, value in values.items() if known.get(name, value) != value and not force]:
        raise EnvironmentVariableError(f"Nothing was changed: {', '.join(other)} has another value already. Write --force to replace it.")
    change(values, settings)


def _variables(settings: Settings) -> Mapping[str, str]:
    def on_server() -> Mapping[str, str] | None:
        answer = ask_server(settings.beside, "GET", "/api/list_environment_variables")
        return None if answer is None else answer["environmentVariables"]

    return on_server_or_here(on_server, lambda: _on_database(settings, {}))


def _on_database(settings: Settings, changes: Mapping[str, str | None]) -> Mapping[str, str]:
    """Change the database that no server has open."""
    from reactor.cli.database import open_database
    from reactor.cli.loop import run_loop
    from reactor.functions.environment import change_variables, variables

    found: dict[str, str] = {}

    async def work() -> None:
        async with open_database(settings) as runner:
            if changes:
                await change_variables(runner.engine, changes)
            found.update(variables(runner.engine))

    run_loop(work())
    return found
