from __future__ import annotations

from reactor import AppError, MutationCtx, QueryCtx, internal_mutation, internal_query
from reactor.webhooks import Event
from schema import Payment


@internal_mutation
async def on_event(ctx: MutationCtx, event: Event) -> str:
    data = event.body["data"]
    await ctx.db.insert(Payment(event=event.id, type=event.type, amount=data["amount"], note=data.get("note")))
    if data["amount"] < 0:
        raise AppError("a negative amount")
    return event.id


@internal_mutation
async def on_renamed(ctx: MutationCtx, delivered: Event) -> None:
    await ctx.db.insert(Payment(event=delivered.id, type=delivered.type, amount=0.0))


@internal_query
async def recorded(ctx: QueryCtx) -> list[Payment]:
    return await ctx.db.query(Payment).collect()
