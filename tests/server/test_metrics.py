"""``/metrics``: what is told after which traffic, and to whom."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import orjson
import pytest

from reactor.functions.run_counts import CODES, RunCounts
from reactor.server import metrics as module
from reactor.server.metrics import FAMILIES, Metrics
from reactor.testing import TestBackend
from tests.server.support import ADMIN_KEY, APP, SmallBackend, call, post, socket
from tests.support.metrics import Scrape
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio


async def scrape(t: TestBackend, **headers: str) -> Scrape:
    answer = await t.fetch("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return Scrape(answer.text)


def reconfigure(t: TestBackend, **options: Any) -> None:
    """What a server with other settings has."""
    t._server.metrics = Metrics(t._runner, t._server.connections, t._server.authenticator, **options)


# --- functions


async def test_each_run_counts_in_the_histogram_of_its_function(t: TestBackend) -> None:
    for text in ("x", "y"):
        await call(t, "mutation", "notes:add", {"list": "a", "text": text})
    await call(t, "action", "notes:add_all", {"list": "a", "texts": ["z"]})
    told = await scrape(t)
    assert told.kinds["reactor_function_duration_seconds"] == "histogram"
    assert told("reactor_function_duration_seconds_count", function="notes:add", kind="mutation") == 3
    assert told("reactor_function_duration_seconds_count", function="notes:add_all", kind="action") == 1
    buckets = [told("reactor_function_duration_seconds_bucket", function="notes:add", le=le) for le in ("0.0005", "0.1", "600.0", "+Inf")]
    assert buckets == sorted(buckets) and buckets[2:] == [3, 3]
    assert 0 < told("reactor_function_duration_seconds_sum", function="notes:add") < 60


async def test_failures_count_by_function_and_code(t: TestBackend) -> None:
    await call(t, "mutation", "failing:refuses", {"data": 1})
    await call(t, "mutation", "failing:refuses", {"data": 1})
    await call(t, "mutation", "failing:crashes", {})
    await call(t, "mutation", "notes:add", {"list": 1})
    told = await scrape(t)
    assert told("reactor_function_errors_total", function="failing:refuses", kind="mutation", code="AppError") == 2
    assert told("reactor_function_errors_total", function="failing:crashes", code="FunctionError") == 1
    assert told("reactor_function_errors_total", function="notes:add", code="ArgumentValidationError") == 1
    assert told("reactor_function_duration_seconds_count", function="failing:refuses") == 2, "a failure is a run too"


async def test_a_result_that_was_known_is_no_run(t: TestBackend) -> None:
    for _ in range(3):
        await call(t, "query", "notes:texts", {"list": "a"})
    told = await scrape(t)
    assert told("reactor_function_duration_seconds_count", function="notes:texts") == 1
    assert told("reactor_function_cached_total", function="notes:texts", kind="query") == 2


async def test_a_mutation_sent_again_is_no_run_either(t: TestBackend) -> None:
    async with socket(t) as client:
        await client.response(client.mutate("notes:add", request=0, list="a", text="x"))
        session = client.session
    async with socket(t, session=session) as client:
        await client.response(client.mutate("notes:add", request=0, list="a", text="x"))
    told = await scrape(t)
    assert told("reactor_function_duration_seconds_count", function="notes:add") == 1
    assert told("reactor_function_cached_total", function="notes:add", kind="mutation") == 1


async def test_attempts_beyond_the_first_and_conflicts_are_counted(t: TestBackend) -> None:
    sent = [asyncio.ensure_future(call(t, "mutation", "gated:add_after_reading", {"list": "a", "text": text})) for text in "xy"]
    await asyncio.gather(*sent)
    told = await scrape(t)
    retries = told("reactor_function_retries_total", function="gated:add_after_reading", kind="mutation")
    assert retries >= 1
    assert told("reactor_conflicts_total", table="notes") == retries
    assert told("reactor_reruns_total", kind="mutation", cause="conflict") == retries


async def test_what_a_client_makes_up_becomes_no_series(t: TestBackend) -> None:
    await call(t, "query", "made:up", {})
    before = len(await scrape(t))
    for number in range(50):
        await call(t, "query", f"made:up{number}", {})
        await post(t, "/api/query", {"path": f"made up {number}", "args": {}})
        await post(t, f"/api/run/made/up{number}", {"args": {}})
        await t.fetch(f"/made/up/{number}")
    async with socket(t) as client:
        for number in range(50):
            await client.response(client.act(f"made:up{number}"))
            await client.response(client.mutate(f"made:up{number}"))
            client.subscribe(f"made:up{number}")
        await client.reflected()
    told = await scrape(t)
    # Of unknown mutations and actions: sum, count, buckets and the error each.
    assert len(told) <= before + 3 * (len(FAMILIES["reactor_function_duration_seconds"].bounds) + 5)
    assert {labels["function"] for labels in told.series("reactor_function_errors_total")} == {"unknown"}
    assert told("reactor_function_errors_total", function="unknown", code="FunctionNotFound") > 150


async def test_a_function_that_may_not_be_called_so_counts_under_its_own_name(t: TestBackend) -> None:
    await call(t, "query", "notes:add", {"list": "a", "text": "x"})
    await call(t, "mutation", "notes.js:hidden", {"list": "a"})
    told = await scrape(t)
    assert told("reactor_function_errors_total", function="notes:add", kind="mutation", code="InvalidFunctionCall") == 1
    assert told("reactor_function_errors_total", function="notes:hidden", kind="mutation", code="FunctionNotFound") == 1


def test_codes_of_an_apps_own_are_bounded_in_number_and_form() -> None:
    counts = RunCounts()
    for code in (*(f"Code{number}" for number in range(1000)), "lone \ud800", "x" * 65, 'a"b', ""):
        counts.add("a:b", "query", 0.1, 1, False, code)
    ((path, of_it),) = counts
    assert (path, len(of_it.errors), of_it.errors["other"]) == ("a:b", CODES + 1, 1000 - CODES + 4)


# --- the engine


async def test_sessions_subscriptions_and_live_queries_are_what_is_open_now(t: TestBackend) -> None:
    async with socket(t) as one, socket(t) as two:
        queries = one.subscribe("notes:texts", list="a"), one.subscribe("notes:texts", list="b")
        two.subscribe("notes:texts", list="a")
        await one.reflected()
        await two.reflected()
        told = await scrape(t)
        assert (told("reactor_sessions"), told("reactor_subscriptions"), told("reactor_live_queries")) == (2, 3, 2)
        one.unsubscribe(queries[1])
        await one.reflected()
        told = await scrape(t)
        assert (told("reactor_subscriptions"), told("reactor_live_queries")) == (2, 1)
    told = await scrape(t)
    assert (told("reactor_sessions"), told("reactor_subscriptions"), told("reactor_live_queries")) == (0, 0, 0)


async def test_queries_that_run_again_count_by_cause(t: TestBackend) -> None:
    async def reruns() -> dict[str, float]:
        told = await scrape(t)
        causes = ("commit", "environment", "push", "identity", "snapshot")
        return {cause: count for cause in causes if (count := told("reactor_reruns_total", kind="query", cause=cause))}

    async with socket(t) as client:
        texts = client.subscribe("notes:texts", list="a")
        assert await client.result(texts) == []
        assert await reruns() == {}, "the first run is not one that is made again"
        client.mutate("notes:add", list="a", text="x")
        await client.until(texts, ["x"])
        assert await reruns() == {"commit": 1}
        client.mutate("notes:add", list="b", text="x")
        await client.reflected()
        assert await reruns() == {"commit": 1}, "a commit that it did not read"
        who = client.subscribe("values:who")
        await client.result(who)
        client.authenticate("Admin", ADMIN_KEY, impersonating={"subject": "ann", "issuer": "i", "tokenIdentifier": "i|ann"})
        await client.until(who, "i|ann")
        assert (await reruns())["identity"] >= 1
        variable = client.subscribe("values:variable", name="COLOUR")
        assert await client.result(variable) is None
        await t.set_env({"COLOUR": "red"})
        await client.until(variable, "red")
        assert (await reruns())["environment"] == 1
        await t._engine.push(t._engine.catalog)
        await eventually_async(lambda: t._engine.live.reruns["push"] == 3, "all three to run again")
        assert (await reruns())["push"] == 3


async def test_commits_are_counted_by_the_size_of_their_groups_and_the_store_says_how_long_it_took(t: TestBackend) -> None:
    before = await scrape(t)
    sent = [call(t, "mutation", "notes:add", {"list": "a", "text": str(number)}) for number in range(40)]
    await asyncio.gather(*sent)
    told = await scrape(t)
    assert told("reactor_commit_group_size_sum") - before("reactor_commit_group_size_sum") == 40
    groups = told("reactor_commit_group_size_count") - before("reactor_commit_group_size_count")
    assert 1 <= groups < 40
    for step in ("write", "commit"):
        name = "reactor_store_duration_seconds_count"
        assert told(name, step=step) - before(name, step=step) == groups, step
        assert told("reactor_store_duration_seconds_sum", step=step) > 0


async def test_scheduled_functions_tell_how_late_they_began_and_what_is_overdue(t: TestBackend) -> None:
    reconfigure(t, scheduled=t._scheduled)
    assert (await scrape(t))("reactor_scheduler_lag_seconds") == 0
    await t.mutation("notes:add_later", list="a", text="x", seconds=10)
    assert (await scrape(t))("reactor_scheduler_lag_seconds") == 0, "what is not due yet is not late"
    t.runtime.advance(timedelta(seconds=13))
    assert (await scrape(t))("reactor_scheduler_lag_seconds") == pytest.approx(3)
    await t.advance()
    told = await scrape(t)
    assert told("reactor_scheduler_lag_seconds") == 0
    assert told("reactor_scheduler_lateness_seconds_count") == 1
    assert told("reactor_scheduler_lateness_seconds_sum") == pytest.approx(3)
    assert told("reactor_function_duration_seconds_count", function="notes:add") == 1


# --- the text


async def test_what_is_told_is_what_is_declared(t: TestBackend) -> None:
    await call(t, "query", "notes:texts", {"list": "a"})
    told = await scrape(t)
    assert set(told.kinds) <= set(FAMILIES)
    for name, kind in told.kinds.items():
        assert (kind, told.helps[name]) == (FAMILIES[name].kind, FAMILIES[name].help), name
        sample = f"{name}_count" if kind == "histogram" else name
        assert all(tuple(sorted(labels)) == tuple(sorted(FAMILIES[name].labels)) for labels in told.series(sample)), name


async def test_a_scraper_that_takes_openmetrics_gets_that(t: TestBackend) -> None:
    plain = await t.fetch("/metrics")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    answer = await t.fetch("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")


async def test_the_server_goes_on_while_a_scrape_is_written_out_and_more_than_some_do_not_wait(
    t: TestBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, begun, go_on = module._written, threading.Event(), threading.Event()

    def slowly(readings: Any, accept: bytes) -> tuple[bytes, str]:
        begun.set()
        assert go_on.wait(20)
        return written(readings, accept)

    monkeypatch.setattr(module, "_written", slowly)
    first = asyncio.ensure_future(scrape(t))
    await eventually_async(begun.is_set, "the scrape to be written")
    assert (await call(t, "mutation", "notes:add", {"list": "a", "text": "x"}))["status"] == "success"
    waiting = [asyncio.ensure_future(t.fetch("/metrics")) for _ in range(20)]
    await eventually_async(lambda: sum(task.done() for task in waiting) == 20 - module.WAITING + 1, "those above the bound to be refused")
    go_on.set()
    assert (await first)("reactor_sessions") == 0
    assert sorted({(await task).status_code for task in waiting}) == [200, 503]
    assert (await scrape(t))("reactor_function_duration_seconds_count", function="notes:add") == 1


async def test_a_database_that_does_not_answer_costs_one_sample_and_no_scrape(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    reconfigure(t, scheduled=t._scheduled)
    monkeypatch.setattr(module, "DUE_S", 0.01)
    monkeypatch.setattr(t._scheduled, "next_due_ms", asyncio.Event().wait)
    told = await scrape(t)
    assert "reactor_scheduler_lag_seconds" not in told.kinds and "reactor_sessions" in told.kinds


# --- who may read it


async def test_in_development_everybody_may_read_it(t: TestBackend) -> None:
    assert (await t.fetch("/metrics")).status_code == 200


async def test_in_production_a_key_may_read_it(t: TestBackend) -> None:
    t._runner.production = True
    reconfigure(t)
    assert (await scrape(t, authorization=f"Convex {ADMIN_KEY}"))("reactor_sessions") == 0
    assert (await scrape(t, authorization=f"Bearer {ADMIN_KEY}"))("reactor_sessions") == 0
    made = await t._server.authenticator.keys.create("prometheus")
    assert (await scrape(t, authorization=f"Bearer {made}"))("reactor_sessions") == 0
    await t._server.authenticator.keys.revoke("prometheus")
    assert (await t.fetch("/metrics", headers={"authorization": f"Bearer {made}"})).status_code == 403


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Basic dGVzdDo0NzEx", 401),
        ("Bearer wrong", 403),
        ("Convex test|4712", 403),
        ("Bearer test|4711x", 403),
        ("Bearer \u00e9\u00ff", 403),
    ],
)
async def test_who_shows_no_key_or_a_wrong_one_is_refused_and_told_nothing(t: TestBackend, authorization: str | None, status: int) -> None:
    t._runner.production = True
    reconfigure(t, key="scraper")
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    answer = await t.fetch("/metrics", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == status and set(answer.json()) == {"code", "message"}
    assert "reactor_" not in answer.text and ADMIN_KEY not in answer.text and "scraper" not in answer.text
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_key_for_metrics_reads_them_and_is_no_admins(t: TestBackend) -> None:
    t._runner.production = True
    reconfigure(t, key="scraper")
    assert (await scrape(t, authorization="Bearer scraper"))("reactor_sessions") == 0
    answer = await post(t, "/api/function", {"path": "notes:hidden", "args": {"list": "a"}}, authorization="Convex scraper")
    assert answer.status_code == 403


async def test_a_setting_opens_it_in_production_and_closes_it_anywhere(t: TestBackend) -> None:
    t._runner.production = True
    reconfigure(t, access="open")
    assert (await t.fetch("/metrics")).status_code == 200
    t._runner.production = False
    reconfigure(t, access="key")
    assert (await t.fetch("/metrics")).status_code == 401
    reconfigure(t, access="off")
    assert (await t.fetch("/metrics", headers={"authorization": f"Convex {ADMIN_KEY}"})).status_code == 404


async def test_it_is_read_and_nothing_else(t: TestBackend) -> None:
    answer = await t.fetch("/metrics", method="POST", content=b"x")
    assert answer.status_code == 405 and answer.json()["code"] == "MethodNotAllowed"
    assert (await t.fetch("/metrics/more")).status_code == 404


async def test_servers_in_one_process_tell_each_their_own(t: TestBackend) -> None:
    async with SmallBackend(APP) as other:
        await call(other, "mutation", "notes:add", {"list": "a", "text": "x"})
        assert (await scrape(other))("reactor_function_duration_seconds_count", function="notes:add") == 1
        assert (await scrape(t))("reactor_function_duration_seconds_count", function="notes:add") == 0


async def test_what_goes_between_workers_is_json(t: TestBackend) -> None:
    await call(t, "mutation", "failing:crashes", {})
    metrics = t._server.metrics
    told = orjson.loads(await metrics._told())
    text, _ = module._written({"0": told, "1": {}}, b"")
    both = Scrape(text.decode())
    assert both("reactor_function_errors_total", function="failing:crashes", worker="0") == 1
    assert {labels["worker"] for labels in both.series("reactor_sessions")} == {"0"}
