"""Functions called over HTTP, and what tools ask a server."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from reactor.limits import DEFAULT_LIMITS
from reactor.testing import TestBackend
from tests.server.support import ADMIN_KEY, APP, SmallBackend, call, post, socket

pytestmark = pytest.mark.anyio

ADMIN = f"Convex {ADMIN_KEY}"


async def test_functions_of_each_kind_are_called_at_their_route(t: TestBackend) -> None:
    note = (await call(t, "mutation", "notes:add", {"list": "a", "text": "x"}))["value"]
    assert await call(t, "action", "notes:add_all", {"list": "a", "texts": ["y"]}) == {"status": "success", "value": 1.0}
    assert await call(t, "query", "notes:texts", {"list": "a"}) == {"status": "success", "value": ["x", "y"]}
    assert (await call(t, "query", "notes:one", {"note": note}))["value"] == "x"


@pytest.mark.parametrize("args", [{"list": "a"}, [{"list": "a"}], [{"list": "a"}, "more"]])
@pytest.mark.parametrize("path", ["notes:texts", "notes.js:texts"])
async def test_arguments_come_as_an_object_or_a_list_of_one(t: TestBackend, args: Any, path: str) -> None:
    assert (await call(t, "query", path, args))["value"] == []


async def test_answers_bring_what_was_printed_and_leave_it_out_when_there_is_nothing() -> None:
    async with SmallBackend(APP) as t:
        answer = await call(t, "mutation", "notes:add", {"list": "a", "text": "x"})
        assert answer["logLines"] == ["[LOG] 'adding x'"]
        assert "logLines" not in await call(t, "query", "notes:texts", {"list": "a"})
        broken = await call(t, "query", "values:speaks", {"text": "bell \u0007 é 😀"})
        assert broken["logLines"] == ["[LOG] 'bell \u0007 é 😀'"]


async def test_a_query_can_be_asked_for_with_get(t: TestBackend) -> None:
    await t.mutation("notes:add", list="ä b", text="x")
    answer = await t.fetch("/api/query?path=notes:texts&args=%7B%22list%22%3A%22%C3%A4%20b%22%7D&format=json")
    assert answer.json() == {"status": "success", "value": ["x"]}


INT64, NAN, BYTES = {"$integer": "BQAAAAAAAAA="}, {"$float": "AAAAAAAA+H8="}, {"$bytes": "AQL/"}


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("convex_encoded_json", {"int": INT64, "nan": NAN, "bytes": BYTES, "zero": {"$float": "AAAAAAAAAIA="}}),
        ("convex_json", {"int": INT64, "nan": NAN, "bytes": BYTES, "zero": {"$float": "AAAAAAAAAIA="}}),
        ("json", {"int": "5", "nan": "NaN", "bytes": "AQL/", "zero": -0.0}),
        ("convex_clean_json", {"int": "5", "nan": "NaN", "bytes": "AQL/", "zero": -0.0}),
        (None, {"int": "5", "nan": "NaN", "bytes": "AQL/", "zero": -0.0}),
    ],
)
async def test_the_answer_is_in_the_format_asked_for(t: TestBackend, format: str | None, expected: dict[str, Any]) -> None:
    value = {"int": INT64, "nan": NAN, "bytes": BYTES, "zero": {"$float": "AAAAAAAAAIA="}}
    body = {"path": "values:echo", "args": {"value": value}} | ({} if format is None else {"format": format})
    assert (await post(t, "/api/query", body)).json()["value"] == expected
    failed = (await post(t, "/api/query", body | {"path": "failing:asks", "args": {"data": value}})).json()
    assert failed["errorData"] == expected


@pytest.mark.parametrize(
    ("client", "encoded"),
    [
        ("npm-1.4.0", True),
        ("npm-1.4.1", False),
        ("npm-cli-1.3.0", True),
        ("python-0.4.9", True),
        ("python-0.5.0", False),
        ("rust-0.0.1", False),
    ],
)
async def test_clients_from_before_there_was_a_format_get_the_wires(t: TestBackend, client: str, encoded: bool) -> None:
    answer = await post(t, "/api/query", {"path": "values:echo", "args": {"value": INT64}}, convex_client=client)
    assert answer.json()["value"] == (INT64 if encoded else "5")


@pytest.mark.parametrize("sent", ["4", "4.0", "9007199254740993", "123456789012345678901234567890", "-0", "1e22", "5e-324"])
async def test_every_number_is_a_float_and_written_as_one(t: TestBackend, sent: str) -> None:
    answer = await post(t, "/api/query", b'{"path":"values:echo","args":{"value":%s},"format":"convex_encoded_json"}' % sent.encode())
    text = answer.text.removeprefix('{"status":"success","value":').removesuffix("}")
    assert float(text) == float(sent)
    assert "." in text or "e" in text


@pytest.mark.parametrize(("sent", "gives"), [("/////////38=", None), ("/v///////38=", "/////////38="), ("AAAAAAAAAIA=", "AQAAAAAAAIA=")])
async def test_integers_of_64_bits_are_exact_to_the_last_one(t: TestBackend, sent: str, gives: str | None) -> None:
    answer = await call(t, "query", "values:whole", {"n": {"$integer": sent}})
    if gives is None:
        assert "does not fit in an Int64" in answer["errorMessage"]
    else:
        assert answer["value"] == {"$integer": gives}


async def test_a_failed_function_is_a_status_of_200(t: TestBackend) -> None:
    refused = await call(t, "mutation", "failing:refuses", {"data": {"code": 7}}, convex_request_id="0123456789abcdef")
    assert refused["status"] == "error" and refused["errorData"] == {"code": 7.0}
    assert refused["errorMessage"].startswith("[Request ID: 0123456789abcdef] Server Error")
    crashed = await call(t, "mutation", "failing:crashes", {})
    assert "the secret is 4711" in crashed["errorMessage"] and "errorData" not in crashed
    assert await t.query("notes:texts", list="refused") == []


async def test_in_production_an_error_tells_its_request_id_and_nothing_else(t: TestBackend) -> None:
    t._runner.production = True
    crashed = await call(t, "mutation", "failing:crashes", {}, convex_request_id="0123456789abcdef")
    assert crashed == {"status": "error", "errorMessage": "[Request ID: 0123456789abcdef] Server Error"}
    assert (await call(t, "query", "failing:asks", {"data": "shown"}))["errorData"] == "shown"
    assert "4711" in (await call(t, "mutation", "failing:crashes", {}, authorization=ADMIN))["errorMessage"]


@pytest.mark.parametrize(
    ("kind", "path", "args", "says"),
    [
        ("query", "notes:nothing", {}, "Could not find public function for 'notes:nothing'"),
        ("mutation", "notes:hidden", {"list": "a"}, "Could not find public function for 'notes:hidden'"),
        ("query", "notes:add", {"list": "a", "text": "b"}, "Tried to execute notes:add as a query, but it is defined as a mutation"),
        ("query", "notes:texts", {}, "list"),
        ("query", "notes:texts", {"list": 5}, "list"),
        ("query", "notes:texts", {"list": "a", "more": 1}, "more"),
        ("query", "notes:texts", "text", "object"),
        ("query", "notes:texts", None, "object"),
        ("query", "notes:texts", [], "object"),
        ("query", "notes:one", {"note": "nonsense"}, "nonsense"),
        ("query", "notes:one", {"note": "fw0020g30g2gc1r81450p30d1r7ze5r"}, "'notes'"),
        ("query", "values:whole", {"n": 5}, "Int64"),
        ("query", "values:echo", {"value": {"$integer": "AA=="}}, "$integer"),
        ("query", "values:echo", {"value": {"$set": []}}, "$set"),
        ("query", "values:echo", {"value": {"$float": "AAAAAAAA8D8="}}, "$float"),
        ("query", "values:echo", {"value": [None] * 8193}, "8193 elements"),
        ("query", "values:echo", {"value": json.loads("[" * 65 + "]" * 65)}, "nested too deeply"),
    ],
)
async def test_what_is_wrong_with_a_call_is_its_error_with_status_200(t: TestBackend, kind: str, path: str, args: Any, says: str) -> None:
    answer = await call(t, kind, path, args)
    assert answer["status"] == "error" and says in answer["errorMessage"]


@pytest.mark.parametrize("how", ["raise", "refuse", "return", "print"])
async def test_half_a_surrogate_pair_is_the_functions_failure_or_shown_escaped(how: str) -> None:
    async with SmallBackend(APP) as t, socket(t) as client:
        args: dict[str, Any] = {"code": 0xD800, "how": how}
        answer = await call(t, "query", "failing:says", args)
        assert answer["status"] == ("success" if how == "print" else "error")
        query = client.subscribe("failing:says", **args)
        await client.reflected()
        assert client.results[query]["type"] == ("QueryUpdated" if how == "print" else "QueryFailed")
        assert client.results[query]["logLines"] == answer.get("logLines", [])


async def test_a_mutation_that_prints_half_a_surrogate_pair_commits_and_is_remembered() -> None:
    async with SmallBackend(APP) as t:
        args: dict[str, Any] = {"code": 0xD800, "list": "a"}
        assert (await call(t, "mutation", "failing:writes_and_says", args))["value"] == "written"
        async with socket(t) as client:
            answer = await client.response(client.mutate("failing:writes_and_says", **args))
            assert answer["result"] == "written"
            client.responses.clear()
            assert await client.response(client.mutate("failing:writes_and_says", request=0, **args)) == answer
        assert await t.query("notes:texts", list="a") == ["written"] * 2


async def test_arguments_over_their_limit_are_the_calls_error(t: TestBackend) -> None:
    limit = t._runner.limits.arguments_size_bytes
    body = b'{"path":"values:echo","args":{"value":"%s"}}' % (b"x" * (limit - 10))
    assert "ArgumentError" in (await post(t, "/api/query", body)).json()["errorMessage"]


# --- /api/function and /api/run


async def test_any_function_runs_with_the_admin_key_an_internal_one_too(t: TestBackend) -> None:
    assert (await call(t, "function", "notes:hidden", {"list": "a"}, authorization=ADMIN))["value"] == "hidden"
    assert (await call(t, "function", "notes:texts", {"list": "a"}, authorization=ADMIN))["value"] == ["hidden"]
    assert (await call(t, "function", "notes:add_all", {"list": "a", "texts": []}, authorization=ADMIN))["value"] == 0.0
    answer = await call(t, "function", "nowhere", {}, authorization=ADMIN)
    assert "Could not find function for 'nowhere'" in answer["errorMessage"]


@pytest.mark.parametrize("headers", [{}, {"authorization": "Convex test|wrong"}])
async def test_any_function_needs_the_admin_key(t: TestBackend, headers: dict[str, str]) -> None:
    answer = await post(t, "/api/function", {"path": "notes:hidden", "args": {"list": "a"}}, **headers)
    assert answer.status_code == 403 and answer.json()["code"] == "BadDeployKey"


@pytest.mark.parametrize(("component", "status"), [(None, 200), ("", 200), ("child", 400)])
async def test_there_are_no_components(t: TestBackend, component: str | None, status: int) -> None:
    body = {"path": "notes:look", "args": {"list": "a"}, "componentPath": component}
    assert (await post(t, "/api/function", body, authorization=ADMIN)).status_code == status


@pytest.mark.parametrize(
    "path", ["/api/run/notes/look", "http://test.invalid//api/run/notes/look", "/api/run/notes%2Ejs/look", "/api/run/n%6Ftes/look"]
)
async def test_a_function_runs_by_its_path_in_the_address(t: TestBackend, path: str) -> None:
    answer = await post(t, path, {"args": {"list": "a"}})
    assert (answer.status_code, answer.json()) == (200, {"status": "success", "value": 0.0})


async def test_a_function_run_by_address_answers_in_plain_json_unless_asked(t: TestBackend) -> None:
    assert (await post(t, "/api/run/values/echo", {"args": {"value": INT64}})).json()["value"] == "5"
    encoded = await post(t, "/api/run/values/echo", {"args": {"value": INT64}, "format": "convex_encoded_json"}, convex_client="npm-1.0.0")
    assert encoded.json()["value"] == INT64
    assert "Could not find public function" in (await post(t, "/api/run/notes/hidden", {"args": {"list": "a"}})).json()["errorMessage"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/run/notes", "MissingIdentifier"),
        ("/api/run/", "MissingIdentifier"),
        ("/api/run/notes/", "MissingIdentifier"),
        ("/api/run//look", "MissingIdentifier"),
        ("/api/run/notes%2Flook/x", "BadConvexFunctionIdentifier"),
        ("/api/run/notes/lo-ok", "BadConvexFunctionIdentifier"),
    ],
)
async def test_an_address_that_names_no_function_is_refused(t: TestBackend, path: str, code: str) -> None:
    answer = await post(t, path, {"args": {"list": "a"}})
    assert answer.status_code == 400 and answer.json()["code"] == code


# --- at one ts


async def ts_now(t: TestBackend) -> str:
    answer = await post(t, "/api/query_ts", b"")
    return str(answer.json()["ts"])


async def test_a_query_is_asked_as_of_an_earlier_ts(t: TestBackend) -> None:
    await t.mutation("notes:add", list="a", text="then")
    then = await ts_now(t)
    await t.mutation("notes:add", list="a", text="now")
    await t.advance(seconds=30)
    body = {"path": "notes:texts", "args": {"list": "a"}, "ts": then}
    assert (await post(t, "/api/query_at_ts", body)).json()["value"] == ["then"]
    assert (await post(t, "/api/query_at_ts", body | {"ts": await ts_now(t)})).json()["value"] == ["then", "now"]


async def test_the_ts_covers_what_was_acknowledged(t: TestBackend) -> None:
    async with socket(t) as client:
        answer = await client.response(client.mutate("notes:add", list="a", text="x"))
    assert await ts_now(t) == answer["ts"]


@pytest.mark.parametrize(
    ("ts", "code"), [(None, "BadTimestamp"), (5, "BadTimestamp"), ("AAAA", "BadTimestamp"), ("/////////38=", "TimestampInFuture")]
)
async def test_a_ts_that_is_none_or_not_yet_is_refused(t: TestBackend, ts: Any, code: str) -> None:
    answer = await post(t, "/api/query_at_ts", {"path": "notes:texts", "args": {"list": "a"}, "ts": ts})
    assert answer.status_code == 400 and answer.json()["code"] == code


async def test_a_batch_answers_every_query_at_one_ts(t: TestBackend) -> None:
    queries = [{"path": "notes:texts", "args": {"list": name}, "format": "json"} for name in ("a", "b")]
    writing = asyncio.ensure_future(t.mutation("notes:add_to", lists=["a", "b"], text="x"))
    results = (await post(t, "/api/query_batch", {"queries": [*queries, {"path": "notes:nothing", "args": {}}]})).json()["results"]
    await writing
    assert results[0] == results[1]
    assert results[2]["status"] == "error"


@pytest.mark.parametrize(
    "body", [{}, {"queries": {}}, {"queries": [5]}, {"queries": [{"args": {}}]}, {"queries": [{"path": "notes:look", "args": {}}] * 1001}]
)
async def test_a_batch_with_a_malformed_entry_is_refused(t: TestBackend, body: Any) -> None:
    answer = await post(t, "/api/query_batch", body)
    assert answer.status_code == 400 and answer.json()["code"] in ("BadJsonBody", "TooManyQueries")


async def test_a_batch_ends_where_its_results_are_too_large_together() -> None:
    async with SmallBackend(APP, limits=replace(DEFAULT_LIMITS, result_size_bytes=2000)) as t:
        query = {"path": "values:echo", "args": {"value": "x" * 900}}
        assert (await post(t, "/api/query_batch", {"queries": [query] * 2})).status_code == 200
        answer = await post(t, "/api/query_batch", {"queries": [query] * 3})
        assert (answer.status_code, answer.json()["code"]) == (400, "ResultsTooLarge")


@pytest.mark.parametrize(("path", "args", "runs"), [("notes:texts", {"list": "x"}, 1), ("values:echo", {"value": "x" * 70_000}, 2)])
async def test_a_result_is_kept_for_who_asks_again_unless_it_is_large(t: TestBackend, path: str, args: dict[str, str], runs: int) -> None:
    before = t._engine.live.runs
    for _ in range(2):
        await call(t, "query", path, args)
    assert t._engine.live.runs - before == runs
    assert len(t._engine.live._recent) == 2 - runs
