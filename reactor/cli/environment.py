"""``reactor env``: on the running server of the database, else on the database itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from getpass import getpass
from pathlib import Path

from dotenv import dotenv_values

from reactor.cli.admin import ask_server
from reactor.cli.serving import run_loop
from reactor.engine.engine import Engine
from reactor.engine.runtime import SystemRuntime
from reactor.errors import EnvironmentVariableError, StoreLocked
from reactor.functions.environment import change_variables, variables
from reactor.limits import DEFAULT_LIMITS
from reactor.schema.catalog import Catalog
from reactor.schema.system import SYSTEM
from reactor.server.app import open_store
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
    try:
        if ask_server(settings.beside, "POST", "/api/update_environment_variables", {"changes": wire}) is None:
            _on_database(settings, changes)
    except StoreLocked:
        # A server took the database between the two.
        if ask_server(settings.beside, "POST", "/api/update_environment_variables", {"changes": wire}) is None:
            raise
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
    try:
        answer = ask_server(settings.beside, "GET", "/api/list_environment_variables")
        if answer is None:
            return _on_database(settings, {})
    except StoreLocked:
        answer = ask_server(settings.beside, "GET", "/api/list_environment_variables")
        if answer is None:
            raise
    found: Mapping[str, str] = answer["environmentVariables"]
    return found


def _on_database(settings: Settings, changes: Mapping[str, str | None]) -> Mapping[str, str]:
    """Change the database that no server has open. The app is not loaded: it may be waiting for these very variables."""
    found: dict[str, str] = {}

    async def work() -> None:
        store = await open_store(settings)
        try:
            catalog = Catalog.of({}, SYSTEM)
            engine = Engine(store, catalog, SystemRuntime(), DEFAULT_LIMITS)
            await engine.start()
            try:
                await engine.push(catalog)
                if changes:
                    await change_variables(engine, changes)
                found.update(variables(engine))
            finally:
                await engine.stop()
        finally:
            await store.close()

    run_loop(work())
    return found
