"""HTTP actions: requests for the routes of ``app_functions/http.py``, each one run of an action.

Handler and answer are one run: an answer that is streamed may go on calling ``ctx``, and ends with the action's time limit. What
either side sends is counted, and a client that is slow is only waited for as long as the connection waits
(``reactor.server.uvicorn_http``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import orjson
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reactor.errors import AuthenticationError, FunctionTimeout, LimitExceeded, ReturnsError
from reactor.functions.context import ActionCtx
from reactor.functions.http import Cors, Match, Route
from reactor.functions.identity import Caller
from reactor.functions.outcome import ErrorReport
from reactor.functions.runner import Runner
from reactor.server.admin import ANONYMOUS, Authenticator, Credentials
from reactor.server.uvicorn_http import EXTENSION
from reactor.services.auth.fetching import UNREACHABLE

__all__ = ["MOUNT", "HttpActions"]

#: Where the routes are besides: under it no path is the API's.
MOUNT = "/http"

_NO_ROUTES = "This Convex deployment does not have HTTP actions enabled.\n"


class HttpActions:
    """Answers requests with the app's HTTP actions.

    Args:
        runner: whose app has the routes, as it is when the request comes.
    """

    def __init__(self, runner: Runner, authenticator: Authenticator) -> None:
        self._runner = runner
        self._authenticator = authenticator
        self._running = 0

    def match(self, scope: Scope, path: str) -> Match | None:
        """The route for a request, ``path`` being its path without the mount."""
        http = self._runner.app.http
        return None if http is None else http.match(scope["method"], path, _preflight_method(scope))

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *, mount: str = "") -> None:
        """Answer a request where there is nothing but HTTP actions."""
        path = scope["path"].removeprefix(mount) or "/"
        match = self.match(scope, path)
        if match is not None:
            await self.answer(match, scope, receive, send, mount=mount)
        elif self._runner.app.http is None:
            await PlainTextResponse(_NO_ROUTES, 404)(scope, receive, send)
        else:
            await PlainTextResponse(f"No matching routes found: {scope['method']} {path[:200]}\n", 404)(scope, receive, send)

    async def answer(self, match: Match, scope: Scope, receive: Receive, send: Send, *, mount: str = "") -> None:
        """Answer the request of a route. Cancelling it does not undo what its functions committed.

        Raises: what failed, when the answer had begun: then the connection cannot be used any more.
        """
        headers = dict(scope["headers"])
        inner = {**scope, "root_path": mount, "scheme": _scheme(headers, scope["scheme"]), "path_params": {"rest": match.rest}}
        limit = self._runner.limits.http_action_body_bytes
        gone = scope.get("extensions", {}).get(EXTENSION, _not_gone)
        exchange = _Exchange(receive, send, limit, gone, head=scope["method"] == "HEAD", has_body=_has_body(headers))
        announced = headers.get(b"content-length", b"")
        app: ASGIApp
        if announced.isdigit() and int(announced) > limit:
            app = _refusal(413, "RequestTooLarge", _too_large("request", limit))
        elif self._running >= self._runner.limits.http_actions_running:
            app = _refusal(503, "TooManyHttpActions", "The server is busy. Try again in a moment.", {"retry-after": "1"})
        else:
            app = self._action(match.route, headers, exchange)
        if match.route.cors is not None:
            app = _with_cors(app, match.route.cors, match.route.method)
        self._running += 1
        try:
            with contextlib.suppress(_Answered):  # of what is answered in a handler's place: a failure, a refusal
                await app(inner, exchange.receive, exchange.send)
        finally:
            self._running -= 1

    def _action(self, route: Route, headers: Mapping[bytes, bytes], exchange: _Exchange) -> ASGIApp:
        async def run(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                caller = await self._caller(headers)
            except AuthenticationError as away:
                await _refusal(503, away.code, away.message, {"retry-after": "1"})(scope, receive, send)
                return

            async def body(ctx: ActionCtx) -> None:
                try:
                    response: object = await route.handler(ctx, Request(scope, receive, send))
                except HTTPException as error:
                    response = PlainTextResponse(error.detail, error.status_code, error.headers)
                if not isinstance(response, Response):
                    raise ReturnsError(
                        f"{route.name}: the handler returned a {type(response).__name__}, and not a Response of Starlette's."
                    )
                if not exchange.complete:
                    # To notice a client that goes, Starlette reads on meanwhile, and would take from the handler what it streams.
                    scope["asgi"] = {**scope["asgi"], "spec_version": "2.4"}
                with contextlib.suppress(_Answered):
                    await response(scope, receive, send)

            outcome = await self._runner.http_action(route.name, _url(scope), body, caller)
            error = outcome.error
            if error is None or exchange.gone or exchange.answered:
                return
            if exchange.started:
                raise error.exception
            await _failure(error)(scope, receive, send)

        return run

    async def _caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Who calls. A credential that does not verify may be one of the app's own, and is its handler's to judge.

        Raises:
            AuthenticationError: code ``AuthProviderUnreachable``: a token of one of the app's providers, that may well be good.
        """
        shown: Credentials
        try:
            shown = await self._authenticator.authorize(headers.get(b"authorization"))
        except AuthenticationError as error:
            if error.code == UNREACHABLE:
                raise
            shown = ANONYMOUS
        return Caller(shown.identity, shown.admin, self._runner.runtime.random_bytes(8).hex(), "http action")


