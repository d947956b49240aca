"""Results of queries that are asked for once: computed anew only when they could have changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from reactor.engine.engine import Engine
from reactor.engine.transaction import Transaction
from tests.engine.support import ITEMS, Result, Run, Watch, item, mutation, opened, putting, running
from tests.support.databases import Databases


def reading(number: int, **given: object) -> Run:
    async def run(tx: Transaction, journal: str | None) -> Result:
        row = await tx.get(ITEMS, item(number))
        return replace(Result(() if row is None else (row.json,)), **given)  # type: ignore[arg-type]

    return run


async def once(engine: Engine, run: Run, key: object = "query", identity: object = None) -> Result:
    pin = engine.pin()
    try:
        return await engine.live.once(key, identity, run, pin)
    finally:
        pin.release()


def runs_of(databases: Databases, body: object) -> int:
    """How often queries run while ``body`` goes on."""

    async def main() -> int:
        async with opened(databases) as store, running(store) as engine:
            await mutation(engine, putting(1))
            await body(engine)  # type: ignore[operator]
            engine.live.check_invariants()
            return engine.live.runs

    return asyncio.run(main())


def test_a_result_is_kept_until_a_commit_touches_what_it_read(databases: Databases) -> None:
    async def body(engine: Engine) -> None:
        first = await once(engine, reading(1))
        await mutation(engine, putting(2))
        assert await once(engine, reading(1)) is first
        await mutation(engine, putting(1, rank=5.0))
        assert engine.live.runs == 1, "a commit alone runs nothing"
        second = await once(engine, reading(1))
        assert second.value != first.value

    assert runs_of(databases, body) == 2


@pytest.mark.parametrize("given", [{"lasting": False}])
def test_what_does_not_last_is_given_to_nobody_else(databases: Databases, given: dict[str, object]) -> None:
    async def body(engine: Engine) -> None:
        await once(engine, reading(1, **given))
        await once(engine, reading(1, **given))

    assert runs_of(databases, body) == 2


def test_a_result_that_looked_at_the_identity_is_that_callers_alone(databases: Databases) -> None:
    async def body(engine: Engine) -> None:
        for identity in ("ada", "grace", "ada"):
            await once(engine, reading(1, identity_used=True), identity=identity)

    assert runs_of(databases, body) == 2


def test_who_watches_and_who_asks_once_do_not_share(databases: Databases) -> None:
    async def body(engine: Engine) -> None:
        watch = Watch(engine, reading(1))
        await watch.now()
        await once(engine, reading(1))
        assert len(engine.live) == 1
        watch.subscription.close()
        assert len(engine.live) == 0

    assert runs_of(databases, body) == 2


def test_the_oldest_results_go_when_there_are_too_many(databases: Databases) -> None:
    async def main() -> None:
        async with opened(databases) as store, running(store, results_cached=3) as engine:
            for number in range(5):
                await once(engine, reading(number), key=number)
            assert engine.live.runs == 5
            for number in (4, 3, 2):
                await once(engine, reading(number), key=number)
            assert engine.live.runs == 5
            await once(engine, reading(0), key=0)
            assert engine.live.runs == 6

    asyncio.run(main())


def test_a_run_that_raises_is_not_kept(databases: Databases) -> None:
    async def fails(tx: Transaction, journal: str | None) -> Result:
        raise RuntimeError("a bug")

    async def body(engine: Engine) -> None:
        with pytest.raises(RuntimeError):
            await once(engine, fails)
        await once(engine, reading(1))

    assert runs_of(databases, body) == 1
