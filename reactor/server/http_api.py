"""The HTTP API: functions called by any program, and what tools ask a server.

Plain ASGI, and for calls of queries and mutations a way past it (``HttpApi.direct``): these are hot paths, so there is no middleware
or request object for each call. A function that fails is an answer with status 200 and ``"status":"error"``; every other status
comes with ``{"code", "message"}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import parse_qs, unquote

import orjson

from reactor.engine.store import Ts
from reactor.errors import (
    AuthenticationError,
    CodeError,
    EnvironmentVariableError,
    FunctionNotFound,
    ProtocolError,
    ReactorError,
    SchemaOutdated,
    StoreError,
    StoreUnavailable,
    WriteConflict,
)
from reactor.functions.environment import change_variables, variables
from reactor.functions.identity import Caller
from reactor.functions.outcome import Outcome
from reactor.functions.registry import canonical_path
from reactor.functions.runner import Runner
from reactor.protocol import server_messages as wire
from reactor.protocol.client_version import client_version
from reactor.protocol.version import decode_ts, encode_ts
from reactor.server.admin import ANONYMOUS, Authenticator
from reactor.services.auth.fetching import UNREACHABLE
from reactor.values import codec

__all__ = ["Call", "ClientGone", "HttpApi", "HttpError", "Reply", "allowed", "preflight", "send_reply"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

logger = logging.getLogger(__name__)

#: Measures the network. Anybody may ask for it, and each is kept until it is whole, and then until it is taken: so few may at a time.
ECHO = "/echo"
ECHO_SIZE_BYTES = 128 * 1024 * 1024
ECHOES = 2
#: Of an answer that is sent at a time. The rest waits until the client has taken some.
PIECE_BYTES = 1024 * 1024

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
_METHODS = b"GET, POST, PUT, PATCH, DELETE, OPTIONS"
_VARY = (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
_CREDENTIALS = (b"access-control-allow-credentials", b"true")
_REQUEST_ID = re.compile(rb"[0-9A-Za-z_-]{1,64}")
#: Whether an answer is written for programs that do not know the wire's encoding, by the name of its format.
_CLEAN = {"json": True, "convex_clean_json": True, "convex_encoded_json": False, "convex_json": False}

#: Clients before these versions do not say the format, and expect the wire's encoding.
_SAYS_FORMAT_FROM = {"npm": (1, 4, 1), "npm-cli": (1, 4, 1), "python": (0, 5, 0)}

_AUTHENTICATION_STATUS = {"BadDeployKey": 403, UNREACHABLE: 503}

#: Failures before the function ran, by code: the request is at fault.
_REQUEST_FAULTS = frozenset(("TimestampInFuture", "LogTrimmed"))


class Reply(NamedTuple):
    """What is answered to a request."""

    body: bytes
    status: int = 200
    content_type: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class HttpError(Exception):
    """A request that gets no function's answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(b'{"code":%b,"message":%b}' % (wire.text(code), wire.text(message)), status)


class ClientGone(Exception):
    """The client went away before its request was complete. Nobody is there to be answered."""


class Call(NamedTuple):
    """A request.

    Attributes:
        whole: its body, where that is not to be received.
    """

    scope: Scope
    receive: Receive
    headers: Mapping[bytes, bytes]
    whole: bytes | None = None

    async def body(self, limit_bytes: int) -> bytes:
        """The whole body.

        Raises:
            HttpError: it is larger than ``limit_bytes``; then no more than that was read.
            ClientGone: the client did not send all of it.
        """
        if self.whole is not None and len(self.whole) <= limit_bytes:
            return self.whole
        announced = self.headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit_bytes:
            raise _too_large(limit_bytes)
        message = await self.receive()
        body: bytes = message.get("body", b"")
        chunks = [body]
        size = len(body)
        while message.get("more_body", False):
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            message = await self.receive()
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            chunks.append(chunk)
        if message["type"] == "http.disconnect":
            raise ClientGone
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        return body if len(chunks) == 1 else b"".join(chunks)

    def query(self) -> dict[str, str]:
        """The parameters of the query string; the last of each name."""
        return {name: values[-1] for name, values in parse_qs(self.scope["query_string"].decode("latin-1"), keep_blank_values=True).items()}


