"""Replacing schema and functions of a running server in one step, and doing so whenever a file is saved."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TypeAlias

from watchfiles import awatch

from reactor.errors import ReactorError
from reactor.functions.environment import change_variables
from reactor.functions.registry import App, load_app, python_files
from reactor.functions.runner import Runner
from reactor.server.env_file import ENV_FILE, EnvFile
from reactor.server.logs import Logs
from reactor.services.crons import reconcile

__all__ = ["Watcher", "describe", "prepare_environment", "push"]

#: A save is taken up when nothing more was saved for this long.
SETTLE_MS = 20
#: However long saving goes on, what is there is taken up after this.
LONGEST_MS = 200
#: How often files are looked at besides, for what the system does not report (network file systems, folders just made).
LOOK_MS = 1000

_FUNCTIONS = "app_functions"

Files: TypeAlias = dict[Path, tuple[int, int]]


async def push(runner: Runner, env_file: EnvFile | None = None) -> App:
    """Load the app's code anew and have it serve, with its schema and crons; live queries run again.

    Args:
        env_file: whose environment variables are set before.

    Raises:
        CodeError, SchemaError: the code does not load, or stored documents do not fit; the version before goes on.
        EnvironmentVariableError: the settings that the code declares lack one, or the file has what cannot be; the same.
        StoreError: the database could not be changed; the same.
    """
    app = load_app(runner.app.folder, fresh=True)
    await prepare_environment(runner, app, env_file)

    def switch() -> None:
        runner.app = app

    await runner.engine.push(app.catalog, switch)
    await reconcile(runner)
    return app


async def prepare_environment(runner: Runner, app: App, env_file: EnvFile | None) -> None:
    """Set what ``env_file`` says, and check that the variables are those that ``app`` needs.

    Raises:
        EnvironmentVariableError: they are not, or it says what cannot be; nothing has changed.
        StoreError: the database could not be changed.
    """
    changes = env_file.changes() if env_file is not None else {}
    await change_variables(runner.engine, changes, check=app.check_environment, built_in=runner.addresses, limits=runner.limits)
    if env_file is not None:
        env_file.done(changes)


class Watcher:
    """Pushes when a file of the app was saved. Made before the app is loaded, so that no save falls in between.

    Args:
        folder: of the app.
    """

    def __init__(self, folder: Path) -> None:
        self.env_file = EnvFile(folder)
        self._folder = folder
        self._files = _files(folder)
        self._environment = 0  # changed at this ts when code was last pushed
        self._failed = False

    async def run(self, runner: Runner, logs: Logs) -> None:
        """Push each save until cancelled. What does not load is shown, and the last good version goes on serving."""
        async for _ in self._looks():
            changed, environment = self._saved(), runner.engine.environment.changed_ts
            # A variable that was missing may have been set. Code that serves has no need of a push for it.
            if changed or (self._failed and environment != self._environment):
                await self._push(runner, logs)
                self._environment = runner.engine.environment.changed_ts

    async def changed(self, *also: Path) -> None:
        """Wait for the next save, or for one of the files ``also`` to change."""
        before = [_state(file) for file in also]
        async with contextlib.aclosing(self._looks()) as looks:
            async for _ in looks:
                if self._saved() or [_state(file) for file in also] != before:
                    return

    def _saved(self) -> bool:
        files = _files(self._folder)
        saved = files != self._files
        self._files = files
        return saved

    async def _looks(self) -> AsyncGenerator[None, None]:
        """A turn whenever something in the app's folders may have changed, and every ``LOOK_MS`` besides."""
        while True:
            folders = _folders(self._folder)
            changes = awatch(
                *folders,
                recursive=False,
                watch_filter=None,
                step=SETTLE_MS,
                debounce=LONGEST_MS,
                rust_timeout=LOOK_MS,
                yield_on_timeout=True,
            )
            try:
                async for _ in changes:
                    yield
                    if _folders(self._folder) != folders:
                        break
            except FileNotFoundError:  # a folder was removed before it was watched
                await asyncio.sleep(SETTLE_MS / 1000)
                yield

    async def _push(self, runner: Runner, logs: Logs) -> None:
        started = time.perf_counter()
        try:
            app = await push(runner, self.env_file)
        except ReactorError as error:
            self._failed = True
            logs.say(f"Not pushed: {error.message}\nThe version before goes on serving.", "error")
        else:
            took_ms = (time.perf_counter() - started) * 1000
            logs.say(f"{'OK again: pushed' if self._failed else 'Pushed'} {describe(app)} in {took_ms:.0f} ms")
            self._failed = False


def describe(app: App) -> str:
    """What an app holds, in a few words."""
    tables, functions = sum(table.writable for table in app.catalog.tables.values()), len(app.registry)
    routes = 0 if app.http is None else len(app.http)
    counted = [_count(tables, "table"), _count(functions, "function"), *([_count(routes, "HTTP route")] if routes else [])]
    return f"{', '.join(counted[:-1])} and {counted[-1]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _folders(folder: Path) -> list[Path]:
    """The folders whose files are the app's code."""
    functions = folder / _FUNCTIONS
    # Not rglob, which fails when a folder is removed while it looks.
    found = (Path(place, name) for place, names, _ in os.walk(functions) for name in names)
    inside = sorted(place for place in found if not place.name.startswith(("__", ".")))
    return [folder, functions, *inside] if functions.is_dir() else [folder]


def _files(folder: Path) -> Files:
    """The app's files, each with what changes when it is saved."""
    beside = (file for file in folder.glob("*.py") if not file.name.startswith(("test_", "conftest")))
    states = {file: _state(file) for file in (*beside, *python_files(folder / _FUNCTIONS), folder / ENV_FILE)}
    return {file: state for file, state in states.items() if state is not None}


def _state(file: Path) -> tuple[int, int] | None:
    """What changes when a file is saved; None when there is none."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
