"""The assembly: an app and a database become a server.

Everything is started in this order and stopped in the opposite one: store, engine, the app's schema, background tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reactor.engine.engine import Engine
from reactor.engine.runtime import Runtime, SystemRuntime
from reactor.errors import StoreError
from reactor.functions.environment import addresses_of
from reactor.functions.outcome import RunRecord
from reactor.functions.output import capture_output
from reactor.functions.registry import App, load_app
from reactor.functions.runner import Runner
from reactor.limits import DEFAULT_LIMITS
from reactor.server.admin import Authenticator, admin_key_of, load_admin_key
from reactor.server.env_file import EnvFile
from reactor.server.file_server import FileServer
from reactor.server.health import Health
from reactor.server.http_actions import MOUNT, HttpActions
from reactor.server.http_api import Call, HttpApi, Receive, Reply, Scope, Send, send_reply
from reactor.server.logs import Logs, console_logging
from reactor.server.metrics import Metrics
from reactor.server.push import Watcher, prepare_environment
from reactor.server.settings import Settings
from reactor.server.static import StaticPage, find_static
from reactor.server.storing import open_blobs, open_store
from reactor.server.uvicorn_http import Answering
from reactor.server.websocket import Connections
from reactor.services.crons import reconcile
from reactor.services.scheduler import ScheduledRuns
from reactor.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from reactor.stores.postgres import PostgresStore
    from reactor.stores.postgres_standby import StandbyHealth

__all__ = ["Backend", "open_backend"]

logger = logging.getLogger(__name__)

TRIM_EVERY_S = 600.0

RUNNING = b"This reactor server is running.\n"


class Backend:
    """All that serves one engine, as an ASGI application.

    Args:
        instance_name: of the database.
        static: folder of the page at ``/``, or None.
        scheduled: what runs scheduled functions beside it, for metrics.
        settings: of who may read metrics.
        standby: how it goes with the database's standby that reads go to.

    Attributes:
        site_port: where there is nothing but HTTP actions; None: no such port is open.
    """

    def __init__(
        self,
        runner: Runner,
        authenticator: Authenticator,
        *,
        instance_name: str,
        static: Path | None = None,
        scheduled: ScheduledRuns | None = None,
        settings: Settings | None = None,
        standby: Callable[[], StandbyHealth | None] = lambda: None,
    ) -> None:
        self.runner = runner
        self.engine = runner.engine
        self.authenticator = authenticator
        self.connections = Connections(runner.engine, runner, authenticator, runner.runtime, runner.limits)
        self.http_api = HttpApi(runner, authenticator, instance_name=instance_name, version=importlib.metadata.version("reactor"))
        self.http_actions = HttpActions(runner, authenticator)
        self.site_port: int | None = None
        self._files = FileServer(runner)
        self.static = static
        self._health = Health(runner.engine, self.connections, standby)
        self.metrics = Metrics(
            runner,
            self.connections,
            authenticator,
            scheduled=scheduled,
            access=settings.metrics if settings is not None else None,
            key=settings.metrics_key if settings is not None else None,
        )
        self._page = StaticPage(static) if static is not None else None

    def direct(self, scope: Scope) -> Answering | None:
        """What answers requests with the head of this one without ASGI, if anything does."""
        return None if self._on_site(scope) else self.http_api.direct(scope)

    def _on_site(self, scope: Scope) -> bool:
        return self.site_port is not None and bool(scope["server"][1] == self.site_port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or connection."""
        path = scope["path"]
        if path.startswith("//"):
            # Clients that were given an address ending in a slash.
            path = scope["path"] = f"/{path.lstrip('/')}"
        if scope["type"] == "websocket":
            await (self.connections if Connections.serves(path) and not self._on_site(scope) else _no_socket)(scope, receive, send)
        elif self._on_site(scope):
            await self.http_actions(scope, receive, send)
        elif FileServer.serves(path):
            await self._files(scope, receive, send)
        elif self.http_api.serves(path):
            await self.http_api(scope, receive, send)
        elif self._health.serves(path):
            await send_reply(send, self._health.reply(path))
        elif self.metrics.serves(path):
            await send_reply(send, await self.metrics.reply(Call(scope, receive, dict(scope["headers"]))))
        elif path.startswith(f"{MOUNT}/") or path == MOUNT:
            await self.http_actions(scope, receive, send, mount=MOUNT)
        elif (match := self.http_actions.match(scope, path)) is not None:
            await self.http_actions.answer(match, scope, receive, send)
        elif self._page is not None:
            await self._page(scope, receive, send)
        elif path == "/":
            await send_reply(send, Reply(RUNNING, content_type=b"text/plain; charset=utf-8"))
        else:
            await send_reply(send, Reply(b"Not Found\n", 404, b"text/plain; charset=utf-8"))


