"""Idempotency keys: one effect and one result for a call that is repeated, and for nothing else."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from reactor import AppError, ReactorError
from reactor.contrib.idempotency import Idempotency
from reactor.testing import TestBackend

pytestmark = pytest.mark.anyio


async def pay(t: TestBackend, key: str, amount: float = 5, **more: Any) -> Any:
    from app_functions import repeated

    return await t.mutation(repeated.pay, key=key, amount=amount, **more)


async def count(t: TestBackend) -> Any:
    return await t.mutation("repeated:count")


async def kind(t: TestBackend, key: str, amount: float = 5, **more: Any) -> str:
    with pytest.raises(AppError) as error:
        await pay(t, key, amount, **more)
    return str(error.value.data["kind"])


async def test_a_repeated_call_gets_the_first_result_typed(t: TestBackend) -> None:
    first = await pay(t, "k", notes={"a": 1})
    again = await pay(t, "k", notes={"a": 1})
    assert first == again and type(again).__name__ == "Receipt" and again.notes == ["a"]
    assert await count(t) == 1


async def test_repeats_at_the_same_time_have_one_effect(t: TestBackend) -> None:
    receipts = await asyncio.gather(*(pay(t, "k") for _ in range(10)))
    assert len({receipt.payment for receipt in receipts}) == 1
    assert await count(t) == 1


async def test_other_keys_are_other_calls(t: TestBackend) -> None:
    assert (await pay(t, "a")).payment != (await pay(t, "b")).payment
    assert await count(t) == 2


async def test_keys_are_those_of_one_caller(t: TestBackend) -> None:
    ann, bob = t.with_identity(subject="ann"), t.with_identity(subject="bob")
    payments = {(await pay(who, "k")).payment for who in (t, ann, bob, ann)}
    assert len(payments) == await count(t) == 3


async def test_keys_are_those_of_one_mutation(t: TestBackend) -> None:
    await pay(t, "k")
    assert await t.mutation("repeated:give_back", key="k", amount=5.0) == "xxxxx"
    assert await count(t) == 2


async def test_a_key_with_other_arguments_is_refused(t: TestBackend) -> None:
    await pay(t, "k", notes={"a": 1, "b": 2})
    assert await kind(t, "k", 6) == "IdempotencyKeyReused"
    assert await kind(t, "k", notes={"a": 1}) == "IdempotencyKeyReused"
    await pay(t, "k", notes={"b": 2, "a": 1})
    assert await count(t) == 1


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_that_cannot_be_is_refused(t: TestBackend, key: str) -> None:
    assert await kind(t, key) == "InvalidIdempotencyKey"


async def test_a_call_that_failed_runs_when_its_key_comes_again(t: TestBackend) -> None:
    for _ in range(2):
        with pytest.raises(AppError, match="negative"):
            await pay(t, "k", -1)
    assert (await pay(t, "k", 5)).amount == 5


async def test_a_result_too_large_to_be_kept_undoes_the_call(t: TestBackend) -> None:
    with pytest.raises(ReactorError, match="at most 1048576 are allowed"):
        await t.mutation("repeated:give_back", key="k", amount=1_100_000.0)
    assert await count(t) == 0


async def test_a_key_is_forgotten_when_it_expires(t: TestBackend) -> None:
    await pay(t, "k")
    await t.advance(minutes=59)
    await pay(t, "k")
    assert await count(t) == 1
    await t.advance(minutes=1)
    await pay(t, "k", 7)
    await pay(t, "k", 7)
    assert await count(t) == 2


async def test_pruning_removes_expired_keys_only(t: TestBackend) -> None:
    for key in ("a", "b"):
        await pay(t, key)
    await t.advance(minutes=60)
    await pay(t, "c")
    assert [await t.mutation("repeated:prune", most=1) for _ in range(3)] == [1, 1, 0]
    await pay(t, "c")
    assert await count(t) == 3


@pytest.mark.parametrize("expires_in", [timedelta(), timedelta(seconds=-1), 60])
def test_a_time_that_cannot_be_is_refused(expires_in: Any) -> None:
    with pytest.raises(ReactorError, match="a timedelta above zero"):
        Idempotency(expires_in=expires_in)
