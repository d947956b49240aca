"""The database that no server has open: for commands that need its system documents, and not the app."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from reactor.engine.engine import Engine
from reactor.engine.runtime import SystemRuntime
from reactor.functions.registry import App, Registry, check_folder
from reactor.functions.runner import Runner
from reactor.limits import DEFAULT_LIMITS
from reactor.schema.catalog import Catalog
from reactor.schema.system import SYSTEM
from reactor.server.settings import Settings
from reactor.server.storing import open_blobs, open_store

__all__ = ["open_database"]


@contextlib.asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[Runner]:
    """A runner without an app, from when this is entered until it is left.

    The app is not loaded: it may be waiting for what the command does, and its schema, perhaps newer than that of the nodes that
    serve the database, does not come into force.

    Raises:
        CodeError: it would be made, beside no app: whoever asks is in another folder than they think.
        StoreError: the database cannot be used.
    """
    _check_place(settings)
    store = await open_store(settings)
    try:
        catalog, runtime = Catalog.of({}, SYSTEM), SystemRuntime()
        engine = Engine(store, catalog, runtime, DEFAULT_LIMITS)
        await engine.start()
        try:
            await engine.push(catalog)
            app = App(Path.cwd(), catalog, Registry(()))
            yield Runner(engine, app, secret=store.secret, blobs=open_blobs(settings), runtime=runtime, limits=DEFAULT_LIMITS)
        finally:
            await engine.stop()
    finally:
        await store.close()


def _check_place(settings: Settings) -> None:
    if "db" not in settings.model_fields_set and not Path(settings.db).exists():
        check_folder(Path.cwd())
