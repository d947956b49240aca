"""Asking the running server of a database, as its admin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from reactor.errors import ReactorError
from reactor.server.admin import key_file
from reactor.server.node import address_file

__all__ = ["ask_server"]

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
    headers = {"Authorization": f"Convex {key}"}
    timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
    try:
        reply = httpx.request(method, f"{url}{route}", headers=headers, json=body, timeout=timeout, trust_env=False)
    except httpx.ConnectError:
        return None  # it was killed, and left its address behind
    answer = reply.json()
    if not reply.is_success:
        raise ReactorError(f"The server at {url} refused: {answer['message']}", code=answer["code"])
    return {} if answer is None else answer
