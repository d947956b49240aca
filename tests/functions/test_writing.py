"""Inserting, patching, replacing and deleting documents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from reactor import ABSENT, AppError, Document, DocumentNotFound, Id, IdError, MutationCtx, ReactorError, SchemaError
from reactor.functions.database import Reader, Writer
from reactor.testing import TestBackend
from tests.functions.app.schema import Address, Item, Person
from tests.functions.support import fill, ranks

pytestmark = pytest.mark.anyio

ADA = Person(name="Ada", nick="Countess", age=36, mood="calm", address=Address(city="London", street="Dorset"))


async def stored(ctx: MutationCtx, id: Id[Any]) -> dict[str, Any]:
    """The document's fields as they are kept."""
    document: Document | None = await ctx.db.get(id)
    assert document is not None
    fields: dict[str, Any] = orjson.loads(document.__dict__["_json"])
    del fields["_id"], fields["_creationTime"]
    return fields


async def test_inserts_of_a_mutation_have_growing_creation_times_from_its_start(t: TestBackend) -> None:
    async def insert(ctx: MutationCtx) -> None:
        times = []
        for rank in range(5):
            document = await ctx.db.get(await ctx.db.insert(Item(list="a", rank=rank)))
            assert document is not None
            times.append(document.creation_time)
        assert times == sorted(set(times))
        assert times[0] == ctx.now and times[-1] < ctx.now + 0.01

    await t.run(insert)


async def test_a_document_that_was_made_and_not_read_has_no_id_or_creation_time() -> None:
    with pytest.raises(ReactorError, match="This Item has not an id yet"):
        _ = Item(list="a", rank=1).id
    with pytest.raises(ReactorError, match="creation time"):
        _ = Item(list="a", rank=1).creation_time


FULL = {"name": "Ada", "nick": "Countess", "age": 36, "mood": "calm", "address": {"city": "London", "street": "Dorset"}}


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({}, FULL),
        ({"name": "Lovelace"}, {**FULL, "name": "Lovelace"}),
        ({"age": 37}, {**FULL, "age": 37}),
        ({"nick": None}, {key: value for key, value in FULL.items() if key != "nick"}),
        ({"nick": ABSENT}, {key: value for key, value in FULL.items() if key != "nick"}),
        ({"age": None}, {**FULL, "age": None}),
        ({"mood": None}, {**FULL, "mood": None}),
        ({"mood": ABSENT}, {key: value for key, value in FULL.items() if key != "mood"}),
        ({"address": Address(city="Paris")}, {**FULL, "address": {"city": "Paris"}}),
        ({"address": None, "nick": "A"}, {**{key: value for key, value in FULL.items() if key != "address"}, "nick": "A"}),
    ],
)
async def test_a_patch_sets_the_fields_given_and_removes_those_that_may_be_absent(
    t: TestBackend, patch: dict[str, Any], expected: dict[str, Any]
) -> None:
    async def change(ctx: MutationCtx) -> Id[Person]:
        id = await ctx.db.insert(ADA)
        before = await ctx.db.get(id)
        await ctx.db.patch(id, **patch)
        after = await ctx.db.get(id)
        assert before is not None and after is not None
        assert (after.id, after.creation_time) == (before.id, before.creation_time)
        assert await stored(ctx, id) == expected
        return id

    id = await t.run(change)
    assert await t.run(lambda ctx: stored(ctx, id)) == expected


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        ({"color": "red"}, "there is no field 'color'. The fields are: name, nick, age, mood, address."),
        ({"name": None}, "name"),
        ({"name": ABSENT}, "name"),
        ({"name": 5}, "name"),
        ({"age": "36"}, "age"),
        ({"age": ABSENT}, "age"),
        ({"address": {"street": "Dorset"}}, "address.city"),
        ({"address": {"city": "London", "zip": "1"}}, "address.zip"),
        ({"nick": object()}, "nick"),
        ({"nick": "\ud800"}, "lone surrogate"),
    ],
)
async def test_a_patch_whose_result_does_not_fit_is_refused_and_changes_nothing(t: TestBackend, patch: dict[str, Any], text: str) -> None:
    id = await t.run(lambda ctx: ctx.db.insert(ADA))

    async def change(ctx: MutationCtx) -> None:
        with pytest.raises(SchemaError) as refused:
            await ctx.db.patch(id, **patch)
        assert "table 'people'" in refused.value.message and text in refused.value.message
        assert await stored(ctx, id) == FULL

    await t.run(change)


