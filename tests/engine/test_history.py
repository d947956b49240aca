"""Reads of the past, and how far back they go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactor.engine import history
from reactor.engine.engine import READS_OF_THE_PAST, Engine
from reactor.engine.store import LogEntry, RequestKey, Ts
from reactor.engine.transaction import Transaction
from reactor.errors import LimitExceeded, QueryError, StoreError
from reactor.limits import Limits
from reactor.testing import VirtualRuntime
from reactor.values.interval import FULL
from tests.engine.support import CATALOG, ITEMS, GatedStore, adding, item, mutation, opened, putting, rank, running, text
from tests.support.databases import Databases
from tests.support.examples import examples

Fields = tuple[str, float]

DAY_NS = 86_400 * 10**9


class PagedStore(GatedStore):
    """Gives the log two entries at a time."""

    async def log_after(self, ts: Ts, *, until: Ts | None = None, limit: int = 1000) -> list[LogEntry]:
        found: list[LogEntry] = await self._inner.log_after(ts, until=until, limit=2)
        return found


async def everything(tx: Transaction) -> dict[str, list[str]]:
    """All items by every index and both ways, and each by its id."""
    found = {}
    for index in (*ITEMS.indexes, ITEMS.by_id):
        for reverse in (False, True):
            found[f"{index.name} {reverse}"] = [row.json for row in await tx.scan(index, FULL, reverse=reverse).rest()]
    got = [await tx.get(ITEMS, item(number)) for number in range(5)]
    return found | {"get": [row.json for row in got if row is not None]}


def expected(model: Mapping[int, Fields]) -> dict[str, list[str]]:
    orders: dict[str, Any] = {
        "by_creation_time": lambda it: it[0],
        "by_id": lambda it: it[0],
        "by_list": lambda it: (*it[1], it[0]),
        "by_rank": lambda it: (it[1][1], it[0]),
    }
    found = {}
    for name, key in orders.items():
        for reverse in (False, True):
            found[f"{name} {reverse}"] = [text(item(n), *fields) for n, fields in sorted(model.items(), key=key, reverse=reverse)]
    return found | {"get": [text(item(number), *fields) for number, fields in sorted(model.items())]}


CHANGES = st.dictionaries(
    st.integers(0, 4), st.none() | st.tuples(st.sampled_from("ab"), st.integers(0, 3).map(float)), min_size=1, max_size=3
)


@settings(max_examples=examples(25))
@given(st.lists(CHANGES, max_size=7))
def test_what_is_read_of_the_past_is_what_was_there(databases: Databases, commits: list[dict[int, Fields | None]]) -> None:
    async def play() -> None:
        async with opened(databases) as store, running(PagedStore(store._inner)) as engine:
            past: list[tuple[Ts, dict[int, Fields]]] = [(engine.head_ts, {})]
            for changes in commits:
                await mutation(engine, lambda tx, changes=changes: _write(tx, changes))  # type: ignore[misc]
                model = {n: f for n, f in (past[-1][1] | changes).items() if f is not None}
                past.append((engine.head_ts, model))
            for ts, model in past:
                found, at = await engine.query(everything, at=ts)
                assert (found, at) == (expected(model), ts)

    asyncio.run(play())


async def _write(tx: Transaction, changes: Mapping[int, Fields | None]) -> None:
    for number, fields in changes.items():
        row = await tx.get(ITEMS, item(number))
        if fields is not None:
            await putting(number, *fields)(tx)
        elif row is not None:
            tx.write(ITEMS, row.id, row, None, (), 0)


@pytest.mark.anyio
async def test_a_ts_that_has_not_come_cannot_be_read(store: GatedStore) -> None:
    async with running(store) as engine:
        await mutation(engine, putting(1))
        with pytest.raises(QueryError) as refused:
            await engine.query(everything, at=Ts(engine.head_ts + 1))
    assert refused.value.code == "TimestampInFuture"


@pytest.mark.anyio
async def test_a_ts_since_when_too_much_was_written_is_refused(store: GatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_TAKEN_BACK", 2)
    async with running(store) as engine:
        start = engine.head_ts
        for number in (1, 2, 1, 2):
            await mutation(engine, adding(number))
        await engine.query(everything, at=start)
        await mutation(engine, putting(3))
        with pytest.raises(LimitExceeded):
            await engine.query(everything, at=start)


@pytest.mark.anyio
async def test_a_ts_since_when_too_many_bytes_were_written_is_refused(store: GatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAX_TAKEN_BACK_BYTES", 1000)
    async with running(store) as engine:
        await mutation(engine, putting(1, "x" * 1000))
        start = engine.head_ts
        await mutation(engine, putting(2))
        await engine.query(everything, at=start)
        await mutation(engine, putting(1))
        with pytest.raises(LimitExceeded):
            await engine.query(everything, at=start)


@pytest.mark.anyio
async def test_reads_of_the_past_let_others_run_and_are_few_at_a_time(store: GatedStore) -> None:
    at_once = most = turns = 0

    async def look(tx: Transaction) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1

    async def others(reading: asyncio.Future[Any]) -> None:
        nonlocal turns
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)

    async with running(store) as engine:
        start = engine.head_ts
        for _ in range(3 * history.STEP):
            await mutation(engine, adding(1))
        reading = asyncio.gather(*(engine.query(look, at=start) for _ in range(20)))
        await others(reading)
        assert turns >= 10
        assert most <= READS_OF_THE_PAST


@pytest.mark.anyio
async def test_what_is_past_its_retention_is_forgotten_and_nothing_else(databases: Databases) -> None:
    store = await databases.open_with(CATALOG)
    runtime = VirtualRuntime(DAY_NS)
    engine = Engine(store, CATALOG, runtime, Limits(log_retention_s=86_400.0, request_retention_s=2 * 86_400.0))
    await engine.start()
    await engine.push(CATALOG)
    try:
        ts = []
        for day in range(4):
            runtime._now_ns = (day + 1) * DAY_NS
            ts.append((await mutation(engine, adding(1), request=RequestKey("session", day))).ts)
        await engine.trim(now_ns=runtime.now_ns() + DAY_NS // 2)
        for at in (2, 3):
            assert (await engine.query(lambda tx: rank(tx, 1), at=ts[at]))[0] == at + 1
        with pytest.raises(StoreError) as refused:
            await engine.query(lambda tx: rank(tx, 1), at=ts[0])
        assert refused.value.code == "LogTrimmed"
        again = [(await mutation(engine, adding(1), request=RequestKey("session", day))).replayed for day in (0, 2, 3)]
        assert again == [False, True, True]
        assert orjson.loads((await engine.query(everything))[0]["get"][0])["rank"] == 5.0
    finally:
        await engine.stop()
        await store.close()
