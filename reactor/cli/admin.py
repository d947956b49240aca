"""Asking the running server of a database, as its admin.

Commands that it answers import no server: what they need without one is imported then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from http.client import HTTPConnection
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
        ReactorError: the server refused.
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
        connection.request(method, route, sent, {"Authorization": f"Convex {key}", "Content-Type": "application/json"})
        reply = connection.getresponse()
        answer = orjson.loads(reply.read())
    if reply.status >= 300:
        raise ReactorError(f"The server at {url} refused: {answer['message']}", code=answer["code"])
    return {} if answer is None else answer


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
