"""Rate limits: what is spent, when there is more, and what a failed mutation leaves."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from reactor import AppError, Document, MutationCtx, ReactorError, SchemaError
from reactor.contrib.rate_limits import FixedWindow, RateLimitBucket, RateLimited, TokenBucket
from reactor.testing import TestBackend

pytestmark = pytest.mark.anyio


async def spend(t: TestBackend, limit: str, key: str = "", **options: Any) -> Any:
    return await t.mutation("limited:spend", limit=limit, key=key, **options)


async def refused(t: TestBackend, limit: str, key: str = "", count: float = 1) -> float:
    """After how many seconds to come back."""
    with pytest.raises(RateLimited) as error:
        await spend(t, limit, key, count=count)
    return error.value.retry_after_s


async def buckets(t: TestBackend) -> list[RateLimitBucket]:
    async def all_of(ctx: MutationCtx) -> list[RateLimitBucket]:
        return await ctx.db.query(RateLimitBucket).collect()

    return await t.run(all_of)


# --- kinds


async def test_a_token_bucket_gives_its_capacity_at_once_and_then_evenly(t: TestBackend) -> None:
    assert [await spend(t, "bucket") for _ in range(10)] == [*range(9, -1, -1)]
    assert await refused(t, "bucket") == 10
    await t.advance(seconds=9.9)
    assert await refused(t, "bucket") == pytest.approx(0.1)
    await t.advance(seconds=0.1)
    assert await spend(t, "bucket") == pytest.approx(0, abs=1e-6)
    await t.advance(hours=5)
    assert await spend(t, "bucket") == 9


async def test_whoever_comes_back_when_told_is_let_in(t: TestBackend) -> None:
    await spend(t, "plain", count=3)
    for count in (1, 0.7, 2.3, 3, 1 / 3):
        told = (await error_data(t, "plain", count))["retryAfter"]
        await t.advance(milliseconds=told - 1)
        await refused(t, "plain", count=count)
        await t.advance(milliseconds=1)
        await spend(t, "plain", count=count)


async def error_data(t: TestBackend, limit: str, count: float) -> Any:
    with pytest.raises(AppError) as error:
        await spend(t, limit, count=count)
    return error.value.data


async def test_a_fixed_window_gives_all_at_its_beginning(t: TestBackend) -> None:
    await t.advance(seconds=50)
    await spend(t, "window", count=5)
    assert await refused(t, "window") == 10
    await t.advance(seconds=10)
    assert await spend(t, "window", count=2) == 3
    await t.advance(seconds=59.999)
    assert await refused(t, "window", count=4) == pytest.approx(0.001)
    await t.advance(seconds=0.001)
    assert await spend(t, "window") == 4


# --- keys and counts


async def test_each_key_and_each_limit_has_its_own_tokens(t: TestBackend) -> None:
    await spend(t, "plain", "ann", count=3)
    await refused(t, "plain", "ann")
    assert await spend(t, "plain", "bob", count=3) == await spend(t, "plain", count=3) == 0
    assert await spend(t, "window", "ann") == 4


async def test_the_client_gets_name_and_time(t: TestBackend) -> None:
    await spend(t, "plain", count=3)
    assert await error_data(t, "plain", 1) == {"kind": "RateLimited", "name": "plain", "retryAfter": 20_000.0}


async def test_a_mutation_may_catch_it_and_carry_on(t: TestBackend) -> None:
    assert await t.mutation("limited:carries_on") == 60
    await refused(t, "plain")


@pytest.mark.parametrize("count", [0, -1, 3.5, float("nan"), float("inf")])
async def test_a_count_that_cannot_be_spent_is_refused_by_name(t: TestBackend, count: float) -> None:
    with pytest.raises(ReactorError, match="can spend up to 3 tokens") as error:
        await spend(t, "plain", count=count)
    assert error.value.code == "BadRateLimit" and await buckets(t) == []


async def test_a_key_that_is_too_long_is_refused(t: TestBackend) -> None:
    await spend(t, "plain", "k" * 200)
    with pytest.raises(ReactorError, match="at most 200 characters"):
        await spend(t, "plain", "k" * 201)


# --- transactions


async def test_a_mutation_that_fails_has_spent_nothing(t: TestBackend) -> None:
    with pytest.raises(AppError, match="afterwards"):
        await spend(t, "plain", count=3, fail=True)
    assert await spend(t, "plain", count=3) == 0


@pytest.mark.parametrize(("limit", "tokens"), [("bucket", 10), ("window", 5), ("sharded", 40), ("sharded window", 40)])
async def test_no_more_is_spent_at_one_time_than_there_is(t: TestBackend, limit: str, tokens: int) -> None:
    outcomes = await asyncio.gather(*(spend(t, limit) for _ in range(tokens + 20)), return_exceptions=True)
    assert sum(isinstance(outcome, RateLimited) for outcome in outcomes) == 20
    assert len(outcomes) == tokens + 20


# --- shards


@pytest.mark.parametrize("limit", ["sharded", "sharded window"])
async def test_a_sharded_limit_refuses_only_when_no_shard_has_enough(t: TestBackend, limit: str) -> None:
    assert await t.mutation("limited:spend_while_it_goes", limit=limit) == 40
    assert {bucket.shard for bucket in await buckets(t)} == {0, 1, 2, 3}
    assert 0 < await refused(t, limit) <= 60


async def test_spending_is_spread_over_the_shards(t: TestBackend) -> None:
    for _ in range(20):
        await spend(t, "sharded")
    assert all(2 <= bucket.tokens <= 8 for bucket in await buckets(t)) and len(await buckets(t)) == 4


async def test_a_call_spends_no_more_than_a_shard_has(t: TestBackend) -> None:
    await spend(t, "sharded", count=10)
    with pytest.raises(ReactorError, match="up to 10 tokens"):
        await spend(t, "sharded", count=11)


# --- besides


async def test_checking_spends_nothing(t: TestBackend) -> None:
    for _ in range(5):
        assert await t.query("limited:check", limit="plain", count=3) == {"ok": True, "remaining": 3.0, "retry_after_s": 0.0}
    await spend(t, "plain", count=2)
    assert await t.query("limited:check", limit="plain", count=3) == {"ok": False, "remaining": 1.0, "retry_after_s": 40.0}


async def test_a_reset_gives_a_key_its_tokens_back(t: TestBackend) -> None:
    for key in ("ann", "bob"):
        await spend(t, "plain", key, count=3)
    await t.mutation("limited:reset", limit="plain", key="ann")
    assert await spend(t, "plain", "ann") == 2
    await refused(t, "plain", "bob")


async def test_pruning_removes_the_buckets_that_are_full_again(t: TestBackend) -> None:
    for key in ("a", "b", "c"):
        await spend(t, "bucket", key, count=10)
    await t.advance(seconds=100)
    await spend(t, "bucket", "c", count=10)
    await spend(t, "window", "a")
    await t.advance(seconds=21)
    assert [await t.mutation("limited:prune", limit="bucket", most=1) for _ in range(3)] == [1, 1, 0]
    assert [(bucket.limit, bucket.key) for bucket in await buckets(t)] == [("bucket", "c"), ("window", "a")]


async def test_a_clock_that_is_behind_gives_no_tokens(t: TestBackend) -> None:
    await t.advance(hours=1)
    await spend(t, "plain", count=3)
    t.runtime.advance(timedelta(minutes=-30))  # another node's clock
    await refused(t, "plain")
    await t.advance(minutes=30)
    await refused(t, "plain")
    await t.advance(seconds=20)
    await spend(t, "plain")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rate": 0}, "positive numbers"),
        ({"rate": -1}, "positive numbers"),
        ({"rate": float("nan")}, "positive numbers"),
        ({"rate": True}, "positive numbers"),
        ({"rate": "5"}, "positive numbers"),
        ({"per": timedelta()}, "a timedelta above zero"),
        ({"per": 60}, "a timedelta above zero"),
        ({"shards": 0}, "from 1 to 64"),
        ({"shards": 65}, "from 1 to 64"),
        ({"shards": 1.5}, "from 1 to 64"),
        ({"rate": 3, "shards": 4}, "less than one each"),
        ({"name": ""}, "needs a name"),
    ],
)
@pytest.mark.parametrize("kind", [TokenBucket, FixedWindow])
def test_a_limit_that_cannot_be_is_refused_where_it_is_declared(kind: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ReactorError) as error:
        kind(**{"name": "limit", "rate": 100, "per": timedelta(minutes=1), **arguments})
    assert says in error.value.message and error.value.code == "BadRateLimit"


def test_a_capacity_that_cannot_be_is_refused() -> None:
    with pytest.raises(ReactorError, match="positive numbers"):
        TokenBucket("limit", rate=5, per=timedelta(minutes=1), capacity=0)


async def test_a_schema_without_the_table_is_told_what_to_import(t: TestBackend) -> None:
    class Elsewhere(Document, table="elsewhere"):
        text: str

    async def read(ctx: MutationCtx) -> None:
        await ctx.db.query(Elsewhere).collect()

    with pytest.raises(SchemaError, match=r"import it there: from tests\.contrib\.test_rate_limits import Elsewhere"):
        await t.run(read)
