"""Row-level rules: what may be read is all that is seen, what may not be written is not."""

from __future__ import annotations

from typing import Any

import pytest

from reactor import AccessDenied, Document, DocumentNotFound, Id, MutationCtx, QueryError, ReactorError, Rules, SchemaError
from reactor.testing import TestBackend
from tests.functions.app.app_functions import ruled
from tests.functions.app.schema import Item, Person
from tests.functions.support import call, fill

pytestmark = pytest.mark.anyio


async def stored(t: TestBackend) -> dict[str, list[float]]:
    async def look(ctx: MutationCtx) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        async for item in ctx.db.query(Item.by_list()):
            found.setdefault(item.list, []).append(item.rank)
        return found

    return await t.run(look)


async def test_every_way_of_reading_leaves_out_what_may_not_be_read(t: TestBackend) -> None:
    ids = await fill(t, "ann", 0, 2, 3) + await fill(t, "bob", 0, 1, 2)

    async def add(ctx: MutationCtx) -> None:
        await ctx.db.insert(Person(name="x", age=1))

    await t.run(add)
    seen = await t.with_identity("ann").query("ruled:by_each_way", ids=ids)
    assert seen == {
        "get": [0, 2, 3, 0],
        "get_text": [0, 2, 3, 0],
        "collect": [0, 0, 2, 3],
        "desc": [3, 2, 0, 0],
        "take": [0, 0],
        "first": 0,
        "unique": 2,
        "count": 4,
        "filter": [2, 3],
        "for": [0, 0, 2, 3],
        "people": 1,
    }
    nobody = await t.query("ruled:by_each_way", ids=ids)
    assert (nobody["get"], nobody["collect"], nobody["unique"], nobody["count"]) == ([0, 0], [0, 0], None, 2)


async def test_pages_are_filled_with_what_may_be_read(t: TestBackend) -> None:
    for rank in range(1, 21):
        await fill(t, "ann" if rank % 4 == 0 else "bob", rank)
    ann = t.with_identity("ann")
    found: list[list[float]] = []
    cursor, done = None, False
    while not done:
        page = await ann.query("ruled:page", paginationOpts={"numItems": 2, "cursor": cursor})
        found.append([item["rank"] for item in page["page"]])
        cursor, done = page["continueCursor"], page["isDone"]
    assert [ranks for ranks in found if ranks] == [[4, 8], [12, 16], [20]]


async def test_a_live_query_follows_what_its_rules_read(t: TestBackend) -> None:
    ann = t.with_identity("ann")
    async for ranks in ann.subscribe("ruled:ranks"):
        if ranks == [5]:
            break
        assert ranks == []
        await fill(t, "bob", 4)
        await fill(t, "ann", 5)


async def test_what_may_be_inserted_is_inserted_and_nothing_else(t: TestBackend) -> None:
    await t.mutation("ruled:insert", list="a", rank=1)
    with pytest.raises(AccessDenied) as denied:
        await t.mutation("ruled:insert", list="a", rank=-1)
    assert denied.value.data == {"code": "AccessDenied", "operation": "insert", "table": "items"}
    assert await stored(t) == {"a": [1]}


async def test_a_denial_reaches_the_client_with_its_data(t: TestBackend) -> None:
    outcome = await call(t, "mutation", "ruled:insert", production=True, list="a", rank=-1)
    assert outcome.error is not None and outcome.error.data == b'{"code":"AccessDenied","operation":"insert","table":"items"}'


CHANGES: dict[str, dict[str, Any]] = {
    "ruled:patch": {"fields": {"rank": 9.0}},
    "ruled:replace": {"list": "ann", "rank": 9.0},
    "ruled:delete": {},
}


@pytest.mark.parametrize("path", CHANGES)
async def test_what_may_be_modified_is_modified(t: TestBackend, path: str) -> None:
    (id,) = await fill(t, "ann", 1)
    await t.with_identity("ann").mutation(path, id=id, **CHANGES[path])
    assert await stored(t) == ({} if path == "ruled:delete" else {"ann": [9]})


@pytest.mark.parametrize("path", CHANGES)
async def test_what_may_be_read_but_not_modified_is_denied(t: TestBackend, path: str) -> None:
    (id,) = await fill(t, "bob", 0)
    with pytest.raises(AccessDenied) as denied:
        await t.with_identity("ann").mutation(path, id=id, **CHANGES[path])
    assert denied.value.data["operation"] == "modify"
    assert await stored(t) == {"bob": [0]}


