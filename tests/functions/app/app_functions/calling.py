"""Functions that call functions."""

from __future__ import annotations

import asyncio
from typing import Any

from reactor import ActionCtx, AppError, Id, MutationCtx, QueryCtx, StoredFile, action, internal_mutation, internal_query, mutation, query
from tests.functions.app.app_functions import items
from tests.functions.app.schema import Item


@internal_query
async def secret(ctx: QueryCtx) -> str:
    return "secret"


@query
async def tells(ctx: QueryCtx) -> list[str]:
    return [await ctx.run_query(secret), await ctx.run_query("calling:secret")]


@query
async def writes(ctx: QueryCtx) -> None:
    await ctx.run_query("items:insert", list="a", rank=1)


@query
async def smuggles(ctx: QueryCtx, kind: str) -> None:
    """Asks its ctx for what the type of a query's ctx does not offer."""
    await ctx._calls.call(kind, "items:insert" if kind == "mutation" else "calling:act", (), {"list": "a", "rank": 1.0})


@internal_mutation
async def insert_then_fail(ctx: MutationCtx, rank: float) -> None:
    await ctx.db.insert(Item(list="a", rank=rank))
    await ctx.run_mutation(items.insert, list="a", rank=rank + 1)
    raise AppError({"failed": rank})


@mutation
async def by_object_and_path(ctx: MutationCtx) -> list[float]:
    """Each sees what the others wrote before it was committed."""
    await ctx.db.insert(Item(list="a", rank=1))
    await ctx.run_mutation(items.insert, list="a", rank=2)
    await ctx.run_mutation("items:insert", list="a", rank=3)
    assert await ctx.run_query(items.ranks, list="a") == await ctx.run_query("items:ranks", list="a")
    return await ctx.run_query(items.ranks, "a")


@mutation
async def survives(ctx: MutationCtx) -> Any:
    """Goes on after a call of its own failed."""
    item = await ctx.db.insert(Item(list="a", rank=1))
    try:
        await ctx.run_mutation(insert_then_fail, rank=2)
    except AppError as error:
        data = error.data
    await ctx.db.patch(item, rank=10)
    await ctx.run_mutation(items.insert, list="a", rank=20)
    return data


@mutation
async def fails_after(ctx: MutationCtx) -> None:
    await ctx.run_mutation(items.insert, list="a", rank=1)
    raise AppError("after all")


@mutation
async def at_once(ctx: MutationCtx) -> list[float]:
    """Calls of which one fails, side by side."""
    await asyncio.gather(
        ctx.run_mutation(items.insert, list="a", rank=1),
        ctx.run_mutation(insert_then_fail, rank=5),
        ctx.run_mutation(items.insert, list="a", rank=2),
        return_exceptions=True,
    )
    return await ctx.run_query(items.ranks, list="a")


@mutation
async def gathers(ctx: MutationCtx) -> list[float | None]:
    """Uses its database in several tasks."""
    made: list[Id[Item]] = await asyncio.gather(*(ctx.db.insert(Item(list="a", rank=rank)) for rank in range(3)))
    found = await asyncio.gather(*(ctx.db.get(item) for item in made), ctx.db.query(Item.by_rank(rank=2)).first())
    return [None if item is None else item.rank for item in found]


@mutation
async def deeper(ctx: MutationCtx, levels: int) -> int:
    return 0 if levels == 0 else 1 + await ctx.run_mutation("calling:deeper", levels=levels - 1)


@mutation
async def by_value(ctx: MutationCtx) -> list[float]:
    given = [1.0]
    returned = await ctx.run_mutation(appends, given)
    return given + returned


@internal_mutation
async def appends(ctx: MutationCtx, values: list[float]) -> list[float]:
    values.append(2.0)
    return values


@mutation
async def calls_badly(ctx: MutationCtx, path: str, rank: Any) -> None:
    await ctx.run_mutation(path, list="a", rank=rank)


@action
async def act(ctx: ActionCtx, list: str, rank: float) -> list[float]:
    await ctx.run_mutation(items.insert, list=list, rank=rank)
    await ctx.run_mutation("items:insert", list=list, rank=rank + 1)
    return await ctx.run_query(items.ranks, list=list)


@action
async def delegates(ctx: ActionCtx) -> list[list[float]]:
    return [await ctx.run_action(act, list="a", rank=1), await ctx.run_action("calling:act", list="a", rank=3)]


@action
async def is_half_done(ctx: ActionCtx) -> None:
    """Each mutation of an action stands for itself."""
    await ctx.run_mutation(items.insert, list="a", rank=1)
    try:
        await ctx.run_mutation(insert_then_fail, rank=5)
    except AppError as error:
        await ctx.run_mutation(items.insert, list="a", rank=error.data["failed"])
    raise AppError("half done")


@internal_mutation
async def pauses_then_fails(ctx: MutationCtx) -> None:
    await ctx.db.insert(Item(list="a", rank=50))
    await asyncio.sleep(0)
    raise AppError("after a pause")


@mutation
async def beside_a_call(ctx: MutationCtx) -> list[float]:
    """Writes and reads of its own while a call, which will fail, has not ended."""
    _, _, seen = await asyncio.gather(
        ctx.run_mutation(pauses_then_fails),
        ctx.db.insert(Item(list="a", rank=1)),
        ctx.db.query(Item).collect(),
        return_exceptions=True,
    )
    assert not isinstance(seen, BaseException)
    return [item.rank for item in seen]


@internal_mutation
async def reads_then_fails(ctx: MutationCtx) -> None:
    for rank in range(5):
        await ctx.db.query(Item.by_rank(rank=rank)).collect()
    raise AppError("after some reads")


@mutation
async def deletes_beside_a_call(ctx: MutationCtx, file: Id[StoredFile]) -> None:
    """What deletes a file has begun when a call begins, which will fail."""
    await ctx.storage.get_metadata(file)
    deleted, failed = await asyncio.gather(ctx.storage.delete(file), ctx.run_mutation(reads_then_fails), return_exceptions=True)
    assert deleted is None and isinstance(failed, AppError)


@action
async def insert_once(ctx: ActionCtx, key: str, rank: float) -> float:
    """How many there are, as the mutation found it."""
    return await ctx.run_once(key, insert_and_count, rank=rank)


@internal_mutation
async def insert_and_count(ctx: MutationCtx, rank: float) -> float:
    await ctx.db.insert(Item(list="a", rank=rank))
    if rank < 0:
        raise AppError("negative")
    return await ctx.db.query(Item).count()


@action
async def once_by_path(ctx: ActionCtx, key: str, path: str) -> Any:
    return await ctx.run_once(key, path, list="a", rank=50.0)


@action
async def act_deeper(ctx: ActionCtx, depth: int) -> int:
    return 0 if depth == 0 else 1 + await ctx.run_action(act_deeper, depth - 1)