class FunctionCall(NamedTuple):
    """Which function with what, and how to write the answer."""

    path: str
    args: bytes  # JSON text
    clean: bool


Handler: TypeAlias = Callable[[Call], Awaitable[Reply]]


class HttpApi:
    """Answers everything under ``/api/`` but the socket, and what tells tools about the server.

    Args:
        instance_name: of the database.
        version: of reactor.
    """

    def __init__(self, runner: Runner, authenticator: Authenticator, *, instance_name: str, version: str) -> None:
        self._runner = runner
        self._authenticator = authenticator
        self._limits = runner.limits
        self._echoing = 0
        self._routes: dict[str, dict[str, Handler]] = {
            "/api/query": {"POST": self._query, "GET": self._get_query},
            "/api/mutation": {"POST": self._mutation},
            "/api/action": {"POST": self._action},
            "/api/function": {"POST": self._function},
            "/api/query_ts": {"POST": self._query_ts},
            "/api/query_at_ts": {"POST": self._query_at_ts},
            "/api/query_batch": {"POST": self._query_batch},
            "/api/debug_event": {"POST": self._debug_event},
            "/api/admin_keys": {"GET": self._list_keys, "POST": self._create_key},
            "/api/admin_keys/revoke": {"POST": self._revoke_key},
            "/api/list_environment_variables": {"GET": self._list_environment},
            "/api/v1/list_environment_variables": {"GET": self._list_environment},
            "/api/update_environment_variables": {"POST": self._update_environment},
            "/api/v1/update_environment_variables": {"POST": self._update_environment},
            "/version": {"GET": _text(version)},
            "/instance_version": {"GET": _text(version)},
            "/instance_name": {"GET": _text(instance_name)},
            ECHO: {"POST": self._echo},
        }

    def serves(self, path: str) -> bool:
        """Whether this path is the API's, whatever it answers."""
        return path.startswith("/api/") or path in self._routes or path == "/api"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Cancelling it does not undo what the function committed."""
        call = Call(scope, receive, dict(scope["headers"]))
        if scope["method"] == "OPTIONS":
            await send_reply(send, Reply(b"", 200, _TEXT, preflight(call.headers)))
            return
        headers = allowed(call.headers.get(b"origin"))
        echo = scope["path"] == ECHO
        if echo and self._echoing >= ECHOES:
            error = HttpError(503, "TooManyEchoes", f"{ECHOES} others are measuring the network. Try again in a moment.")
            await send_reply(send, error.reply._replace(headers=headers))
            return
        self._echoing += echo
        try:
            with contextlib.suppress(ClientGone):
                await send_reply(send, await self._answer(call, None, headers))
        finally:
            self._echoing -= echo

    def direct(self, scope: Scope) -> Callable[[bytes], Coroutine[Any, Any, Reply]] | None:
        """What answers every request that has the head of this one, given its body; None: the application does, as ASGI has it.

        An action is the application's: it runs in a task from its first step on, for what reaches the outside world may ask for it.
        """
        handler = {"/api/query": self._query, "/api/mutation": self._mutation}.get(scope["path"])
        headers = dict(scope["headers"])
        if scope["method"] != "POST" or handler is None or b"convex-request-id" in headers:
            return None
        answer_headers = allowed(headers.get(b"origin"))

        def answer(body: bytes) -> Coroutine[Any, Any, Reply]:
            return self._answer(Call(scope, _nothing_more, headers, body), handler, answer_headers)

        return answer

    async def _answer(self, call: Call, handler: Handler | None, headers: tuple[tuple[bytes, bytes], ...]) -> Reply:
        """The answer to a request; ``handler`` makes it, if that is known.

        Raises:
            ClientGone: there is none.
        """
        try:
            if handler is None:
                handler = self._handler(call.scope["path"], call.scope["method"])
            reply = await handler(call)
        except HttpError as error:
            reply = error.reply
        except AuthenticationError as error:
            reply = HttpError(_AUTHENTICATION_STATUS.get(error.code, 401), error.code, error.message).reply
        except ClientGone:
            raise
        except Exception:
            request_id = self._request_id(call)
            logger.exception("Request %s to %s failed", request_id, call.scope["path"])
            text = f"[Request ID: {request_id}] The server failed. Its log says why."
            reply = HttpError(500, "InternalServerError", text).reply
        return Reply(reply.body, reply.status, reply.content_type, headers)

    def _handler(self, path: str, method: str) -> Handler:
        methods = self._routes.get(path)
        if methods is None:
            if path.startswith("/api/run/"):
                methods = {"POST": self._run}
            elif path.startswith("/api/deploy2/") or path in ("/api/get_config_hashes", "/api/run_test_function"):
                raise HttpError(
                    400,
                    "DeployNotSupported",
                    "This server runs Python. Its functions are those in app_functions/ where it was started: 'reactor dev' "
                    "takes them up as you save. 'convex dev', 'convex deploy' and 'convex codegen' have nothing to do here.",
                )
            else:
                raise HttpError(404, "NotFound", f"There is no {path[:200]}.")
        handler = methods.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise HttpError(405, "MethodNotAllowed", f"{path[:200]} takes {' or '.join(methods)}, not {method}.")
        return handler

    # --- calling functions

    async def _query(self, call: Call) -> Reply:
        caller = await self._caller(call)
        function = self._function_call(call, await self._json_body(call))
        return self._reply(function, await self._runner.query(function.path, function.args, caller))

    async def _get_query(self, call: Call) -> Reply:
        parameters = call.query()
        try:
            args = orjson.loads(parameters.get("args", "null"))
        except orjson.JSONDecodeError as error:
            raise HttpError(400, "BadJsonBody", f"The parameter 'args' is not JSON: {error}.") from None
        caller = await self._caller(call)
        function = self._function_call(call, {**parameters, "args": args})
        return self._reply(function, await self._runner.query(function.path, function.args, caller))

    async def _mutation(self, call: Call) -> Reply:
        caller = await self._caller(call)
        function = self._function_call(call, await self._json_body(call))
        return self._reply(function, await self._runner.mutation(function.path, function.args, caller))

    async def _action(self, call: Call) -> Reply:
        caller = await self._caller(call)
        function = self._function_call(call, await self._json_body(call))
        outcome = await self._runner.action(function.path, function.args, caller)
        # What a mutation or the store did to an action is the action's own failure: it may have had effects.
        return self._reply(function, outcome, own_failure=True)

    async def _function(self, call: Call) -> Reply:
        caller = await self._admin(call)
        body = await self._json_body(call)
        if body.get("componentPath"):
            raise HttpError(400, "BadComponentPath", f"There is no component {body['componentPath']!r}: leave 'componentPath' out.")
        function = self._function_call(call, body)
        return self._reply(function, await self._runner.any_kind(function.path, function.args, caller))

    async def _run(self, call: Call) -> Reply:
        segments = [unquote(segment) for segment in _raw_path(call.scope).lstrip("/").split("/")[2:]]
        if len(segments) < 2 or not all(segments):
            raise HttpError(400, "MissingIdentifier", "Write /api/run/<module>/<function>.")
        path = f"{'/'.join(segments[:-1])}:{segments[-1]}"
        if any("/" in segment for segment in segments):
            raise _bad_path(path)
        caller = await self._caller(call)
        body = await self._json_body(call)
        function = self._function_call(call, {"format": "json", **body, "path": path})
        return self._reply(function, await self._runner.any_kind(function.path, function.args, caller))

    # --- as of one ts

    async def _query_ts(self, call: Call) -> Reply:
        await call.body(self._limits.http_body_size_bytes)
        await self._caught_up()
        return Reply(orjson.dumps({"ts": encode_ts(self._runner.engine.head_ts)}))

    async def _query_at_ts(self, call: Call) -> Reply:
        caller = await self._caller(call)
        body = await self._json_body(call)
        ts = _decode_ts(body.get("ts"))
        function = self._function_call(call, body)
        return self._reply(function, await self._runner.query(function.path, function.args, caller, at=ts))

    async def _query_batch(self, call: Call) -> Reply:
        caller = await self._caller(call)
        queries = (await self._json_body(call)).get("queries")
        if not isinstance(queries, list):
            raise HttpError(400, "BadJsonBody", 'Write {"queries": [{"path": …, "args": {…}}, …]}.')
        if len(queries) > self._limits.http_batch_queries:
            raise HttpError(
                400, "TooManyQueries", f"{len(queries)} queries in one request, at most {self._limits.http_batch_queries} can be."
            )
        await self._caught_up()
        # Pinned, so that reading at its ts is reading today's snapshot until the last one.
        pin = self._runner.engine.pin()
        try:
            results: list[bytes] = []
            left_bytes = self._limits.result_size_bytes
            for query in queries:
                if not isinstance(query, dict):
                    raise HttpError(400, "BadJsonBody", f"queries[{len(results)}] is not an object.")
                function = self._function_call(call, query)
                outcome = await self._runner.query(function.path, function.args, caller, at=pin.ts)
                await asyncio.sleep(0)  # a query may have waited for nothing
                results.append(self._reply(function, outcome).body)
                left_bytes -= len(results[-1])
                if left_bytes < 0:
                    raise HttpError(
                        400,
                        "ResultsTooLarge",
                        f"The results of one request have at most {self._limits.result_size_bytes} bytes together. Ask for fewer.",
                    )
        finally:
            pin.release()
        return Reply(b'{"results":[%b]}' % b",".join(results))

    # --- admin keys

    async def _list_keys(self, call: Call) -> Reply:
        await self._admin(call)
        return Reply(orjson.dumps({"keys": await self._authenticator.keys.list()}))

    async def _create_key(self, call: Call) -> Reply:
        await self._admin(call)
        name = await self._name(call)
        try:
            return Reply(orjson.dumps({"key": await self._authenticator.keys.create(name)}))
        except ReactorError as error:
            raise _bad_key_name(error) from None

    async def _revoke_key(self, call: Call) -> Reply:
        await self._admin(call)
        name = await self._name(call)
        try:
            await self._authenticator.keys.revoke(name)
        except ReactorError as error:
            raise _bad_key_name(error) from None
        return Reply(b"{}")

    async def _name(self, call: Call) -> str:
        name = (await self._json_body(call)).get("name")
        if not isinstance(name, str):
            raise HttpError(400, "BadJsonBody", 'Write {"name": "…"}.')
        return name

    # --- environment variables

    async def _list_environment(self, call: Call) -> Reply:
        await self._admin(call)
        return Reply(orjson.dumps({"environmentVariables": variables(self._runner.engine)}))

    async def _update_environment(self, call: Call) -> Reply:
        await self._admin(call)
        changes = _changes(await self._json_body(call))
        runner = self._runner
        try:
            await change_variables(
                runner.engine, changes, check=runner.app.check_environment, built_in=runner.addresses, limits=runner.limits
            )
        except (CodeError, EnvironmentVariableError) as error:
            raise HttpError(400, error.code, error.message) from None
        return Reply(b"null")

    async def _caught_up(self) -> None:
        try:
            await self._runner.engine.catch_up()
        except StoreError as error:
            raise HttpError(503, error.code, "The database does not answer.") from error

    # --- about the server

    async def _debug_event(self, call: Call) -> Reply:
        logger.debug("Debug event of a client: %r", await self._json_body(call))
        return Reply(b"null")

    async def _echo(self, call: Call) -> Reply:
        body = await call.body(ECHO_SIZE_BYTES)
        return Reply(body, content_type=call.headers.get(b"content-type", b"application/octet-stream"))

    # --- reading requests

    async def _caller(self, call: Call) -> Caller:
        """Who calls.

        Raises:
            AuthenticationError: they show something that does not verify.
        """
        authorization = call.headers.get(b"authorization")
        admin_key = call.query().get("adminKey") if authorization is None and call.scope["query_string"] else None
        nobody = authorization is None and admin_key is None
        shown = ANONYMOUS if nobody else await self._authenticator.authorize(authorization, admin_key)
        return Caller(shown.identity, shown.admin, self._request_id(call), "http")

    async def _admin(self, call: Call) -> Caller:
        """Who calls, if it is an admin.

        Raises:
            AuthenticationError: it is not.
        """
        caller = await self._caller(call)
        if not caller.admin:
            raise AuthenticationError(
                f"{call.scope['path']} takes the admin key: 'Authorization: Convex <admin key>'.", code="BadDeployKey"
            )
        return caller

    def _request_id(self, call: Call) -> str:
        named = call.headers.get(b"convex-request-id")
        if named is not None and _REQUEST_ID.fullmatch(named):
            return named.decode()
        return self._runner.runtime.random_bytes(8).hex()

    async def _json_body(self, call: Call) -> dict[str, Any]:
        body = await call.body(self._limits.http_body_size_bytes)
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise HttpError(400, "BadJsonBody", f"The body is not JSON: {error}.") from None
        if not isinstance(parsed, dict):
            raise HttpError(400, "BadJsonBody", "The body is not a JSON object.")
        return parsed

    def _function_call(self, call: Call, body: Mapping[str, Any]) -> FunctionCall:
        """What ``body`` asks for.

        Raises:
            HttpError: it is not a call.
        """
        path = body.get("path")
        if not isinstance(path, str):
            raise HttpError(400, "BadJsonBody", "A call needs a 'path', such as \"messages:list\".")
        if "args" not in body:
            raise HttpError(400, "BadJsonBody", "A call needs 'args'; for a function without arguments write {}.")
        args = body["args"]
        if isinstance(args, list) and args:
            args = args[0]
        try:
            text = orjson.dumps(args)
        except orjson.JSONEncodeError:
            raise HttpError(400, "BadJsonBody", "'args' nest too deeply.") from None
        return FunctionCall(path, text, _is_clean(body.get("format"), call.headers.get(b"convex-client")))

    def _reply(self, function: FunctionCall, outcome: Outcome, *, own_failure: bool = False) -> Reply:
        """The answer with a function's outcome.

        Raises:
            HttpError: what failed was not the function.
        """
        error = outcome.error
        lines = b',"logLines":[%b]' % b",".join(map(wire.text, outcome.log_lines)) if outcome.log_lines else b""
        if error is None:
            value = codec.clean(outcome.value) if function.clean else outcome.value
            return Reply(b'{"status":"success","value":%b%b}' % (value, lines))
        if not own_failure:
            _raise_unless_functions(function, error.exception, error.message)
        data = b""
        if error.data is not None:
            data = b',"errorData":' + (codec.clean(error.data) if function.clean else error.data)
        return Reply(b'{"status":"error","errorMessage":%b%b%b}' % (wire.text(error.message), data, lines))


async def send_reply(send: Send, reply: Reply) -> None:
    """Send a whole answer."""
    headers: Headers = [
        (b"content-type", reply.content_type),
        (b"content-length", b"%d" % len(reply.body)),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    body, at = reply.body, 0
    while len(body) - at > PIECE_BYTES:
        await send({"type": "http.response.body", "body": body[at : at + PIECE_BYTES], "more_body": True})
        at += PIECE_BYTES
    await send({"type": "http.response.body", "body": body[at:]})


async def _nothing_more() -> MutableMapping[str, Any]:
    return {"type": "http.disconnect"}


def _raise_unless_functions(function: FunctionCall, exception: Exception, message: str) -> None:
    """Raise an HttpError if a call failed for something else than its function."""
    if isinstance(exception, WriteConflict | StoreUnavailable | SchemaOutdated):
        raise HttpError(503, exception.code, message)
    if isinstance(exception, ReactorError) and exception.code in _REQUEST_FAULTS:
        raise HttpError(400, exception.code, exception.message)
    if isinstance(exception, StoreError):
        raise HttpError(500, "InternalServerError", message)
    if isinstance(exception, FunctionNotFound) and exception.code == "BadConvexFunctionIdentifier":
        try:
            canonical_path(function.path)
        except FunctionNotFound:
            raise _bad_path(function.path) from None


def _bad_key_name(error: ReactorError) -> Exception:
    return HttpError(400, error.code, error.message) if error.code == "BadAdminKeyName" else error


def _bad_path(path: str) -> HttpError:
    return HttpError(400, "BadConvexFunctionIdentifier", f"{path[:200]!r} is no function path. Write folder/module:function.")


def _too_large(limit_bytes: int) -> HttpError:
    return HttpError(413, "RequestTooLarge", f"The body is larger than {limit_bytes} bytes.")


def _text(text: str) -> Handler:
    reply = Reply(text.encode(), content_type=_TEXT)

    async def answer(call: Call) -> Reply:
        return reply

    return answer


def _raw_path(scope: Scope) -> str:
    """The path as the client wrote it, an escaped slash told from a slash."""
    raw: bytes | None = scope.get("raw_path")
    return scope["path"] if raw is None else raw.partition(b"?")[0].decode("latin-1")


def _changes(body: Mapping[str, Any]) -> dict[str, str | None]:
    """New values of environment variables by name, None for those to be removed."""
    changes = body.get("changes")
    if not isinstance(changes, list) or not all(
        isinstance(change, dict) and isinstance(change.get("name"), str) and isinstance(change.get("value", 0), str | None)
        for change in changes
    ):
        raise HttpError(400, "BadJsonBody", 'Write {"changes": [{"name": "A", "value": "1"}, {"name": "B", "value": null}]}.')
    return {change["name"]: change["value"] for change in changes}


def _decode_ts(text: object) -> Ts:
    try:
        return Ts(decode_ts(text))
    except ProtocolError as error:
        raise HttpError(400, "BadTimestamp", f"'ts': {error} Take it as /api/query_ts gave it.") from None


def _is_clean(format: object, client: bytes | None) -> bool:
    """Whether the answer is written without the wire's encoding."""
    if format is None:
        return not _expects_encoded(client)
    clean = _CLEAN.get(format) if isinstance(format, str) else None
    if clean is None:
        raise HttpError(400, "BadFormat", f'There is no format {str(format)[:50]!r}. Write "json" or "convex_encoded_json".')
    return clean


def _expects_encoded(header: bytes | None) -> bool:
    try:
        client = client_version(None, None if header is None else header.decode("latin-1"))
    except ProtocolError as error:
        raise HttpError(400, error.code, error.message) from None
    return client is not None and client.version < _SAYS_FORMAT_FROM.get(client.name, (0, 0, 0))


def allowed(origin: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that let a page of ``origin`` read an answer."""
    if origin is None:
        return (_VARY,)
    return ((b"access-control-allow-origin", origin), _CREDENTIALS, _VARY)


def preflight(headers: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that answer a browser's question what a page may send."""
    return (
        *allowed(headers.get(b"origin", b"*")),
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", headers.get(b"access-control-request-headers", b"")),
        (b"access-control-max-age", b"86400"),
    )
