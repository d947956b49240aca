"""Every way to run a query, over committed documents."""

from __future__ import annotations

from typing import Any

import pytest

from reactor import Id, IdError, IndexRangeError, MutationCtx, QueryError, between, gt, gte, lt, lte
from reactor.functions.database import DocumentQuery
from reactor.testing import TestBackend
from tests.functions.app.schema import Item, Person
from tests.functions.support import fill

pytestmark = pytest.mark.anyio

ORDERS: list[Any] = ["asc", "desc"]


@pytest.mark.parametrize("order", ORDERS)
async def test_every_terminal_reads_in_the_order_asked_for(t: TestBackend, order: Any) -> None:
    await fill(t, "b", 0)
    await fill(t, "a", 3, 1, 2)
    expected = [1, 2, 3] if order == "asc" else [3, 2, 1]

    async def read(ctx: MutationCtx) -> None:
        def query() -> DocumentQuery[Item]:
            return ctx.db.query(Item.by_list(list="a")).order(order)

        first = await query().first()
        assert first is not None and first.rank == expected[0]
        assert [item.rank for item in await query().collect()] == expected
        assert [item.rank for item in await query().take(2)] == expected[:2]
        assert [item.rank for item in await query().take(9)] == expected
        assert await query().take(0) == []
        assert [item.rank async for item in query()] == expected
        assert await query().count() == 3
        odd = query().filter(lambda item: item.rank != 2)
        assert [item.rank for item in await odd.collect()] == [expected[0], expected[2]]
        assert [item.rank for item in await query().filter(lambda item: item.rank != expected[0]).take(1)] == [2]
        assert await query().filter(lambda item: item.rank > 1).filter(lambda item: item.rank < 3).count() == 1
        assert [item.rank async for item in query().filter(lambda item: item.rank == 2)] == [2]

    await t.run(read)


@pytest.mark.parametrize("order", ORDERS)
async def test_unique_takes_none_or_one(t: TestBackend, order: Any) -> None:
    one, *_ = await fill(t, "a", 1, 2, 2)

    async def read(ctx: MutationCtx) -> None:
        assert await ctx.db.query(Item.by_rank(rank=7)).order(order).unique() is None
        found = await ctx.db.query(Item.by_rank(rank=1)).order(order).unique()
        assert found is not None and found.id == one
        with pytest.raises(QueryError, match=r"more than one document in table 'items': \w{31,37}, \w{31,37},") as refused:
            await ctx.db.query(Item.by_rank(rank=2)).order(order).unique()
        assert refused.value.code == "NotUnique"

    await t.run(read)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (lambda: Item, [3, 1, 2, 0]),
        (lambda: Item.by_creation_time(), [3, 1, 2, 0]),
        (lambda: Item.by_rank(), [0, 1, 2, 3]),
        (lambda: Item.by_rank(rank=gt(1)), [2, 3]),
        (lambda: Item.by_rank(rank=gte(1)), [1, 2, 3]),
        (lambda: Item.by_rank(rank=lt(2)), [0, 1]),
        (lambda: Item.by_rank(rank=lte(2)), [0, 1, 2]),
        (lambda: Item.by_rank(rank=between(1, 2)), [1, 2]),
        (lambda: Item.by_rank(rank=gte(1) & lt(3)), [1, 2]),
        (lambda: Item.by_rank(rank=gt(3) & lt(0)), []),
        (lambda: Item.by_rank(rank=-0.0), []),
        (lambda: Item.by_rank(rank=gt("text")), []),
        (lambda: Item.by_rank(rank=lt("text")), [0, 1, 2, 3]),
        (lambda: Item.by_list(list="a"), [1, 2, 3]),
        (lambda: Item.by_list(list="a", rank=2), [2]),
        (lambda: Item.by_list(list=lt("b")), [1, 2, 3]),
        (lambda: Item.by_list(list=gt("a")), [0]),
        (lambda: Item.by_list(list=gt("")), [1, 2, 3, 0]),
    ],
)
async def test_ranges_bound_what_is_read(t: TestBackend, source: Any, expected: list[float]) -> None:
    await fill(t, "a", 3, 1, 2)
    await fill(t, "b", 0)

    async def read(ctx: MutationCtx) -> None:
        for order, wanted in (("asc", expected), ("desc", expected[::-1])):
            assert [item.rank for item in await ctx.db.query(source()).order(order).collect()] == wanted  # type: ignore[arg-type]

    await t.run(read)


async def test_by_id_and_by_creation_time_are_indexes_like_others(t: TestBackend) -> None:
    made = await fill(t, "a", 1, 2, 3)

    async def read(ctx: MutationCtx) -> None:
        second = await ctx.db.query(Item.by_id(id=made[1])).unique()
        assert second is not None and second.rank == 2
        later = ctx.db.query(Item.by_creation_time(creation_time=gt(second.creation_time)))
        assert [item.rank for item in await later.collect()] == [3]
        same = ctx.db.query(Item.by_list(list="a", rank=2, creation_time=lte(second.creation_time)))
        assert [item.id for item in await same.collect()] == [second.id]
        assert [item.id for item in await ctx.db.query(Item.by_id()).collect()] == sorted(made)

    await t.run(read)


