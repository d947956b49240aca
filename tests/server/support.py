"""Backends whose admin key the tests know, and calls over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import httpx
import orjson

from reactor.server.admin import Authenticator
from reactor.server.app import Backend
from reactor.testing import TestBackend
from tests.support.sockets import Socket

__all__ = ["ADMIN_KEY", "APP", "SmallBackend", "call", "post", "socket"]

APP = Path(__file__).parent / "app"
ADMIN_KEY = "test|4711"


class SmallBackend(TestBackend):
    """TestBackend with ``ADMIN_KEY``."""

    __test__ = False

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        authenticator = Authenticator(ADMIN_KEY, self._runner)
        self._stack.push_async_callback(authenticator.close)
        self._server = Backend(self._runner, authenticator, instance_name="test")
        return self


def socket(t: TestBackend, **options: Any) -> Socket:
    return Socket(t._server, **options)


async def post(t: TestBackend, path: str, body: Any, **headers: str) -> httpx.Response:
    """POST ``body``: as JSON, or bytes as they are."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await t.fetch(path, method="POST", content=content, headers={"content-type": "application/json", **named})


async def call(t: TestBackend, kind: str, path: str, args: Any, **headers: str) -> Any:
    """The body of the answer to a call in the wire's encoding, which has status 200."""
    answer = await post(t, f"/api/{kind}", {"path": path, "args": args, "format": "convex_encoded_json"}, **headers)
    assert answer.status_code == 200, answer.text
    return answer.json()