async def _no_socket(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 1008, "reason": "NotFound"})


@contextlib.asynccontextmanager
async def open_backend(
    folder: Path,
    settings: Settings,
    logs: Logs,
    *,
    url: str = "http://127.0.0.1:3210",
    production: bool = False,
    env_file: EnvFile | None = None,
    watcher: Watcher | None = None,
    runtime: Runtime | None = None,
    serving: bool = True,
) -> AsyncIterator[Backend]:
    """The backend of the app in ``folder``, running from when this is entered until it is left.

    Args:
        url: where the server listens; the settings may name another address for clients.
        production: errors are opaque to clients.
        env_file: whose environment variables are set at the start.
        watcher: takes up files as they are saved.
        serving: run scheduled functions too.

    Raises:
        CodeError, SchemaError: the app cannot be used, or stored documents do not fit its schema.
        EnvironmentVariableError: the app's settings lack an environment variable.
        StoreError: the database cannot be used, or, later on, no more.
    """
    runtime = runtime or SystemRuntime()
    app = load_app(folder)
    async with contextlib.AsyncExitStack() as stack:
        opened = _open_runner(app, settings, runtime, production=production, on_run=logs.run)
        runner, store = await stack.enter_async_context(opened)
        alone = isinstance(store, SqliteStore)
        runner.addresses = addresses_of(settings.url or url)
        await prepare_environment(runner, app, env_file)
        await runner.pending.load()
        # Nodes over one database have one key.
        key = None if alone else admin_key_of(store.secret, store.instance_name)
        authenticator = Authenticator(load_admin_key(settings.beside, store.instance_name, key), runner)
        await authenticator.keys.load()
        stack.push_async_callback(authenticator.close)
        stack.enter_context(console_logging(logs))
        stack.enter_context(capture_output())
        await reconcile(runner)
        scheduled = ScheduledRuns(runner, alone=alone)
        works = {"engine-ended": runner.engine.ended(), "trim": _trim(runner.engine, runtime), "files": runner.files.run(alone=alone)}
        if serving:
            works["scheduler"] = scheduled.run()
        if watcher is not None:
            works["watch"] = watcher.run(runner, logs)
        async with _background(works):
            try:
                yield Backend(
                    runner,
                    authenticator,
                    instance_name=store.instance_name,
                    static=settings.static if settings.static is not None else find_static(app.folder),
                    scheduled=scheduled,
                    settings=settings,
                    standby=lambda: store.standby,
                )
            finally:
                await scheduled.stop(settings.stop_timeout_s)


@contextlib.asynccontextmanager
async def _open_runner(
    app: App, settings: Settings, runtime: Runtime, *, production: bool, on_run: Callable[[RunRecord], None]
) -> AsyncIterator[tuple[Runner, SqliteStore | PostgresStore]]:
    """What runs the app's functions on the database of the settings, which has the app's schema by then."""
    limits = dataclasses.replace(DEFAULT_LIMITS, log_retention_s=settings.log_retention_s, request_retention_s=settings.request_retention_s)
    async with contextlib.AsyncExitStack() as stack:
        store = await open_store(settings)
        stack.push_async_callback(store.close)
        engine = Engine(store, app.catalog, runtime, limits)
        await engine.start()
        stack.push_async_callback(engine.stop)
        await engine.push(app.catalog)
        blobs = open_blobs(settings)
        yield (
            Runner(engine, app, secret=store.secret, blobs=blobs, runtime=runtime, limits=limits, production=production, on_run=on_run),
            store,
        )


@contextlib.asynccontextmanager
async def _background(works: Mapping[str, Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run each in a task until this is left. What ends it because the database can be used no more is raised as that."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work, name=f"reactor-{name}") for name, work in works.items()]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as failed:
        if failed.subgroup(lambda error: not isinstance(error, StoreError)) is not None:
            raise
        raise failed.exceptions[0] from None


async def _trim(engine: Engine, runtime: Runtime) -> None:
    """Keep the commit log and the remembered requests to their retention."""
    while True:
        await runtime.sleep(TRIM_EVERY_S)
        try:
            await engine.trim(now_ns=runtime.now_ns())
        except StoreError:
            logger.exception("The commit log could not be trimmed; it is tried again in %d s", TRIM_EVERY_S)
