"""Who may call over HTTP, from where, and what is answered to a request that is no call."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from reactor.server.http_api import ECHOES
from reactor.testing import TestBackend
from tests.server.support import ADMIN_KEY, call, post
from tests.support.waiting import eventually_async

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("requests that are answered before a store is asked")]

ADMIN = f"Convex {ADMIN_KEY}"


async def who(t: TestBackend, authorization: str) -> Any:
    return (await call(t, "query", "values:who", {}, authorization=authorization))["value"]


@pytest.mark.parametrize("authorization", [ADMIN, f"convex   {ADMIN_KEY} ", f"CONVEX prod:{ADMIN_KEY}"])
async def test_the_admin_key_is_nobody_in_particular(t: TestBackend, authorization: str) -> None:
    assert await who(t, authorization) is None


async def test_the_admin_key_acts_as_a_user(t: TestBackend) -> None:
    attributes = base64.b64encode(orjson.dumps({"issuer": "https://id", "subject": "ann"})).decode()
    assert await who(t, f"{ADMIN}:{attributes}") == "https://id|ann"


async def test_the_admin_key_may_stand_in_the_address_where_there_is_no_header(t: TestBackend) -> None:
    body = {"path": "notes:hidden", "args": {"list": "a"}}
    assert (await post(t, f"/api/function?adminKey={ADMIN_KEY}", body)).status_code == 200
    assert (await post(t, "/api/function?adminKey=wrong", body)).status_code == 403
    assert (await post(t, f"/api/query?adminKey={ADMIN_KEY}", body, authorization="Bearer x")).status_code == 401


@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        ("Bearer a.b.c", 401, "NoAuthProvider"),
        ("Bearer", 401, "InvalidAuthHeader"),
        ("Basic dTpw", 401, "InvalidAuthHeader"),
        ("", 401, "InvalidAuthHeader"),
        ("Convex", 401, "InvalidAuthHeader"),
        ("Convex test|wrong", 403, "BadDeployKey"),
        ("Convex 4711", 403, "BadDeployKey"),
        (f"{ADMIN}:%%%", 401, "InvalidAuthHeader"),
        (f"{ADMIN}:e30=", 401, "InvalidAuthHeader"),
        (f"{ADMIN}:W10=", 401, "InvalidAuthHeader"),
    ],
)
async def test_what_does_not_verify_is_refused(t: TestBackend, authorization: str, status: int, code: str) -> None:
    answer = await post(t, "/api/query", {"path": "values:who", "args": {}}, authorization=authorization)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "BadJsonBody"),
        (b"{", "BadJsonBody"),
        (b"\xff", "BadJsonBody"),
        (b"[]", "BadJsonBody"),
        (b'{"args":{}}', "BadJsonBody"),
        (b'{"path":5,"args":{}}', "BadJsonBody"),
        (b'{"path":"notes:texts"}', "BadJsonBody"),
        (b'{"path":"values:echo","args":{"value":"\\ud800"}}', "BadJsonBody"),
        (b'{"path":"values:echo","args":{"value":NaN}}', "BadJsonBody"),
        (b'{"path":"values:echo","args":{"value":1e999}}', "BadJsonBody"),
        (b'{"path":"values:echo","args":{"value":' + b"[" * 500 + b"]" * 500 + b"}}", "BadJsonBody"),
        (b'{"path":"values:echo","args":{"value":' + b"[" * 5000 + b"]" * 5000 + b"}}", "BadJsonBody"),
        (b'{"path":"../x:y","args":{}}', "BadConvexFunctionIdentifier"),
        (b'{"path":"notes:te xts","args":{}}', "BadConvexFunctionIdentifier"),
        (b'{"path":"values:who","args":{},"format":"xml"}', "BadFormat"),
        (b'{"path":"values:who","args":{},"format":[]}', "BadFormat"),
    ],
)
async def test_what_is_no_call_is_refused_with_a_code(t: TestBackend, body: bytes, code: str) -> None:
    answer = await post(t, "/api/query", body)
    assert answer.status_code == 400
    assert answer.json()["code"] == code and answer.json()["message"]


async def test_a_malformed_client_version_is_refused(t: TestBackend) -> None:
    answer = await post(t, "/api/query", {"path": "values:who", "args": {}}, convex_client="npm")
    assert (answer.status_code, answer.json()["code"]) == (400, "InvalidClientVersion")


async def test_a_body_over_the_limit_is_refused_announced_or_not(t: TestBackend) -> None:
    limit = t._runner.limits.http_body_size_bytes
    announced = await post(t, "/api/query", b"x" * (limit + 1))
    assert (announced.status_code, announced.json()["code"]) == (413, "RequestTooLarge")
    lying = await post(t, "/api/query", b"x" * (limit + 1), content_length="10")
    assert lying.status_code == 413
    assert (await post(t, "/api/query", b"x" * limit)).json()["code"] == "BadJsonBody"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/nothing", 404, "NotFound"),
        ("POST", "/api", 404, "NotFound"),
        ("GET", "/api/mutation", 405, "MethodNotAllowed"),
        ("PUT", "/api/query", 405, "MethodNotAllowed"),
        ("DELETE", "/version", 405, "MethodNotAllowed"),
        ("POST", "/api/deploy2/start_push", 400, "DeployNotSupported"),
    ],
)
async def test_what_is_not_there_says_so(t: TestBackend, method: str, path: str, status: int, code: str) -> None:
    answer = await t.fetch(path, method=method)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_any_origin_may_read_the_answer_an_error_too(t: TestBackend) -> None:
    for path in ("/api/query", "/api/nothing", "/version"):
        answer = await t.fetch(path, headers={"origin": "https://a.example"})
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-origin" not in (await t.fetch("/version")).headers


@pytest.mark.parametrize("path", ["/api/query", "/api/run/a/b", "/version", "/api/nothing"])
async def test_a_preflight_allows_what_it_asks_for(t: TestBackend, path: str) -> None:
    asked = {"origin": "https://a.example", "access-control-request-method": "POST", "access-control-request-headers": "convex-client,x-y"}
    answer = await t.fetch(path, method="OPTIONS", headers=asked)
    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in answer.headers if name.startswith("access-control") or name == "vary"} == {
        "access-control-allow-origin": "https://a.example",
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
        "access-control-allow-headers": "convex-client,x-y",
        "access-control-max-age": "86400",
        "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }


async def test_tools_learn_version_and_name_and_get_their_bytes_back(t: TestBackend) -> None:
    version = await t.fetch("/version")
    assert version.headers["content-type"].startswith("text/plain") and version.text == (await t.fetch("/instance_version")).text
    assert (await t.fetch("/instance_name")).text == "test"
    assert "running" in (await t.fetch("/")).text
    assert (await t.fetch("/nowhere")).status_code == 404
    echoed = await t.fetch("/echo", method="POST", content=b"\x00\xff", headers={"content-type": "x/y"})
    assert (echoed.content, echoed.headers["content-type"]) == (b"\x00\xff", "x/y")
    assert (await post(t, "/api/debug_event", {"event": 1})).status_code == 200


async def test_few_may_measure_the_network_at_a_time(t: TestBackend) -> None:
    go_on = asyncio.Event()
    begun = 0

    async def slowly() -> AsyncIterator[bytes]:
        nonlocal begun
        yield b"a"
        begun += 1
        await go_on.wait()

    echoes = [asyncio.ensure_future(t.fetch("/echo", method="POST", content=slowly())) for _ in range(ECHOES)]
    await eventually_async(lambda: begun == ECHOES, "all to have begun")
    refused = await t.fetch("/echo", method="POST", content=b"b")
    assert (refused.status_code, refused.json()["code"]) == (503, "TooManyEchoes")
    go_on.set()
    assert [(await echo).content for echo in echoes] == [b"a"] * ECHOES
    assert (await t.fetch("/echo", method="POST", content=b"b")).content == b"b"


async def test_a_caller_that_goes_before_its_request_is_complete_is_not_answered(t: TestBackend) -> None:
    sent: list[Any] = []
    events = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(events)

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {"type": "http", "method": "POST", "path": "/api/query", "raw_path": b"/api/query", "query_string": b"", "headers": []}
    await t._server(scope, receive, send)
    assert sent == []
