"""``reactor dev``, and the node of ``reactor start``."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from reactor.cli.loop import run_loop
from reactor.errors import CodeError, EnvironmentVariableError, SchemaError
from reactor.server.app import Backend, open_backend
from reactor.server.env_file import EnvFile
from reactor.server.listening import address_left, bind_all, url_of
from reactor.server.logs import Logs
from reactor.server.node import serve
from reactor.server.push import Watcher, describe
from reactor.server.settings import Settings
from reactor.server.supervisor import Node

__all__ = ["dev", "push_once", "serve_node"]

#: The names under which official clients and the build tools of their front ends look for the address.
URL_NAMES = (
    "CONVEX_URL",
    "VITE_CONVEX_URL",
    "NEXT_PUBLIC_CONVEX_URL",
    "EXPO_PUBLIC_CONVEX_URL",
    "PUBLIC_CONVEX_URL",
    "REACT_APP_CONVEX_URL",
)


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
    listening = bind_all(settings)
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


async def serve_node(node: Node, settings: Settings) -> None:
    """Serve in production until asked to stop, as the node of a supervisor.

    Raises:
        ReactorError: it cannot be started.
    """
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
