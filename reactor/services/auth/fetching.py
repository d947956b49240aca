"""Documents of identity providers, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import ssl
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import orjson

from reactor.errors import AuthenticationError

__all__ = ["UNREACHABLE", "fetch_json", "misconfigured", "unreachable"]

TIMEOUT_S = 10.0  # for the whole answer
SIZE_BYTES = 512 * 1024

#: Code of what may pass: the provider does not answer now.
UNREACHABLE = "AuthProviderUnreachable"

_LATER = (408, 425, 429)
_LOCAL = ("localhost", "127.0.0.1", "::1")


def unreachable(message: str) -> AuthenticationError:
    """What may pass by itself: who calls tries again."""
    return AuthenticationError(message, code=UNREACHABLE)


def misconfigured(message: str) -> AuthenticationError:
    """What does not pass unless somebody changes it."""
    return AuthenticationError(message, code="AuthProviderDiscoveryFailed")


async def fetch_json(url: str) -> dict[str, Any]:
    """The JSON object at a URL, or in a ``data:`` URI. Redirects are not followed: they may lead to another host.

    Raises:
        AuthenticationError: codes ``AuthProviderUnreachable``, and ``AuthProviderDiscoveryFailed`` for what no waiting helps.
    """
    body = _inline(url) if url.startswith("data:") else await _download(url)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise misconfigured(f"{url[:200]} holds no JSON object.")
    return document


def _inline(uri: str) -> bytes:
    kind, comma, data = uri.removeprefix("data:").partition(",")
    try:
        if comma:
            raw = unquote_to_bytes(data)
            return base64.b64decode(raw, validate=True) if kind.endswith(";base64") else raw
    except binascii.Error:
        pass
    raise misconfigured(f"{uri[:50]}… is not a data URI: data:application/json;base64,… was expected.")


@functools.cache
def _authorities() -> ssl.SSLContext:
    """Those whose certificates are trusted."""
    import httpx

    return httpx.create_ssl_context()


async def _download(url: str) -> bytes:
    # Loading these takes long enough to be felt: not at every start, and not on the loop.
    authorities = await asyncio.to_thread(_authorities)
    import httpx

    body = bytearray()
    # What is on this machine is not behind a proxy.
    local = urlsplit(url).hostname in _LOCAL
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(verify=authorities, timeout=TIMEOUT_S, trust_env=not local) as client,
        ):
            async with client.stream("GET", url, headers={"accept": "application/json"}) as answer:
                status = answer.status_code
                if status >= 500 or status in _LATER:
                    raise unreachable(f"{url} answers with status {status}.")
                if status != 200:
                    raise misconfigured(f"{url} answers with status {status}; redirects are not followed.")
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > SIZE_BYTES:
                        raise misconfigured(f"{url} answers with more than {SIZE_BYTES} bytes.")
    except (httpx.HTTPError, TimeoutError) as error:
        raise unreachable(f"{url} cannot be reached: {type(error).__name__}.") from error
    except httpx.InvalidURL as error:
        raise misconfigured(f"{url[:200]} is no URL: {error}.") from None
    return bytes(body)