@pytest.mark.parametrize("path", CHANGES)
async def test_what_may_not_be_read_is_said_to_be_missing_just_as_what_is(t: TestBackend, path: str) -> None:
    hidden, gone = await fill(t, "bob", 1, 2)
    await t.run(lambda ctx: ctx.db.delete(gone))
    said = []
    for id in (hidden, gone):
        with pytest.raises(DocumentNotFound) as missing:
            await t.with_identity("ann").mutation(path, id=id, **CHANGES[path])
        said.append(missing.value.message.replace(id, "…"))
    assert said[0] == said[1]
    assert await stored(t) == {"bob": [1]}


async def test_a_rule_sees_what_the_document_is_to_become(t: TestBackend) -> None:
    (id,) = await fill(t, "ann", 1)
    ann = t.with_identity("ann")
    for path, args in (("ruled:patch", {"fields": {"list": "bob"}}), ("ruled:replace", {"list": "bob", "rank": 1.0})):
        with pytest.raises(AccessDenied):
            await ann.mutation(path, id=id, **args)
    with pytest.raises(SchemaError, match="does not fit"):
        await ann.mutation("ruled:patch", id=id, fields={"rank": "high"})
    assert await stored(t) == {"ann": [1]}


async def test_what_is_no_value_is_refused_as_without_rules(t: TestBackend) -> None:
    (id,) = await fill(t, "ann", 1)
    said = []
    for path in ("ruled:writes_half_a_pair", "ruled:replaces_with_half_a_pair"):
        for by_rule in (False, True):
            with pytest.raises(SchemaError, match="lone surrogate") as refused:
                await t.with_identity("ann").mutation(path, id=id, ruled=by_rule)
            said.append((refused.value.code, "table 'items'" in refused.value.message))
    assert set(said) == {("InvalidValue", True)}


async def test_rules_read_through_the_db_without_rules(t: TestBackend) -> None:
    (id, _) = await fill(t, "ann", 1, 100)
    with pytest.raises(AccessDenied):
        await t.with_identity("ann").mutation("ruled:delete", id=id)


async def test_what_was_denied_is_not_written_whatever_the_function_does(t: TestBackend) -> None:
    (id,) = await fill(t, "ann", 1)
    assert await t.with_identity("ann").mutation("ruled:goes_on", id=id) == "AccessDenied"
    assert await stored(t) == {"ann": [1], "log": [1]}


async def test_what_has_no_rule_is_allowed_or_denied(t: TestBackend) -> None:
    assert await t.mutation(ruled.strict) == ["None", "0", "insert"]


async def test_a_rule_without_a_third_parameter_gets_the_document_as_it_is(t: TestBackend) -> None:
    async def grow(ctx: MutationCtx) -> list[str]:
        db = ruled.rules.wrap(ctx)
        child, adult = await db.insert(Person(name="c", age=3)), await db.insert(Person(name="a", age=30))
        await db.patch(adult, age=3)
        try:
            await db.patch(child, age=30)
        except AccessDenied as denied:
            return [denied.code]
        return []

    assert await t.run(grow) == ["AccessDenied"]


async def test_a_rule_answers_true_or_false(t: TestBackend) -> None:
    rules = Rules()

    @rules.read(Item)
    def loose(ctx: Any, item: Item) -> Any:
        return item.rank

    await fill(t, "a", 1)
    for read in (lambda db: db.query(Item).collect(), lambda db: db.query(Item).first()):
        with pytest.raises(QueryError, match=r"read rule of Item returned 1\.0"):
            await t.run(lambda ctx, read=read: read(rules.wrap(ctx)))  # type: ignore[misc]


async def test_a_db_with_rules_ends_with_its_function(t: TestBackend) -> None:
    kept: list[Any] = []

    async def keep(ctx: MutationCtx) -> None:
        kept.append(ruled.rules.wrap(ctx))

    await t.run(keep)
    with pytest.raises(ReactorError):
        await kept[0].get(Id("x" * 32))
    (id,) = await fill(t, "ann", 0)
    with pytest.raises(ReactorError):
        await kept[0].get(id)


def test_rules_that_cannot_be_are_refused() -> None:
    class Loose(Document):
        text: str

    rules = Rules()
    rules.read(Item)(lambda ctx, item: True)
    with pytest.raises(SchemaError, match="has a rule for read already"):
        rules.read(Item)(lambda ctx, item: True)
    with pytest.raises(SchemaError, match="takes 3 parameters"):
        rules.insert(Item)(lambda ctx, item, after: True)  # type: ignore[misc, arg-type]
    with pytest.raises(SchemaError, match="Loose has none"):
        rules.read(Loose)
    with pytest.raises(SchemaError, match="'allow' or 'deny'"):
        Rules(otherwise="maybe")  # type: ignore[arg-type]
