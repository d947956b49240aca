"""Functions that reach the database through rules: who calls sees the items of their own list, and those of rank 0."""

from __future__ import annotations

from typing import Annotated, Any

from reactor import (
    AccessDenied,
    Depends,
    Id,
    MutationCtx,
    PaginationOptions,
    PaginationResult,
    QueryCtx,
    Reader,
    Rules,
    Writer,
    mutation,
    query,
)
from tests.functions.app.schema import Blob, Item, Person

rules = Rules()


@rules.read(Item)
async def readable(ctx: QueryCtx, item: Item) -> bool:
    identity = await ctx.auth.identity()
    return item.rank == 0 or (identity is not None and identity.subject == item.list)


@rules.insert(Item)
def insertable(ctx: MutationCtx, item: Item) -> bool:
    return item.rank >= 0


@rules.modify(Item)
async def modifiable(ctx: MutationCtx, item: Item, after: Item | None) -> bool:
    identity = await ctx.auth.require()
    # Reads through the db without rules, where the whole list can be seen.
    frozen = await ctx.db.query(Item.by_list(list=item.list, rank=100)).first()
    return frozen is None and item.list == identity.subject and (after is None or after.list == item.list)


@rules.modify(Person)
async def grown_up(ctx: MutationCtx, person: Person) -> bool:
    return (person.age or 0) >= 18


async def guarded(ctx: QueryCtx) -> Reader:
    return rules.wrap(ctx)


async def guarded_writer(ctx: MutationCtx) -> Writer:
    return rules.wrap(ctx)


Db = Annotated[Reader, Depends(guarded)]
WriteDb = Annotated[Writer, Depends(guarded_writer)]


@query
async def by_each_way(ctx: QueryCtx, ids: list[Id[Item]], db: Db) -> dict[str, Any]:
    """The ranks that each way of reading gives."""

    def query() -> Any:
        return db.query(Item.by_rank())

    first, unique = await query().first(), await db.query(Item.by_rank(rank=2)).unique()
    return {
        "get": [found.rank for id in ids if (found := await db.get(id)) is not None],
        "get_text": [found.rank for id in ids if (found := await db.get(Item, str(id))) is not None],
        "collect": [item.rank for item in await query().collect()],
        "desc": [item.rank for item in await query().order("desc").collect()],
        "take": [item.rank for item in await query().take(2)],
        "first": first and first.rank,
        "unique": unique and unique.rank,
        "count": await query().count(),
        "filter": [item.rank for item in await query().filter(lambda item: item.rank > 1).collect()],
        "for": [item.rank async for item in query()],
        "people": len(await db.query(Person).collect()),
    }


@query
async def page(ctx: QueryCtx, options: PaginationOptions, db: Db) -> PaginationResult[Item]:
    return await db.query(Item.by_rank()).paginate(options)


@query
async def ranks(ctx: QueryCtx, db: Db) -> list[float]:
    return [item.rank async for item in db.query(Item.by_rank())]


@mutation
async def insert(ctx: MutationCtx, list: str, rank: float, db: WriteDb) -> Id[Item]:
    return await db.insert(Item(list=list, rank=rank))


@mutation
async def patch(ctx: MutationCtx, id: Id[Item], fields: dict[str, Any], db: WriteDb) -> None:
    await db.patch(id, **fields)


@mutation
async def replace(ctx: MutationCtx, id: Id[Item], list: str, rank: float, db: WriteDb) -> None:
    await db.replace(id, Item(list=list, rank=rank))


@mutation
async def delete(ctx: MutationCtx, id: Id[Item], db: WriteDb) -> None:
    await db.delete(id)


@mutation
async def writes_half_a_pair(ctx: MutationCtx, id: Id[Item], ruled: bool, db: WriteDb) -> None:
    await (db if ruled else ctx.db).patch(id, list="\ud800")


@mutation
async def replaces_with_half_a_pair(ctx: MutationCtx, id: Id[Item], ruled: bool, db: WriteDb) -> None:
    await (db if ruled else ctx.db).replace(id, Item(list="\ud800", rank=1))


@mutation
async def goes_on(ctx: MutationCtx, id: Id[Item], db: WriteDb) -> str:
    """What was denied is not written, whatever the function does about it."""
    try:
        await db.patch(id, list="other")
    except AccessDenied as denied:
        await db.insert(Item(list="log", rank=1))
        return denied.code
    return "written"


@mutation
async def strict(ctx: MutationCtx) -> list[str]:
    """Where all that has no rule is denied."""
    id = await ctx.db.insert(Blob(text="x"))
    db = Rules(otherwise="deny").wrap(ctx)
    said = [str(await db.get(id)), str(await db.query(Blob).count())]
    try:
        await db.insert(Blob())
    except AccessDenied as denied:
        said.append(str(denied.data["operation"]))
    return said
