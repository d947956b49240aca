"""Asking the running server of a database, as its admin.

Commands that it answers import no server: what they need without one is imported then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson

from reactor.errors import ReactorError, StoreLocked
from reactor.server.beside import address_file, key_file

__all__ = ["ask_server", "on_server_or_here"]

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5.0


def ask_server(db: Path, method: str, route: str, body: object = None) -> Any:
    """What the server of a database answers, or None if none runs.

    Args:
        db: the database's file.
        body: to be sent as JSON.

    Raises:
        ReactorError: the server refused, or went away before it had answered.
    """
    try:
        url = address_file(db).read_text(encoding="utf-8").strip()
        key = key_file(db).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    # By Python's own client: httpx takes an eighth of a second to import, longer than all else that the command does.
    address = urlsplit(url)
    assert address.hostname is not None
    with contextlib.closing(HTTPConnection(address.hostname, address.port, timeout=CONNECT_TIMEOUT_S)) as connection:
        try:
            connection.connect()
        except OSError:
            return None  # it was killed, and left its address behind
        connection.sock.settimeout(None)
        sent = None if body is None else orjson.dumps(body)
        try:
            connection.request(method, route, sent, {"Authorization": f"Convex {key}", "Content-Type": "application/json"})
            reply = connection.getresponse()
            text = reply.read()
        except (OSError, HTTPException) as error:
            raise ReactorError(
                f"The server at {url} went away before it had answered ({error or type(error).__name__}). It may have done what it was "
                "asked to: see whether it has before you ask again.",
                code="ServerLost",
            ) from error
    try:
        answer = orjson.loads(text)
        if reply.status < 300:
            return {} if answer is None else answer
        message, code = answer["message"], answer["code"]
    except (ValueError, LookupError, TypeError):
        file = address_file(db)
        raise ReactorError(
            f"What answers at {url} is no reactor server (HTTP {reply.status}), though {file} says so. If none runs, remove that file.",
            code="NoServer",
        ) from None
    raise ReactorError(f"The server at {url} refused: {message}", code=code)


def on_server_or_here(on_server: Callable[[], T | None], here: Callable[[], T]) -> T:
    """What the server of a database gives, or, if it gives None because none runs, what is done ``here``."""
    found = on_server()
    if found is not None:
        return found
    try:
        return here()
    except StoreLocked:
        # A server took the database between the two.
        found = on_server()
        if found is None:
            raise
        return found
