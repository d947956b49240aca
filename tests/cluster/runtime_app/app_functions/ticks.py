import asyncio

from reactor import ActionCtx, CronJob, MutationCtx, QueryCtx, internal_action, internal_mutation, query
from schema import Tick


@internal_mutation
async def note(ctx: MutationCtx, cron: str, phase: str) -> None:
    await ctx.db.insert(Tick(cron=cron, at=ctx.now, phase=phase))


@internal_action
async def slow(ctx: ActionCtx) -> None:
    await ctx.run_mutation(note, cron="slow", phase="began")
    await asyncio.sleep(1.3)
    await ctx.run_mutation(note, cron="slow", phase="ended")


@query
async def of(ctx: QueryCtx, cron: str) -> list[Tick]:
    return await ctx.db.query(Tick.by_cron(cron=cron)).collect()


@query
async def crons(ctx: QueryCtx) -> list[CronJob]:
    return await ctx.db.query(CronJob).collect()
