"""An identity provider of the tests' own: an HTTP server that tells its configuration and its keys, and signs tokens."""

from __future__ import annotations

import functools
import json
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

__all__ = ["Issuer", "jwk_of", "new_key", "private_key"]

Answer = tuple[int, dict[str, str], bytes]


def new_key(algorithm: str, bits: int = 2048) -> Any:
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(65537, bits)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate()


@functools.cache
def private_key(algorithm: str, kid: str) -> Any:
    """The key of this name. Made once: those of RSA take a while."""
    return new_key(algorithm)


def jwk_of(key: Any, algorithm: str, kid: str) -> dict[str, Any]:
    """The public half, as a set of keys has it."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": kid, "alg": algorithm, "use": "sig"}


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # who asked has gone
            super().handle_error(request, client_address)


class Issuer:
    """``with Issuer() as issuer``. What it answers can be changed while it runs.

    Attributes:
        keys: algorithm by key id, as the set of keys has them; a new one is there at once.
        configuration: what its discovery says; keys may be changed or added.
        answers: by path, what is answered instead.
        asked: the paths asked for, in order.
        down: answers nothing but 503.
        open: while it is cleared, answers wait.
        mint: makes the token that a page gets from ``/token?…``, from the parameters.
    """

    def __init__(self, path: str = "") -> None:
        self.keys = {"rs": "RS256", "es": "ES256", "ed": "EdDSA"}
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.down = False
        self.open = threading.Event()
        self.open.set()
        self.mint: Callable[[dict[str, str]], str] | None = None
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers, body = issuer._answer(self.path)
                self.send_response(status)
                for name, value in {"access-control-allow-origin": "*", "content-length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self.url = self.origin + path
        self.jwks_url = f"{self.url}/jwks"
        self.configuration: dict[str, Any] = {"issuer": self.url, "jwks_uri": self.jwks_url}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer no connection any more."""
        self.open.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def jwks(self) -> dict[str, Any]:
        return {"keys": [jwk_of(private_key(algorithm, kid), algorithm, kid) for kid, algorithm in self.keys.items()]}

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Good claims; those that are None are left out."""
        now = int(time.time())
        claims = {"iss": self.url, "sub": "ann", "aud": "app", "iat": now, "exp": now + 3600, **changed}
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, kid: str | None = "rs", *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token signed with the key of this id."""
        algorithm = self.keys.get(kid or "", "RS256")
        named = {} if kid is None else {"kid": kid}
        return jwt.encode(self.claims(**claims), private_key(algorithm, kid or "rs"), algorithm, {**named, **(headers or {})})

    def public_pem(self, kid: str = "rs") -> bytes:
        key = private_key(self.keys[kid], kid).public_key()
        pem: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return pem

    def _answer(self, target: str) -> Answer:
        parts = urlsplit(target)
        self.asked.append(parts.path)
        self.open.wait(30)
        json_type = {"content-type": "application/json"}
        if self.down:
            return 503, {}, b"down"
        if parts.path in self.answers:
            return self.answers[parts.path]
        prefix = urlsplit(self.url).path
        if parts.path == f"{prefix}/.well-known/openid-configuration":
            return 200, json_type, json.dumps(self.configuration).encode()
        if parts.path == f"{prefix}/jwks":
            return 200, json_type, json.dumps(self.jwks()).encode()
        if parts.path == "/token" and self.mint is not None:
            return 200, {}, self.mint(dict(parse_qsl(parts.query))).encode()
        return 404, {}, b""
