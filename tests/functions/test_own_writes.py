"""What a mutation wrote is seen by all that it reads afterwards, as if it were committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reactor import Id, IndexRange, MutationCtx, gte, lt
from reactor.testing import TestBackend
from tests.functions.app.schema import Item
from tests.functions.support import APP
from tests.support.examples import examples

LISTS = st.sampled_from(["a", "b"])
RANKS = st.integers(0, 3).map(float)
AT = st.integers(0, 20)


@dataclass
class Known:
    """A document as the model has it."""

    id: Id[Item]
    created: float
    list: str
    rank: float

    @property
    def shown(self) -> tuple[str, str, float]:
        return (self.id, self.list, self.rank)


Model = list[Known]

#: What is read, the documents that belong to it, and its key.
READS: list[tuple[Callable[[], Any], Callable[[Known], bool], Callable[[Known], Any]]] = [
    (lambda: Item, lambda known: True, lambda known: (known.created, known.id)),
    (lambda: Item.by_id(), lambda known: True, lambda known: known.id),
    (lambda: Item.by_rank(), lambda known: True, lambda known: (known.rank, known.created, known.id)),
    (lambda: Item.by_rank(rank=gte(1) & lt(3)), lambda known: 1 <= known.rank < 3, lambda known: (known.rank, known.created, known.id)),
    (lambda: Item.by_list(list="a"), lambda known: known.list == "a", lambda known: (known.rank, known.created, known.id)),
    (lambda: Item.by_list(list="b", rank=2), lambda known: known.list == "b" and known.rank == 2, lambda known: (known.created, known.id)),
]

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), LISTS, RANKS),
        st.tuples(st.just("patch"), AT, RANKS),
        st.tuples(st.just("replace"), AT, LISTS, RANKS),
        st.tuples(st.just("delete"), AT),
        st.tuples(st.just("check")),
    ),
    max_size=12,
)


async def write(ctx: MutationCtx, model: Model, step: tuple[Any, ...]) -> None:
    """Do one step to the database and to the model."""
    match step:
        case ("insert", name, rank):
            id = await ctx.db.insert(Item(list=name, rank=rank))
            document = await ctx.db.get(id)
            assert document is not None
            model.append(Known(id, document.creation_time, name, rank))
        case ("patch", at, rank) if model:
            known = model[at % len(model)]
            await ctx.db.patch(known.id, rank=rank)
            known.rank = rank
        case ("replace", at, name, rank) if model:
            known = model[at % len(model)]
            await ctx.db.replace(known.id, Item(list=name, rank=rank))
            known.list, known.rank = name, rank
        case ("delete", at) if model:
            known = model.pop(at % len(model))
            await ctx.db.delete(known.id)
            assert await ctx.db.get(known.id) is None
        case ("check",):
            await check(ctx, model)


def shown(item: Item) -> tuple[str, str, float]:
    return (item.id, item.list, item.rank)


async def check(ctx: MutationCtx, model: Model) -> None:
    """Everything that can be read says what the model says."""
    for known in model:
        found = await ctx.db.get(known.id)
        assert found is not None and shown(found) == known.shown
    for source, belongs, key in READS:
        read: IndexRange[Item] = source()
        for order in ("asc", "desc"):
            expected = [known.shown for known in sorted(filter(belongs, model), key=key, reverse=order == "desc")]

            def query(read: Any = read, order: Any = order) -> Any:
                return ctx.db.query(read).order(order)

            assert [shown(item) for item in await query().collect()] == expected
            assert [shown(item) for item in await query().take(2)] == expected[:2]
            assert [shown(item) async for item in query()] == expected
            assert await query().count() == len(expected)
            first = await query().first()
            assert (None if first is None else shown(first)) == (expected[0] if expected else None)


@settings(max_examples=examples(30))
@given(committed=STEPS, own=STEPS)
def test_own_writes_are_seen_in_every_kind_of_read_and_both_orders(committed: list[Any], own: list[Any]) -> None:
    async def scenario() -> None:
        model: Model = []

        async def steps(ctx: MutationCtx, steps: list[Any]) -> None:
            for step in steps:
                await write(ctx, model, step)
            await check(ctx, model)

        async with TestBackend(APP) as t:
            await t.run(lambda ctx: steps(ctx, committed))
            await t.run(lambda ctx: steps(ctx, own))
            await t.run(lambda ctx: check(ctx, model))

    asyncio.run(scenario())


@settings(max_examples=examples(20))
@given(rows=st.lists(RANKS, max_size=8), own=st.lists(RANKS, min_size=1, max_size=8), after=st.integers(0, 4))
def test_what_is_inserted_while_iterating_is_found_when_it_lies_ahead(rows: list[float], own: list[float], after: int) -> None:
    async def scenario() -> None:
        async with TestBackend(APP) as t:

            async def prepare(ctx: MutationCtx) -> None:
                for rank in rows:
                    await ctx.db.insert(Item(list="a", rank=rank))

            async def iterate(ctx: MutationCtx) -> None:
                found: list[float] = []
                passed: float | None = None
                async for item in ctx.db.query(Item.by_rank()):
                    found.append(item.rank)
                    if len(found) == after + 1:
                        passed = item.rank
                        for rank in own:
                            await ctx.db.insert(Item(list="a", rank=rank))
                ahead = [] if passed is None else [rank for rank in own if rank >= passed]
                assert sorted(found) == found
                assert sorted(found) == sorted(rows + ahead)

            await t.run(prepare)
            await t.run(iterate)

    asyncio.run(scenario())
