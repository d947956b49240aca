from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from reactor import AppError, Id, MutationCtx, internal_mutation, mutation
from reactor.contrib.idempotency import Idempotency
from schema import Payment

payments = Idempotency(expires_in=timedelta(hours=1))


class Receipt(BaseModel):
    payment: Id[Payment]
    amount: float
    notes: list[str] = []


@internal_mutation
async def charge(ctx: MutationCtx, amount: float, notes: dict[str, Any] | None = None) -> Receipt:
    if amount < 0:
        raise AppError("negative")
    payment = await ctx.db.insert(Payment(amount=amount))
    return Receipt(payment=payment, amount=amount, notes=list(notes or {}))


@internal_mutation
async def refund(ctx: MutationCtx, amount: float) -> str:
    await ctx.db.insert(Payment(amount=-amount))
    return "x" * int(amount)


@mutation
async def pay(ctx: MutationCtx, key: str, amount: float, notes: dict[str, Any] | None = None) -> Receipt:
    return await payments.once(ctx, key, charge, amount=amount, notes=notes)


@mutation
async def give_back(ctx: MutationCtx, key: str, amount: float) -> str:
    return await payments.once(ctx, key, refund, amount)


@mutation
async def count(ctx: MutationCtx) -> float:
    return await ctx.db.query(Payment).count()


@mutation
async def prune(ctx: MutationCtx, most: int = 1000) -> int:
    return await payments.prune(ctx, limit=most)
