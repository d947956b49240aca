from datetime import timedelta

from reactor import MutationCtx, QueryCtx, internal_mutation, mutation, query
from reactor.contrib.idempotency import Idempotency
from reactor.contrib.rate_limits import FixedWindow, TokenBucket
from reactor.webhooks import Event
from schema import Payment

YEAR = timedelta(days=365)
LIMITS = {
    "bucket": TokenBucket("bucket", rate=20, per=YEAR),
    "sharded": TokenBucket("sharded", rate=20, per=YEAR, shards=4),
    "window": FixedWindow("window", rate=20, per=YEAR),
}
once = Idempotency()


@internal_mutation
async def on_event(ctx: MutationCtx, event: Event) -> None:
    await ctx.db.insert(Payment(event=event.id))


@internal_mutation
async def insert(ctx: MutationCtx, name: str) -> int:
    await ctx.db.insert(Payment(event=name))
    return await ctx.db.query(Payment).count()


@mutation
async def pay(ctx: MutationCtx, key: str, name: str) -> int:
    return await once.once(ctx, key, insert, name=name)


@query
async def count(ctx: QueryCtx, event: str) -> int:
    return len([payment async for payment in ctx.db.query(Payment) if payment.event == event])


@mutation
async def spend(ctx: MutationCtx, limit: str, key: str) -> bool:
    return (await LIMITS[limit].try_spend(ctx, key)).ok


@query
async def greeting(ctx: QueryCtx) -> str:
    return ctx.env.get("GREETING", "hello")


@query
async def who(ctx: QueryCtx) -> str | None:
    identity = await ctx.auth.identity()
    return None if identity is None else identity.subject
