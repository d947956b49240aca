"""Queries and mutations see the database and nothing else."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reactor import NonDeterministicError
from reactor.testing import TestBackend
from tests.functions.app.app_functions import clocks, outside
from tests.functions.support import APP, call, ranks

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("what functions may call, whatever the store")]

NOON = datetime(2030, 2, 3, 12, 34, 56, 500_000, tzinfo=UTC)


async def test_every_clock_stands_still_at_the_start_of_the_run() -> None:
    now = NOON.timestamp() * 1000
    async with TestBackend(APP, now=NOON) as t:
        shown = await t.query(clocks.clocks)
        assert shown.pop("ctx.now") == now
        assert (shown.pop("date.today"), shown.pop("time.strftime")) == ("2030-02-03", "2030-02-03")
        assert shown.pop("time.gmtime") == "2030-02-03T12:34:56"
        del shown["time.monotonic"], shown["time.perf_counter"]
        assert shown == {name: pytest.approx(now, abs=0.01) for name in shown}
        await t.advance(hours=1)
        later = await t.query(clocks.clocks)
        assert later["ctx.now"] == now + 3_600_000 == pytest.approx(later["time.time"])
        assert later["time.monotonic"] > shown.get("time.monotonic", 0)


async def test_nested_calls_and_creation_times_share_the_callers_clock(t: TestBackend) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000
    assert await t.mutation(clocks.nested_now) == [now, now, now, now]


async def test_the_class_that_stands_in_for_datetime_is_one(t: TestBackend) -> None:
    assert await t.query(clocks.is_instance)


async def test_randomness_repeats_when_a_run_is_replayed(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(t.runtime, "random_bytes", lambda size: b"\1" * size)
    first = await t.query(clocks.draws)
    assert await t.query(clocks.draws) == first
    monkeypatch.setattr(t.runtime, "random_bytes", lambda size: b"\2" * size)
    other = await t.query(clocks.draws)
    assert all(other[name] != drawn for name, drawn in first.items())


async def test_what_a_function_imports_when_it_runs_stands_still_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with TestBackend(APP, now=NOON) as t:
        monkeypatch.setattr(t.runtime, "random_bytes", lambda size: b"\1" * size)
        first = await t.query(clocks.imported_late)
        assert first[:2] == [pytest.approx(NOON.timestamp() * 1000, abs=0.01)] * 2
        await t.advance(seconds=1)
        later = await t.query(clocks.imported_late)
        assert later[0] == pytest.approx(first[0] + 1000), "a result that asked for the time is not kept"
        assert later[2:] == first[2:]


async def test_each_run_has_a_seed_of_its_own(t: TestBackend) -> None:
    first, second = await t.query(clocks.draws), await t.query(clocks.draws)
    assert all(second[name] != drawn for name, drawn in first.items())


@pytest.mark.parametrize("name", ["token_bytes", "token_hex", "token_urlsafe", "randbelow", "randbits"])
async def test_secrets_are_made_in_actions(t: TestBackend, name: str) -> None:
    with pytest.raises(NonDeterministicError, match=rf"^clocks:token: secrets\.{name} .* Use an action\.$"):
        await t.query(clocks.token, name=name)


@pytest.mark.parametrize("how", ["time.sleep", "asyncio.sleep"])
async def test_a_query_does_not_sleep(t: TestBackend, how: str) -> None:
    with pytest.raises(NonDeterministicError, match=rf"clocks:sleeps: {how} is not possible in a query"):
        await t.query(clocks.sleeps, how=how)


async def test_an_action_sees_the_real_clock_and_randomness(t: TestBackend) -> None:
    assert await t.action(clocks.real)


@pytest.fixture
def place(tmp_path: Path) -> str:
    (tmp_path / "there").write_text("text")
    return str(tmp_path)


#: What the error names for each way.
NAMED = {
    "connect": "socket.",
    "resolve": "socket.getaddrinfo",
    "fetch": "urllib.",
    "write": "open(",
    "append": "open(",
    "read": "open(",
    "low": "open(",
    "remove": "os.remove",
    "rename": "os.rename",
    "folder": "os.mkdir",
    "copy": "shutil.copyfile",
    "temporary": "tempfile.mkdtemp",
    "process": "subprocess.Popen",
    "system": "os.system",
    "thread": "starting a thread",
    "database": "sqlite3.connect",
    "ask": "input",
}


def here(place: str) -> dict[str, str]:
    return {file.name: file.read_text() for file in Path(place).iterdir()}


@pytest.mark.parametrize("way", outside.WAYS)
async def test_the_outside_world_is_refused_to_queries_and_mutations(t: TestBackend, way: str, place: str) -> None:
    calls: list[tuple[Any, str, str]] = [
        ("query", "in_query", "outside:in_query"),
        ("mutation", "in_mutation", "outside:in_mutation"),
        ("mutation", "nested", "outside:"),
        ("action", "query_of_action", "outside:in_query"),
    ]
    for kind, path, named in calls:
        error = (await call(t, kind, f"outside:{path}", way=way, place=place)).error
        assert error is not None and error.code == "NonDeterministicError"
        said = str(error.exception)
        assert said.startswith(named) and f": {NAMED[way]}" in said and said.endswith("Use an action."), said
    assert here(place) == {"there": "text"}
    assert await ranks(t) == []


@pytest.mark.parametrize("way", outside.WAYS)
async def test_an_action_reaches_the_outside_world(t: TestBackend, way: str, place: str) -> None:
    await t.action(outside.in_action, way=way, place=place)


async def test_a_query_may_import(t: TestBackend) -> None:
    assert await t.query(outside.imports) == 1


async def test_what_is_not_the_apps_keeps_the_real_modules(t: TestBackend) -> None:
    app: Any = clocks
    assert time.time is not app.time.time and datetime is not app.Moment
    assert abs(app.time.time() - time.time()) < 5, "outside of a run the stand-ins are the real thing"
