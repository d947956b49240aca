"""``reactor dev`` and ``reactor start``."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reactor.errors import CodeError, EnvironmentVariableError, ReactorError, SchemaError
from reactor.server.app import Backend, open_backend
from reactor.server.env_file import EnvFile
from reactor.server.logs import Logs
from reactor.server.node import address_left, bind, serve, url_of
from reactor.server.push import Watcher, describe
from reactor.server.settings import Settings, is_postgres
from reactor.server.supervisor import supervise, supervised

__all__ = ["dev", "push_once", "run_loop", "settings", "start"]

#: The names under which official clients and the build tools of their front ends look for the address.
URL_NAMES = (
    "CONVEX_URL",
    "VITE_CONVEX_URL",
    "NEXT_PUBLIC_CONVEX_URL",
    "EXPO_PUBLIC_CONVEX_URL",
    "PUBLIC_CONVEX_URL",
    "REACT_APP_CONVEX_URL",
)


def settings(**options: Any) -> Settings:
    """Settings from the environment, and from those options that were given.

    Raises:
        ReactorError: one cannot be used; says which.
    """
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"])
        raise ReactorError(f"REACTOR_{name.upper()}: {first['msg']}, not {first['input']!r}.", code="BadSetting") from None


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on the fastest event loop there is."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if sys.platform != "win32":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def push_once(settings: Settings) -> None:
    """Load the app, fit the database to it, say so and end.

    Raises:
        CodeError, SchemaError, StoreError: it cannot be.
    """

    async def push() -> None:
        logs = Logs(sys.stdout, machine=False, folder=Path.cwd())
        try:
            async with open_backend(Path.cwd(), settings, logs, env_file=EnvFile(Path.cwd()), serving=False) as backend:
                logs.say(f"Pushed {describe(backend.runner.app)} to {settings.shown_db}")
        finally:
            logs.close()

    run_loop(push())


def dev(settings: Settings, *, reload: bool) -> None:
    """Serve for development until interrupted.

    Raises:
        ReactorError: it cannot be started. With ``reload``, code that does not load is waited for instead.
    """
    run_loop(_dev(settings, reload))


async def _dev(settings: Settings, reload: bool) -> None:
    folder = Path.cwd()
    listening = _bind(settings)
    logs = Logs(sys.stdout, machine=False, folder=folder)
    try:
        while True:
            watcher = Watcher(folder) if reload else None
            try:
                env_file = watcher.env_file if watcher is not None else EnvFile(folder)
                async with open_backend(folder, settings, logs, url=url_of(listening[0]), env_file=env_file, watcher=watcher) as backend:
                    await _serve(backend, listening, settings, partial(_greet, backend, listening, settings))
                return
            except (CodeError, SchemaError, EnvironmentVariableError) as error:
                if watcher is None or error.code == "NoApp":
                    raise
                logs.say(f"{error.message}\nSave a change to try again.", "error")
                # What is missing may be an environment variable, set in the database.
                await watcher.changed(settings.beside)
    finally:
        logs.close()


def _bind(settings: Settings) -> list[socket.socket]:
    """The sockets to serve: of the port, and of the second one for HTTP actions if there is to be one."""
    ports = [settings.port] if settings.site_port is None else [settings.port, settings.site_port]
    return [bind(settings.host, port) for port in ports]


async def _serve(
    backend: Backend,
    listening: Sequence[socket.socket],
    settings: Settings,
    on_start: Callable[[Callable[[], None]], None],
    *,
    signals: bool = True,
) -> None:
    # What lives as long as the server is most of what there is: looking through it for garbage after every few hundred
    # new objects took a third of the time of a mutation. What one mutation leaves behind is freed by counting.
    gc.set_threshold(50_000, 20, 100)
    with address_left(settings.beside, url_of(listening[0])):
        await serve(backend, listening, stop_timeout_s=settings.stop_timeout_s, on_start=on_start, signals=signals)


def _greet(backend: Backend, listening: Sequence[socket.socket], settings: Settings, stop: Callable[[], None]) -> None:
    url, *site = map(url_of, listening)
    app = backend.runner.app
    page = f"  Page       {url}/\n" if backend.static is not None else ""
    actions = f"  HTTP       {site[0] if site else url}/\n" if app.http is not None else ""
    print(
        f"reactor serves {describe(app)}\n"
        f"{page}"
        f"  API        {url}\n"
        f"{actions}"
        f"  Functions  {_relative(app.folder / 'app_functions')}/\n"
        f"  Database   {settings.shown_db if settings.postgres else _relative(Path(settings.db))}\n"
        f"Clients and front ends read the address from one of\n"
        f"  {'  '.join(URL_NAMES[:3])}\n"
        f"  {'  '.join(URL_NAMES[3:])}\n"
        f"such as {URL_NAMES[0]}={url}",
        flush=True,
    )


def _relative(path: Path) -> str:
    return os.path.relpath(path) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(path)


def start(settings: Settings) -> None:
    """Serve in production until asked to stop, under a supervisor.

    Raises:
        ReactorError: it cannot be started.
    """
    node = supervised()
    if node is None:
        if settings.workers > 1 and settings.postgres is None:
            raise ReactorError(
                f"A SQLite file is for one process, so it cannot have {settings.workers} workers. Use Postgres: --db postgres://…",
                code="BadSetting",
            )
        if settings.read_db is not None and (settings.postgres is None or not is_postgres(settings.read_db)):
            raise ReactorError(
                "Reads can go to a standby of a Postgres database: --db postgres://… --read-db postgres://…", code="BadSetting"
            )
        sys.exit(supervise(_bind(settings), Logs(sys.stdout, machine=True), settings.workers))

    async def serve_node() -> None:
        folder = Path.cwd()
        logs = Logs(sys.stdout, machine=True, folder=folder)
        try:
            url = url_of(node.listening[0])
            async with (
                open_backend(folder, settings, logs, url=url, production=True) as backend,
                node.attend(backend.runner),
                backend.metrics.among(node.siblings),
            ):

                def on_start(stop: Callable[[], None]) -> None:
                    node.stop_with(stop)
                    logs.say(f"Serving {describe(backend.runner.app)} at {url}")

                gc.collect()
                gc.freeze()  # the code, which nothing replaces here
                await _serve(backend, node.listening, settings, on_start, signals=False)
                logs.say("Stopped")
        finally:
            logs.close()

    run_loop(serve_node())