def test_an_index_refuses_what_is_no_range_of_it() -> None:
    cases: list[tuple[Any, str, str]] = [
        (lambda: Item.by_list(rank=1), "InvalidIndexRange", "leaves out 'list'"),
        (lambda: Item.by_list(list=gt("a"), rank=1), "BoundsOnMultipleFields", "'list'"),
        (lambda: Item.by_list(color="red"), "FieldNotInIndex", "Item.by_list has no field 'color'"),
        (lambda: Item.by_rank(rank=gt(1) & gte(2)), "AlreadyDefinedBound", "Two lower"),
        (lambda: Item.by_rank(rank=object()), "InvalidIndexRange", "Item.by_rank"),
    ]
    for make, code, text in cases:
        with pytest.raises(IndexRangeError, match=text) as refused:
            make()
        assert refused.value.code == code


async def test_iterating_stops_reading_when_it_is_left(t: TestBackend) -> None:
    await fill(t, "a", *range(100))

    async def read(ctx: MutationCtx) -> None:
        usage = ctx.db._tx.usage
        async for item in ctx.db.query(Item.by_rank()):
            if item.rank == 2:
                break
        assert usage.documents_read == 3

    await t.run(read)


async def test_unique_and_first_read_no_more_than_they_need(t: TestBackend) -> None:
    await fill(t, "a", *range(10))

    async def read(ctx: MutationCtx) -> None:
        usage = ctx.db._tx.usage
        await ctx.db.query(Item).first()
        assert usage.documents_read == 1
        with pytest.raises(QueryError):
            await ctx.db.query(Item).unique()
        assert usage.documents_read == 3
        await ctx.db.query(Item).filter(lambda item: item.rank == 4).first()
        assert usage.documents_read == 8, "those that the filter rejected count"

    await t.run(read)


@pytest.mark.parametrize("answer", [None, 0, 1, "yes", []])
async def test_a_filter_answers_true_or_false(t: TestBackend, answer: Any) -> None:
    await fill(t, "a", 1)
    with pytest.raises(QueryError, match="it has to return True or False") as refused:
        await t.run(lambda ctx: ctx.db.query(Item).filter(lambda item: answer).collect())
    assert refused.value.code == "EvalError"


async def test_a_query_is_run_once_and_its_order_given_once(t: TestBackend) -> None:
    async def misuse(ctx: MutationCtx) -> None:
        query = ctx.db.query(Item)
        await query.first()
        uses: list[Any] = [query.first, query.collect, query.count, query.unique, lambda: query.take(1)]
        for use in uses:
            with pytest.raises(QueryError, match="run before") as refused:
                await use()
            assert refused.value.code == "QueryReused"
        with pytest.raises(QueryError, match="run before"):
            query.__aiter__()
        with pytest.raises(QueryError, match="run before"):
            query.filter(lambda item: True)
        with pytest.raises(QueryError, match="set before"):
            ctx.db.query(Item).order("asc").order("asc")
        with pytest.raises(QueryError, match="'asc' or 'desc'"):
            ctx.db.query(Item).order("up")  # type: ignore[arg-type]
        for n in (-1, True, 1.0):
            with pytest.raises(QueryError, match="non-negative int"):
                await ctx.db.query(Item).take(n)  # type: ignore[arg-type]

    await t.run(misuse)


async def test_ids_of_other_tables_and_texts_that_are_no_ids_are_told_apart(t: TestBackend) -> None:
    (item,) = await fill(t, "a", 1)
    person = await t.run(lambda ctx: ctx.db.insert(Person(name="Ada", age=36)))

    async def read(ctx: MutationCtx) -> None:
        found = await ctx.db.get(Item, str(item))
        assert found is not None and found.rank == 1
        with pytest.raises(IdError, match="Expected an id of table 'items', got an id of table 'people'"):
            await ctx.db.get(Item, person)
        for text in ("", "nonsense", str(item)[:-1], str(item).upper()):
            with pytest.raises(IdError):
                await ctx.db.get(Id[Item](text))
            assert ctx.db.normalize_id(Item, text) is None
        with pytest.raises(IdError, match="Expected an id, got int"):
            await ctx.db.get(5)  # type: ignore[call-overload]
        assert ctx.db.normalize_id(Item, item) == item
        assert ctx.db.normalize_id(Item, person) is None

    await t.run(read)


async def test_a_missing_document_is_read_as_none(t: TestBackend) -> None:
    (item,) = await fill(t, "a", 1)
    await t.mutation("items:remove", item=item)

    async def read(ctx: MutationCtx) -> None:
        assert await ctx.db.get(item) is None
        assert await ctx.db.get(Item, item) is None
        assert ctx.db.normalize_id(Item, item) == item

    await t.run(read)
