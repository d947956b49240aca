"""Environment variables: read by functions, part of what they read, changed in one commit, checked against an app's settings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

import orjson
import pytest
from pydantic_settings import SettingsConfigDict

from reactor import EnvironmentVariableError, EnvSettings, Id, LimitExceeded, ReactorError
from reactor.functions.environment import change_variables, check_settings, variables
from reactor.functions.identity import Caller
from reactor.limits import DEFAULT_LIMITS
from reactor.testing import TestBackend
from tests.functions.app.app_functions import environment
from tests.functions.settings import Limit, Settings
from tests.functions.support import APP, call

pytestmark = pytest.mark.anyio


async def test_a_variable_that_is_set_is_read_in_every_kind_of_function(t: TestBackend) -> None:
    await t.set_env({"NAME": "värde = 1\n"})
    assert await t.query(environment.read, name="NAME") == "värde = 1\n"
    assert await t.query(environment.require, name="NAME") == "värde = 1\n"
    assert await t.query(environment.nested, name="NAME") == "värde = 1\n"
    assert await t.mutation(environment.keep, name="NAME") == "värde = 1\n"
    assert await t.action(environment.act, name="NAME") == ["värde = 1\n", True, True, 3]
    assert await t.query(environment.names) == ["NAME", "CONVEX_CLOUD_URL", "CONVEX_SITE_URL"]


async def test_one_that_is_not_set_is_named_with_what_to_do(t: TestBackend) -> None:
    assert await t.query(environment.read, name="NOPE") is None
    assert await t.action(environment.act, name="NOPE") == [None, False, True, 2]
    with pytest.raises(EnvironmentVariableError, match=r"NOPE is not set\. Set it with: reactor env set NOPE VALUE"):
        await t.query(environment.require, name="NOPE")


async def test_the_server_says_where_it_is(t: TestBackend) -> None:
    assert await t.query(environment.require, name="CONVEX_CLOUD_URL") == "http://test.invalid"
    assert await t.query(environment.require, name="CONVEX_SITE_URL") == "http://test.invalid/http"


async def test_variables_given_to_the_backend_are_there_from_the_start() -> None:
    async with TestBackend(APP, env={"A": "1"}) as t:
        assert await t.query(environment.read, name="A") == "1"


@pytest.mark.parametrize(
    ("watched", "args", "change", "reruns"),
    [
        ("read", {"name": "A"}, {"A": "2"}, True),
        ("read", {"name": "A"}, {"A": None}, True),
        ("read", {"name": "A"}, {"A": "1"}, False),
        ("read", {"name": "A"}, {"B": "2"}, False),
        ("read", {"name": "UNSET"}, {"UNSET": "1"}, True),
        ("read", {"name": "UNSET"}, {"UNSET": None}, False),
        ("nested", {"name": "A"}, {"A": "2"}, True),
        ("names", {}, {"B": "2"}, True),
        ("greeting", {}, {"GREETING": "hi"}, True),
        ("greeting", {}, {"B": "2"}, False),
    ],
)
async def test_a_query_runs_again_when_a_variable_that_it_read_changes_and_only_then(
    t: TestBackend, watched: str, args: dict[str, Any], change: dict[str, str | None], reruns: bool
) -> None:
    await t.set_env({"A": "1", "STRIPE_KEY": "sk"})
    environment.runs.clear()
    async with aclosing(t.subscribe(f"environment:{watched}", **args)) as results:  # type: ignore[type-var]
        await anext(results)
        await t.set_env(change)
        if reruns:
            await asyncio.wait_for(anext(results), 5)
        else:
            # What comes after it would have come with it.
            await t.set_env({"A": "9", "UNSET": "9", "GREETING": "hi"})
            await asyncio.wait_for(anext(results), 5)
        assert len(environment.runs) == 2


async def test_a_mutation_that_read_a_variable_before_it_changed_runs_again(t: TestBackend) -> None:
    await t.set_env({"A": "1"})
    environment.pause = environment.Pause()
    running = asyncio.ensure_future(t.mutation(environment.slowly, name="A"))
    await environment.pause.reached.wait()
    await t.set_env({"A": "2"})
    environment.pause.open.set()
    assert await running == "2"


async def test_a_change_that_is_accepted_and_not_yet_durable_is_below_later_mutations(t: TestBackend) -> None:
    await t.set_env({"A": "1", "B": "1"})
    engine = t._engine
    change = asyncio.ensure_future(change_variables(engine, {"A": "2", "B": None}))
    while not engine._committer._pending:
        await asyncio.sleep(0)
    assert engine.environment.newest == engine.environment.at(engine.head_ts) and variables(engine)["A"] == "1"
    kept = [t.mutation(environment.keep, name="A"), t.mutation(environment.keep, name="B")]
    assert await asyncio.gather(*kept) == ["2", None]
    await change


async def test_a_query_as_of_a_past_moment_reads_the_variables_of_that_moment(t: TestBackend) -> None:
    await t.set_env({"A": "1"})
    then = t._engine.head_ts
    await t.set_env({"A": "2", "B": "1"})
    runner, caller = t._runner, Caller()
    for name, value in [("A", b'"1"'), ("B", b"null")]:
        outcome = await runner.query("environment:read", orjson.dumps({"name": name}), caller, at=then)
        assert outcome.value == value
    outcome = await runner.query("environment:names", b"{}", caller, at=then)
    assert orjson.loads(outcome.value)[0] == "A" and b'"B"' not in outcome.value


async def test_a_query_that_goes_on_reading_at_its_snapshot_sees_the_variables_of_it(t: TestBackend) -> None:
    await t.set_env({"A": "1"})
    pin = t._engine.pin()
    await t.set_env({"A": "2"})
    assert [orjson.loads(json)["value"] for json in t._engine.environment.at(pin.ts).values()] == ["1"]
    pin.release()


async def test_variables_are_there_again_when_the_database_is_opened_again(t: TestBackend) -> None:
    from reactor.engine.engine import Engine

    await t.set_env({f"V{at}": str(at) for at in range(300)})
    await t.set_env({"V7": None})
    engine = Engine(t._engine._store, t._engine.catalog, t.runtime, DEFAULT_LIMITS)
    await engine.push(t._engine.catalog)
    assert variables(engine) == {f"V{at}": str(at) for at in range(300) if at != 7}


async def test_a_ctx_whose_function_has_ended_reads_none(t: TestBackend) -> None:
    await t.action(environment.outlive)
    with pytest.raises(ReactorError, match="has ended"):
        environment.left.pop().env.get("A")


async def test_reading_each_variable_counts_as_an_index_range() -> None:
    async with TestBackend(APP, limits=replace(DEFAULT_LIMITS, index_ranges_read=3)) as t:
        for _ in range(2):
            await t.query(environment.read, name="A")

        async def read(ctx: Any) -> None:
            for at in (0, 1, 2, 0, 1, 2, 3):
                ctx.env.get(f"V{at}")

        with pytest.raises(LimitExceeded, match="at most 3 index ranges"):
            await t.run(read)


async def test_functions_cannot_reach_the_table_behind_it(t: TestBackend) -> None:
    from reactor.schema.system import EnvironmentVariable

    await t.set_env({"SECRET": "sk"})
    (id,) = t._engine.environment.newest

    async def look(ctx: Any) -> None:
        assert await ctx.db.get(id) is None
        assert await ctx.db.get(Id(id)) is None  # as an argument of the type Id[Any] arrives
        with pytest.raises(ReactorError, match="not for functions to read"):
            ctx.db.query(EnvironmentVariable)
        with pytest.raises(ReactorError, match="not for functions to read"):
            ctx.db.normalize_id(EnvironmentVariable, id)
        with pytest.raises(ReactorError, match="not for functions to read"):
            await ctx.db.get(EnvironmentVariable, id)
        with pytest.raises(ReactorError, match="not for functions to read"):
            await ctx.db.insert(EnvironmentVariable(name="A", value="1"))
        with pytest.raises(ReactorError, match="there is no document"):
            await ctx.db.delete(id)
        with pytest.raises(ReactorError, match="there is no document"):
            await ctx.db.delete(Id(id))

    await t.run(look)


# --- what cannot be set


SMALL = replace(DEFAULT_LIMITS, env_variables=3, env_total_bytes=30, env_value_bytes=20, env_name_chars=9)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"1A": "x"}, "EnvironmentVariableNameInvalid", "'1A' is no name"),
        ({"_A": "x"}, "EnvironmentVariableNameInvalid", "'_A' is no name"),
        ({"": "x"}, "EnvironmentVariableNameInvalid", "'' is no name"),
        ({"A B": "x"}, "EnvironmentVariableNameInvalid", "'A B' is no name"),
        ({"Ä": "x"}, "EnvironmentVariableNameInvalid", "'Ä' is no name"),
        ({"A\n": "x"}, "EnvironmentVariableNameInvalid", "is no name"),
        ({"A" * 10: "x"}, "EnvironmentVariableNameTooLong", "has 10 characters, at most 9"),
        ({"A": "ä" * 11}, "EnvironmentVariableValueTooLarge", "has 22 bytes, at most 20"),
        ({"A": "\ud800"}, "InvalidEnvironmentVariable", "half a surrogate pair"),
        ({"A": "1", "B": "1", "C": "1"}, "EnvVarLimitMet", "There would be 4 environment variables, at most 3"),
        ({"A": "x" * 20, "B": "x" * 7}, "EnvVarTotalSizeLimitMet", "would have 33 bytes, at most 30"),
        ({"CONVEX_CLOUD_URL": "http://x"}, "EnvVarNameForbidden", "cannot be set or removed"),
        ({"CONVEX_SITE_URL": None}, "EnvVarNameForbidden", "cannot be set or removed"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_changes(changes: dict[str, str | None], code: str, said: str) -> None:
    async with TestBackend(APP, limits=SMALL, env={"OLD": "1"}) as t:
        with pytest.raises(EnvironmentVariableError, match=said) as refused:
            await t.set_env({"OLD": "2", **changes})
        assert refused.value.code == code
        assert variables(t._engine) == {"OLD": "1"}


async def test_as_many_and_as_large_as_allowed_can_be_set_and_replaced() -> None:
    async with TestBackend(APP, limits=SMALL) as t:
        await t.set_env({"A" * 9: "x" * 15, "B": "", "C": "xxx"})
        await t.set_env({"B": None, "D": "y"})
        assert variables(t._engine) == {"A" * 9: "x" * 15, "C": "xxx", "D": "y"}


async def test_two_changes_at_once_both_take_place(t: TestBackend) -> None:
    await asyncio.gather(*(t.set_env({f"V{at}": str(at)}) for at in range(20)))
    assert len(variables(t._engine)) == 20


# --- settings that an app declares


@pytest.mark.parametrize(
    ("values", "code", "said"),
    [
        ({}, "MissingEnvironmentVariables", "needs the environment variable STRIPE_KEY, which is not set"),
        ({"STRIPE_KEY": "sk", "GREETING": "ho"}, "InvalidEnvironmentVariable", "GREETING does not fit: Input should be 'hi' or 'hello'"),
        ({"STRIPE_KEY": "sk", "TAGS": "[secret"}, "InvalidEnvironmentVariable", "TAGS is a list, mapping or model, and does not hold JSON"),
        ({"STRIPE_KEY": "sk", "TAGS": "[1]"}, "InvalidEnvironmentVariable", "TAGS does not fit: Input should be a valid string"),
        ({"STRIPE_KEY": "sk", "LIMIT": "{}"}, "InvalidEnvironmentVariable", "LIMIT does not fit: Field required"),
        ({"STRIPE_KEY": "sk", "ODD": "sec\nret"}, "InvalidEnvironmentVariable", "ODD does not fit: Value error, write one line"),
    ],
)
async def test_variables_that_do_not_fit_are_named_and_never_shown(values: dict[str, str], code: str, said: str) -> None:
    with pytest.raises(EnvironmentVariableError, match=said) as refused:
        check_settings([Settings], values)
    assert refused.value.code == code
    assert "sec" not in refused.value.message
    assert refused.value.__cause__ is None


async def test_settings_are_read_typed_with_their_defaults(t: TestBackend) -> None:
    await t.set_env({"STRIPE_KEY": "sk", "TAGS": '["a", "b"]', "LIMIT": '{"per_minute": 5}', "ODD": "x"})

    async def read(ctx: Any) -> Settings:
        settings: Settings = ctx.env.settings(Settings)
        return settings

    settings = await t.run(read)
    assert settings.stripe_key.get_secret_value() == "sk"
    assert (settings.greeting, settings.tags, settings.limit.per_minute, settings.odd_name) == ("hello", ["a", "b"], 5, "x")


async def test_settings_of_one_run_are_no_other_runs(t: TestBackend) -> None:
    await t.set_env({"STRIPE_KEY": "sk", "TAGS": '["a"]'})

    async def read(ctx: Any) -> list[str]:
        tags: list[str] = ctx.env.settings(Settings).tags
        tags.append("of this run")
        assert ctx.env.settings(Settings).tags == ["a"]
        return tags

    assert await t.run(read) == await t.run(read) == ["a", "of this run"]


async def test_settings_follow_each_of_their_variables(t: TestBackend) -> None:
    async def read(ctx: Any) -> Any:
        settings = ctx.env.settings(Settings)
        return settings.greeting, settings.tags, settings.odd_name

    await t.set_env({"STRIPE_KEY": "sk"})
    assert await t.run(read) == ("hello", [], "")
    await t.set_env({"GREETING": "hi"})
    assert await t.run(read) == ("hi", [], "")
    await t.set_env({"GREETING": None, "TAGS": '["a"]', "ODD": "x"})
    assert await t.run(read) == ("hello", ["a"], "x")
    await t.set_env({"STRIPE_KEY": None})
    with pytest.raises(EnvironmentVariableError, match="STRIPE_KEY, which is not set"):
        await t.run(read)


async def test_settings_may_be_spread_over_variables_of_a_prefix(t: TestBackend) -> None:
    class Spread(EnvSettings):
        model_config = SettingsConfigDict(env_prefix="app_", env_nested_delimiter="__")

        limit: Limit

    async def read(ctx: Any) -> int:
        limit: int = ctx.env.settings(Spread).limit.per_minute
        return limit

    await t.set_env({"APP_LIMIT__PER_MINUTE": "5"})
    assert await t.run(read) == 5
    await t.set_env({"APP_LIMIT__PER_MINUTE": "6"})
    assert await t.run(read) == 6


async def test_the_variables_of_the_servers_own_process_do_not_count(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRIPE_KEY", "of the process")
    with pytest.raises(EnvironmentVariableError, match="STRIPE_KEY, which is not set"):
        await t.query(environment.greeting)
    assert await t.query(environment.read, name="PATH") is None


async def test_a_failure_to_read_one_is_opaque_to_clients_in_production(t: TestBackend) -> None:
    outcome = await call(t, "query", "environment:require", production=True, name="STRIPE_KEY")
    assert outcome.error is not None and "STRIPE_KEY" not in outcome.error.message


@pytest.mark.parametrize("changes", [{"STRIPE_KEY": None}, {"GREETING": "ho"}])
async def test_what_the_settings_need_can_neither_be_removed_nor_set_to_what_does_not_fit(
    t: TestBackend, changes: Mapping[str, str | None]
) -> None:
    await t.set_env({"STRIPE_KEY": "sk", "GREETING": "hi"})
    with pytest.raises(EnvironmentVariableError, match="environment variable"):
        await change_variables(t._engine, changes, check=partial(check_settings, [Settings]))
    await change_variables(t._engine, {"STRIPE_KEY": "sk_2", "GREETING": None}, check=partial(check_settings, [Settings]))
    assert variables(t._engine) == {"STRIPE_KEY": "sk_2"}