class _Exchange:
    """A request and its answer as they are sent.

    Args:
        gone: whether the client is not there any more.

    Attributes:
        complete: whether the request was read to its end.
        started: whether the answer has begun.
        answered: whether it is complete.
        gone: whether the client is not there any more.
    """

    def __init__(self, receive: Receive, send: Send, limit_bytes: int, gone: Callable[[], bool], *, head: bool, has_body: bool) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit_bytes
        self._gone = gone
        self.complete = not has_body
        self._head = head
        self._received = self._sent = 0
        self.started = self.answered = self.gone = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = not self.answered
            return message
        self.complete = not message.get("more_body", False)
        self._received += len(message.get("body", b""))
        if self._received > self._limit:
            raise LimitExceeded(_too_large("request", self._limit), code="RequestTooLarge")
        return message

    async def send(self, message: Message) -> None:
        if self.answered:
            return
        if self._gone():
            self.gone = True
            if message.get("more_body", False):
                raise OSError("The client is gone.")
            return
        if message["type"] == "http.response.start":
            length = dict(message["headers"]).get(b"content-length", b"0")
            self._check(int(length) if length.isdigit() else 0)
            await self._send(message)
            self.started = True
            return
        self._sent += len(message.get("body", b""))
        self._check(self._sent)
        if self._head:
            # What is streamed may have no end, and nobody gets it.
            message = {"type": "http.response.body", "body": b""}
        self.answered = not message.get("more_body", False)
        await self._send(message)
        if self._head:
            raise _Answered

    def _check(self, size: int) -> None:
        if size > self._limit and not self._head:
            raise LimitExceeded(_too_large("response", self._limit), code="HttpResponseTooLarge")


class _Answered(Exception):
    """There is nothing more to send. Ends a response that would go on."""


def _with_cors(app: ASGIApp, cors: Cors, method: str) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=cors.origins,
        allow_methods=(method, "HEAD") if method == "GET" else (method,),
        allow_headers=cors.headers,
        allow_credentials=cors.credentials,
        expose_headers=cors.expose,
        max_age=cors.max_age_s,
    )


def _failure(error: ErrorReport) -> Response:
    """The answer to a request whose action failed."""
    exception = error.exception
    if isinstance(exception, AuthenticationError):
        return _refusal(401, exception.code, exception.message)
    if isinstance(exception, LimitExceeded) and exception.code == "RequestTooLarge":
        return _refusal(413, exception.code, exception.message)
    code, _, trace = error.message.partition("\n    at ")
    body = orjson.dumps({"code": code, **({"trace": f"at {trace}"} if trace else {})})
    if error.data is not None:
        body = b'%b,"data":%b}' % (body[:-1], error.data)
    status = 500 if not isinstance(exception, FunctionTimeout) else 503 if exception.code == "CallRefused" else 504
    return Response(body, status, media_type="application/json")


def _refusal(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps({"code": code, "message": message}), status, headers, "application/json")


def _too_large(what: str, limit_bytes: int) -> str:
    return f"The {what} of an HTTP action has at most {limit_bytes} bytes."


def _preflight_method(scope: Scope) -> str | None:
    """The method that a preflight asks for. A browser's says where its page is from; without that it is a request like any other."""
    if scope["method"] != "OPTIONS":
        return None
    headers = dict(scope["headers"])
    asked: bytes | None = headers.get(b"access-control-request-method")
    if asked is None or b"origin" not in headers:
        return None
    return "GET" if asked == b"HEAD" else asked.decode("latin-1")


def _has_body(headers: Mapping[bytes, bytes]) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _not_gone() -> bool:
    return False


def _scheme(headers: Mapping[bytes, bytes], own: str) -> str:
    """The scheme that the client used, as the proxy in front tells."""
    told = headers.get(b"x-forwarded-proto", b"").partition(b",")[0].strip().lower()
    if not told:
        first = headers.get(b"forwarded", b"").partition(b",")[0].lower()
        told = next(
            (value.strip(b' "') for name, _, value in (p.partition(b"=") for p in first.split(b";")) if name.strip() == b"proto"), b""
        )
    return told.decode() if told in (b"http", b"https") else own


def _url(scope: Scope) -> bytes:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return b"%b?%b" % (raw, scope["query_string"])
