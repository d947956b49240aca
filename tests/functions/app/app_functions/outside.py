"""Reaching for the world outside the database."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reactor import ActionCtx, MutationCtx, QueryCtx, action, mutation, query
from tests.functions.app.app_functions import items
from tests.functions.app.schema import Item


def connect(place: Path) -> None:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))


def resolve(place: Path) -> None:
    socket.getaddrinfo("127.0.0.1", 80)


def fetch(place: Path) -> None:
    urllib.request.urlopen((place / "there").as_uri()).close()


def write(place: Path) -> None:
    (place / "new").write_text("x")


def append(place: Path) -> None:
    with open(place / "there", "a") as file:
        file.write("x")


def read(place: Path) -> None:
    (place / "there").read_text()


def low(place: Path) -> None:
    os.close(os.open(place / "low", os.O_CREAT | os.O_WRONLY))


def remove(place: Path) -> None:
    (place / "there").unlink()


def rename(place: Path) -> None:
    (place / "there").rename(place / "moved")


def folder(place: Path) -> None:
    (place / "folder").mkdir()


def copy(place: Path) -> None:
    shutil.copyfile(place / "there", place / "copy")


def temporary(place: Path) -> None:
    tempfile.mkdtemp(dir=place)


def process(place: Path) -> None:
    subprocess.run(["true"], check=True)


def system(place: Path) -> None:
    os.system("true")


def thread(place: Path) -> None:
    started = threading.Thread(target=int)
    started.start()
    started.join()


def database(place: Path) -> None:
    sqlite3.connect(place / "there.db").close()


def ask(place: Path) -> None:
    with contextlib.suppress(OSError, EOFError):  # nobody is there
        input()


WAYS: dict[str, Callable[[Path], None]] = {
    way.__name__: way
    for way in (
        connect, resolve, fetch, write, append, read, low, remove, rename, folder, copy, temporary, process, system, thread, database, ask,
    )
}  # fmt: skip


@query
async def in_query(ctx: QueryCtx, way: str, place: str) -> None:
    WAYS[way](Path(place))


@mutation
async def in_mutation(ctx: MutationCtx, way: str, place: str) -> None:
    await ctx.db.insert(Item(list="a", rank=1))
    WAYS[way](Path(place))


@mutation
async def nested(ctx: MutationCtx, way: str, place: str) -> None:
    await ctx.run_mutation(items.insert, list="a", rank=1)
    await ctx.run_query(in_query, way=way, place=place)


@action
async def in_action(ctx: ActionCtx, way: str, place: str) -> None:
    WAYS[way](Path(place))


@action
async def query_of_action(ctx: ActionCtx, way: str, place: str) -> None:
    await ctx.run_query(in_query, way=way, place=place)


@query
async def imports(ctx: QueryCtx) -> Any:
    """A module's code may be read, and imported."""
    import colorsys

    return colorsys.rgb_to_hsv(0, 0, 1)[2]
