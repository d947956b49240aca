import asyncio
import os
from datetime import timedelta

from reactor import ActionCtx, Id, MutationCtx, QueryCtx, ScheduledFunction, gt, internal_action, internal_mutation, mutation, query
from schema import Run


@internal_mutation
async def run(ctx: MutationCtx, key: str) -> None:
    await ctx.db.insert(Run(key=key))


@internal_action
async def act(ctx: ActionCtx, key: str, file: str) -> None:
    """Leaves a line outside the database, which nothing takes back."""
    with open(file, "a") as effects:
        effects.write(f"{key}\n")
        os.fsync(effects.fileno())
    await asyncio.sleep(0.01)
    await ctx.run_mutation(run, key=key)


@mutation
async def submit(ctx: MutationCtx, key: str, file: str) -> str:
    await ctx.scheduler.run_after(timedelta(), run, key=f"m{key}")
    await ctx.scheduler.run_after(timedelta(milliseconds=20), act, key=f"a{key}", file=file)
    return key


@mutation
async def soon(ctx: MutationCtx, key: str) -> Id[ScheduledFunction]:
    return await ctx.scheduler.run_after(timedelta(seconds=0.5), run, key=f"c{key}")


@mutation
async def cancel(ctx: MutationCtx, id: Id[ScheduledFunction]) -> bool:
    """Whether it had not run, and now never does."""
    job = await ctx.db.get(id)
    pending = job is not None and job.state.kind == "pending"
    await ctx.scheduler.cancel(id)
    return pending


@mutation
async def backlog(ctx: MutationCtx, first: int, count: int) -> None:
    for number in range(first, first + count):
        await ctx.scheduler.run_after(timedelta(), run, key=f"{number:06d}")


@mutation
async def touch(ctx: MutationCtx) -> None:
    await ctx.db.insert(Run(key="touch"))


@query
async def waiting(ctx: QueryCtx) -> bool:
    for kind in ("pending", "inProgress"):
        if await ctx.db.query(ScheduledFunction.by_state(state__kind=kind)).first() is not None:
            return True
    return False


@query
async def runs(ctx: QueryCtx, after: str) -> list[str]:
    return [run.key for run in await ctx.db.query(Run.by_key(key=gt(after))).take(5000)]


@query
async def failures(ctx: QueryCtx) -> list[ScheduledFunction]:
    return await ctx.db.query(ScheduledFunction.by_state(state__kind="failed")).collect()
