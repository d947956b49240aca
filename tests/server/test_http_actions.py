"""Routes of ``app_functions/http.py``: which serves a request, what its handler gets, and what is answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reactor.functions.outcome import RunRecord
from reactor.functions.providers import OIDC
from reactor.limits import DEFAULT_LIMITS
from reactor.services.auth.fetching import UNREACHABLE
from reactor.testing import TestBackend
from tests.support.issuer import Issuer
from tests.support.waiting import eventually_async

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("requests and answers, whatever the store")]

APP = Path(__file__).parent / "http_app"
SMALL = replace(DEFAULT_LIMITS, http_action_body_bytes=1000, action_time_s=0.2, http_actions_running=2)


@pytest.fixture
async def t(anyio_backend: str) -> AsyncIterator[TestBackend]:
    async with TestBackend(APP) as backend:
        yield backend


@pytest.fixture
async def small(anyio_backend: str) -> AsyncIterator[TestBackend]:
    async with TestBackend(APP, limits=SMALL) as backend:
        yield backend


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


async def text(t: TestBackend, path: str, **options: Any) -> str:
    answer = await t.fetch(path, **options)
    assert answer.status_code == 200, answer.text
    return answer.text


# --- which route


async def test_a_handler_runs_functions_and_its_response_is_the_answer(t: TestBackend) -> None:
    answer = await t.fetch("/lines", method="POST", content="hello")
    assert (answer.status_code, answer.json(), answer.headers["x-made-by"]) == (201, {"count": 1}, "reactor")
    assert await text(t, "/lines") == "hello"


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/docs/", "docs "),
        ("/docs/a/b?q=1", "docs a/b"),
        ("/docs/deep/x", "deep x"),
        ("/docs/deep/exact", "exact"),
        ("/docs/deep/exact/", "deep exact/"),
        ("/docs/a%20b", "docs a b"),
    ],
)
async def test_an_exact_path_counts_before_the_longest_prefix(t: TestBackend, path: str, served: str) -> None:
    assert await text(t, path) == served


async def test_a_prefix_of_another_method_does_not_stand_in_the_way(t: TestBackend) -> None:
    assert await text(t, "/docs/deep/exact", method="POST") == "posted"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/docs"), ("GET", "/lines/"), ("PUT", "/lines"), ("GET", "/LINES"), ("OPTIONS", "/lines"), ("TRACE", "/raw")],
)
async def test_what_no_route_has_is_a_404_that_names_it(t: TestBackend, method: str, path: str) -> None:
    answer = await t.fetch(f"/http{path}", method=method)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert answer.text == f"No matching routes found: {method} {path}\n"


async def test_the_mount_has_every_route_those_whose_paths_are_the_apis_too(t: TestBackend) -> None:
    assert await text(t, "/http/docs/a") == "docs a"
    assert await text(t, "/http/api/hook") == "mine"
    assert (await t.fetch("/api/hook")).json()["code"] == "NotFound"
    assert (await t.fetch("/http")).status_code == (await t.fetch("/http/")).status_code == 404


async def test_without_routes_the_mount_says_so_and_other_paths_are_as_they_were(t: TestBackend) -> None:
    t._runner.app = replace(t._runner.app, http=None)
    answer = await t.fetch("/http/x")
    assert (answer.status_code, answer.text) == (404, "This Convex deployment does not have HTTP actions enabled.\n")
    assert (await t.fetch("/lines")).text == "Not Found\n"
    assert "running" in (await t.fetch("/")).text


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_each_method_gets_the_raw_body(t: TestBackend, method: str) -> None:
    body = b'{"a": 1,\r\n  "b": "\xc3\xa9\x00\xff"}'
    answer = await t.fetch("/raw", method=method, content=body)
    assert (answer.status_code, answer.content, answer.headers["x-method"]) == (200, body, method)


@pytest.mark.parametrize("path", ["/lines", "/stream", "/endless", "/fails/http"])
async def test_head_is_the_get_handlers_answer_without_its_body(t: TestBackend, path: str) -> None:
    runs: list[RunRecord] = []
    t._runner._on_run = runs.append
    answer = await t.fetch(path, method="HEAD")
    assert (answer.status_code, answer.content) == (418 if path == "/fails/http" else 200, b"")
    assert [run.ok for run in runs if run.origin == "http action"] == [True]


@pytest.mark.parametrize(("path", "status"), [("/fails/value", 500), ("/required", 401)])
async def test_head_of_what_fails_is_answered_too(t: TestBackend, path: str, status: int) -> None:
    answer = await t.fetch(path, method="HEAD")
    assert (answer.status_code, answer.content) == (status, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_head_of_a_busy_server_is_answered_too(small: TestBackend) -> None:
    small._server.http_actions._running = SMALL.http_actions_running
    answer = await small.fetch("/who", method="HEAD")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


# --- what the handler gets


async def test_a_token_that_verifies_is_the_identity(t: TestBackend) -> None:
    assert await text(t.with_identity(subject="ann"), "/who") == "ann"
    assert await text(t, "/who") == "nobody"


@pytest.mark.parametrize("authorization", ["Bearer nonsense", "Bearer", "Basic dTpw", "sk_live_1", "Convex test|wrong", "\xff"])
async def test_a_credential_that_does_not_verify_is_the_handlers_to_judge(t: TestBackend, authorization: str) -> None:
    assert await text(t, "/who", headers={"authorization": authorization.encode("latin-1")}) == "nobody"


async def test_a_handler_that_requires_an_identity_answers_401(t: TestBackend) -> None:
    answer = await t.fetch("/required")
    assert (answer.status_code, answer.json()["code"]) == (401, "Unauthenticated")
    assert await text(t.with_identity(subject="ann"), "/required") == "ann"


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ({}, "http://test.invalid/url?a=1"),
        ({"host": "app.example"}, "http://app.example/url?a=1"),
        ({"host": "app.example", "x-forwarded-proto": "https, http"}, "https://app.example/url?a=1"),
        ({"host": "app.example", "forwarded": 'for=1.2.3.4; Proto="https", proto=http'}, "https://app.example/url?a=1"),
        ({"host": "app.example", "x-forwarded-proto": "javascript"}, "http://app.example/url?a=1"),
    ],
)
async def test_the_url_is_the_one_that_the_client_used(t: TestBackend, headers: dict[str, str], url: str) -> None:
    assert await text(t, "/url?a=1", headers=headers) == url


# --- what is answered


async def test_an_answer_that_is_streamed_goes_on_calling_functions(t: TestBackend) -> None:
    assert await text(t, "/stream") == "one\ntwo\n"
    assert await text(t, "/lines") == "one\ntwo"


async def test_a_failure_in_development_says_what_and_where(t: TestBackend) -> None:
    answer = await t.fetch("/fails/value")
    failure = answer.json()
    assert answer.status_code == 500 and answer.headers["content-type"] == "application/json"
    assert failure["code"].startswith("[Request ID: ") and failure["code"].endswith("Uncaught ValueError: a secret of the app")
    assert "app_functions/http.py" in failure["trace"]


async def test_a_failure_in_production_names_the_request_and_nothing_else(t: TestBackend) -> None:
    t._runner.production = True
    failure = (await t.fetch("/fails/value")).json()
    assert list(failure) == ["code"] and failure["code"].endswith("] Server Error")


async def test_the_data_of_an_app_error_arrives_in_production_too(t: TestBackend) -> None:
    t._runner.production = True
    answer = await t.fetch("/fails/app")
    assert answer.status_code == 500 and answer.json()["data"] == {"code": "Empty"}


async def test_an_http_exception_is_the_answer_that_it_says(t: TestBackend) -> None:
    answer = await t.fetch("/fails/http")
    assert (answer.status_code, answer.text, answer.headers["x-pot"]) == (418, "short and stout", "tea")


async def test_what_is_no_response_is_refused_by_name(t: TestBackend) -> None:
    answer = await t.fetch("/fails/returned")
    assert answer.status_code == 500 and "GET /fails/returned: the handler returned a dict" in answer.json()["code"]


async def test_a_failure_after_the_answer_began_ends_it_there(t: TestBackend) -> None:
    with pytest.raises(ValueError, match="too late"):
        await t.fetch("/fails/late")


async def test_each_request_is_one_run_in_the_log(t: TestBackend) -> None:
    runs: list[Any] = []
    t._runner._on_run = runs.append
    await t.fetch("/lines", method="POST", content="x")
    await t.fetch("/docs/a")
    await t.fetch("/fails/value")
    told = [(run.kind, run.path, run.origin, run.ok) for run in runs if run.origin == "http action"]
    assert told == [
        ("action", "POST /lines", "http action", True),
        ("action", "GET /docs/*", "http action", True),
        ("action", "GET /fails/value", "http action", False),
    ]


async def test_a_provider_that_is_away_makes_nobody_of_no_caller(t: TestBackend, issuer: Issuer) -> None:
    t._runner.app = replace(t._runner.app, providers=(OIDC(issuer.url, "app"),))
    issuer.down = True
    for path in ("/who", "/required"):
        answer = await t.fetch(path, headers={"authorization": f"Bearer {issuer.token()}"})
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, UNREACHABLE, "1")
    assert await text(t, "/who", headers={"authorization": "Bearer one-of-the-apps-own"}) == "nobody"


# --- limits


async def test_a_body_over_the_limit_is_refused_announced_or_not(small: TestBackend) -> None:
    for path, headers in (("/raw", {}), ("/raw", {"content-length": "10"}), ("/lines", {"content-length": "10"})):
        answer = await small.fetch(path, method="POST", content=b"x" * 1001, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "RequestTooLarge")
    assert (await small.fetch("/raw", method="POST", content=b"x" * 1000)).status_code == 200
    assert await text(small, "/lines") == ""


async def test_an_answer_over_the_limit_is_an_error(small: TestBackend) -> None:
    assert len(await text(small, "/large?bytes=1000")) == 1000
    answer = await small.fetch("/large?bytes=1001")
    assert answer.status_code == 500 and "The response of an HTTP action has at most 1000 bytes" in answer.json()["code"]
    with pytest.raises(Exception, match="at most 1000 bytes"):
        await small.fetch("/endless")


async def test_a_handler_that_does_not_end_is_ended(small: TestBackend) -> None:
    answer = await small.fetch("/slow")
    assert answer.status_code == 504 and "timed out" in answer.json()["code"]


async def test_more_at_one_time_than_the_limit_are_told_to_come_back(small: TestBackend) -> None:
    small._server.http_actions._running = 2
    answer = await small.fetch("/who")
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["code"]) == (503, "1", "TooManyHttpActions")
    small._server.http_actions._running = 0
    assert await text(small, "/who") == "nobody"


async def test_requests_that_wait_for_the_keys_of_their_tokens_count_as_running(small: TestBackend, issuer: Issuer) -> None:
    small._runner.app = replace(small._runner.app, providers=(OIDC(issuer.url, "app"),))
    actions, shown = small._server.http_actions, {"authorization": f"Bearer {issuer.token()}"}
    issuer.open.clear()
    waiting = [asyncio.create_task(text(small, "/who", headers=shown)) for _ in range(2)]
    await eventually_async(lambda: actions._running == 2 and bool(issuer.asked), "both to wait")
    assert (await small.fetch("/who", headers=shown)).json()["code"] == "TooManyHttpActions"
    issuer.open.set()
    assert await asyncio.gather(*waiting) == ["ann", "ann"]


async def test_a_call_that_made_the_node_hang_is_refused(t: TestBackend) -> None:
    t._runner.refuses = lambda path, args: (path, args) == ("GET /docs/*", b"/docs/a?b")
    assert (await t.fetch("/docs/a?b")).status_code == 503
    assert await text(t, "/docs/b") == "docs b"


# --- pages of other origins


ORIGIN = {"origin": "https://app.example"}


async def test_a_page_of_an_allowed_origin_reads_the_answer_of_a_failure_too(t: TestBackend) -> None:
    for method, status in (("GET", 200), ("POST", 500)):
        answer = await t.fetch("/cors", method=method, headers=ORIGIN)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert answer.headers["access-control-expose-headers"] == "x-made-by"
    assert "access-control-allow-origin" not in (await t.fetch("/cors", headers={"origin": "https://evil.example"})).headers


async def test_a_preflight_is_answered_for_the_method_it_asks_for(t: TestBackend) -> None:
    asked = {**ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "x-token"}
    answer = await t.fetch("/cors", method="OPTIONS", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert "x-token" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-max-age"] == "86400"


@pytest.mark.parametrize(
    ("path", "asked", "status"),
    [
        ("/cors", {"origin": "https://evil.example"}, 400),
        ("/cors", {"access-control-request-headers": "x-other"}, 400),
        ("/cors", {"access-control-request-method": "DELETE"}, 404),
        ("/cors", {"access-control-request-method": "HEAD"}, 200),
        ("/lines", {}, 404),
    ],
)
async def test_no_other_preflight_is(t: TestBackend, path: str, asked: dict[str, str], status: int) -> None:
    headers = {**ORIGIN, "access-control-request-method": "POST", **asked}
    assert (await t.fetch(path, method="OPTIONS", headers=headers)).status_code == status


@pytest.mark.parametrize("path", ["/cors", "/cors-options"])
async def test_no_handler_runs_for_the_preflight_of_another_method(t: TestBackend, path: str) -> None:
    runs: list[RunRecord] = []
    t._runner._on_run = runs.append
    asked = {"access-control-request-method": "POST"}
    assert (await t.fetch(path, method="OPTIONS", headers={**ORIGIN, **asked})).status_code == 200
    assert not runs
    # What says no origin is no browser's, and no preflight.
    assert (await t.fetch(path, method="OPTIONS", headers=asked)).status_code == (404 if path == "/cors" else 200)
    assert [run.path for run in runs] == ([] if path == "/cors" else ["OPTIONS /cors-options"])


async def test_routes_have_no_cors_unless_declared(t: TestBackend) -> None:
    assert not [name for name in (await t.fetch("/lines", headers=ORIGIN)).headers if name.startswith("access-control")]
