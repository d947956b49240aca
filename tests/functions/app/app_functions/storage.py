"""Files, as every kind of function has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from reactor import ActionCtx, AppError, Id, MutationCtx, QueryCtx, StoredFile, action, internal_action, mutation, query

#: The files that were asked for, one entry for each run.
runs: list[str] = []


@query
async def url(ctx: QueryCtx, id: Id[StoredFile]) -> str | None:
    runs.append("url")
    return await ctx.storage.get_url(id)


@query
async def url_of(ctx: QueryCtx, text: str) -> str | None:
    return await ctx.storage.get_url(Id(text))


@query
async def metadata(ctx: QueryCtx, id: Id[StoredFile]) -> StoredFile | None:
    return await ctx.storage.get_metadata(id)


@query
async def sizes(ctx: QueryCtx) -> list[float]:
    runs.append("sizes")
    return [file.size for file in await ctx.db.query(StoredFile).collect()]


@mutation
async def upload_url(ctx: MutationCtx) -> str:
    return await ctx.storage.generate_upload_url()


@mutation
async def remove(ctx: MutationCtx, id: Id[StoredFile]) -> str | None:
    await ctx.storage.delete(id)
    return await ctx.storage.get_url(id)


@mutation
async def remove_text(ctx: MutationCtx, text: str) -> None:
    await ctx.storage.delete(Id(text))


@mutation
async def remove_and_fail(ctx: MutationCtx, id: Id[StoredFile]) -> None:
    await ctx.storage.delete(id)
    raise AppError("changed my mind")


@mutation
async def remove_in_a_call_that_fails(ctx: MutationCtx, id: Id[StoredFile]) -> str | None:
    try:
        await ctx.run_mutation(remove_and_fail, id)
    except AppError:
        pass
    return await ctx.storage.get_url(id)


@internal_action
async def store(ctx: ActionCtx, content: bytes, content_type: str | None = None, sha256: bytes | None = None) -> Id[StoredFile]:
    return await ctx.storage.store(content, content_type, sha256=sha256)


async def counting(to: int, fails: bool) -> AsyncIterator[bytes]:
    for number in range(to):
        yield f"{number},".encode()
    if fails:
        raise AppError("no more")


@action
async def store_chunks(ctx: ActionCtx, to: int, fails: bool = False) -> Id[StoredFile]:
    return await ctx.storage.store(counting(to, fails), content_type="text/csv")


@action
async def store_what_is_none(ctx: ActionCtx, data: Any) -> Id[StoredFile]:
    return await ctx.storage.store(data)


async def numbers() -> AsyncIterator[Any]:
    yield 1


@action
async def store_numbers(ctx: ActionCtx) -> Id[StoredFile]:
    return await ctx.storage.store(numbers())


@action
async def read(ctx: ActionCtx, id: Id[StoredFile]) -> list[Any]:
    whole = await ctx.storage.get(id)
    file = await ctx.storage.get_metadata(id)
    return [whole, await ctx.storage.get_url(id), file.size if file else None]


@action
async def read_chunks(ctx: ActionCtx, id: Id[StoredFile]) -> bytes:
    return b"".join([chunk async for chunk in ctx.storage.open(id)])


@action
async def remove_by_action(ctx: ActionCtx, id: Id[StoredFile]) -> None:
    await ctx.storage.delete(id)


@action
async def upload_url_by_action(ctx: ActionCtx) -> str:
    return await ctx.storage.generate_upload_url()