async def test_replace_keeps_id_and_creation_time_and_nothing_else(t: TestBackend) -> None:
    id = await t.run(lambda ctx: ctx.db.insert(ADA))

    async def change(ctx: MutationCtx) -> None:
        before = await ctx.db.get(id)
        await ctx.db.replace(id, Person(name="Grace", age=None))
        after = await ctx.db.get(id)
        assert before is not None and after is not None
        assert (after.id, after.creation_time) == (before.id, before.creation_time)
        assert (after.nick, after.age, after.mood, after.address) == (None, None, ABSENT, None)

    await t.run(change)
    assert await t.run(lambda ctx: stored(ctx, id)) == {"name": "Grace", "age": None}


async def test_a_document_that_was_read_can_be_given_to_replace(t: TestBackend) -> None:
    first, second = await fill(t, "a", 1, 2)

    async def change(ctx: MutationCtx) -> None:
        document = await ctx.db.get(first)
        assert document is not None
        await ctx.db.replace(first, document.model_copy(update={"rank": 7.0}))
        await ctx.db.replace(second, document)

    await t.run(change)
    assert await ranks(t) == [1, 7]
    found = await t.query("items:get", item=second)
    assert found["_id"] == second


async def test_the_absent_and_the_null_are_found_by_their_indexes(t: TestBackend) -> None:
    async def insert(ctx: MutationCtx) -> None:
        for name, fields in {
            "absent": {},
            "null": {"mood": None},
            "set": {"mood": "calm", "nick": "S", "address": {"city": "Rome"}},
        }.items():
            await ctx.db.insert(Person(name=name, age=None, **fields))  # type: ignore[arg-type]

        async def names(source: Any) -> list[str]:
            return [person.name for person in await ctx.db.query(source).collect()]

        assert await names(Person.by_mood(mood=ABSENT)) == ["absent"]
        assert await names(Person.by_mood(mood=None)) == ["null"]
        assert await names(Person.by_mood()) == ["absent", "null", "set"]
        assert await names(Person.by_nick(nick=None)) == ["absent", "null"]
        assert await names(Person.by_nick(nick="S")) == ["set"]
        assert await names(Person.by_age(age=None)) == ["absent", "null", "set"]
        assert await names(Person.by_city(address__city="Rome")) == ["set"]

    await t.run(insert)


async def test_what_is_not_there_cannot_be_changed(t: TestBackend) -> None:
    (item,) = await fill(t, "a", 1)

    async def change(ctx: MutationCtx) -> None:
        await ctx.db.delete(item)
        attempts: dict[str, Callable[[], Awaitable[None]]] = {
            "patch": lambda: ctx.db.patch(item, rank=2),
            "replace": lambda: ctx.db.replace(item, Item(list="a", rank=2)),
            "delete": lambda: ctx.db.delete(item),
        }
        for verb, attempt in attempts.items():
            with pytest.raises(DocumentNotFound, match=f"^{verb}: there is no document {item}"):
                await attempt()
        assert await ctx.db.get(item) is None
        raise AppError("undone")

    with pytest.raises(AppError):
        await t.run(change)
    assert await ranks(t) == [1]
    await t.mutation("items:remove", item=item)
    with pytest.raises(DocumentNotFound):
        await t.mutation("items:remove", item=item)


async def test_a_document_is_not_replaced_by_one_of_another_class(t: TestBackend) -> None:
    (item,) = await fill(t, "a", 1)
    with pytest.raises(SchemaError, match="of table 'items', the new document is a Person"):
        await t.run(lambda ctx: ctx.db.replace(item, ADA))  # type: ignore[misc]
    with pytest.raises(IdError):
        await t.run(lambda ctx: ctx.db.delete(Id("no id")))


async def test_a_query_has_nothing_to_write_with(t: TestBackend) -> None:
    for name in ("insert", "patch", "replace", "delete"):
        assert not hasattr(Reader, name) and not hasattr(Reader.__new__(Reader), name)
        assert hasattr(Writer, name)


async def test_a_write_that_changes_nothing_is_no_write(t: TestBackend) -> None:
    (item,) = await fill(t, "a", 1)

    async def change(ctx: MutationCtx) -> None:
        await ctx.db.patch(item, rank=1.0)
        await ctx.db.patch(item, rank=1)
        await ctx.db.patch(item)
        await ctx.db.replace(item, Item(list="a", rank=1))
        assert ctx.db._tx.usage.documents_written == 0
        await ctx.db.patch(item, rank=2)
        await ctx.db.patch(item, rank=1)
        made = await ctx.db.insert(Item(list="a", rank=5))
        await ctx.db.delete(made)
        assert ctx.db._tx.writes() == ()

    await t.run(change)
    assert await ranks(t) == [1]
