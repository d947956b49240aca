from __future__ import annotations

from reactor import AppError, MutationCtx, QueryCtx, mutation, query
from schema import Account


@mutation
async def fill(ctx: MutationCtx, accounts: int, balance: float) -> None:
    for number in range(accounts):
        await ctx.db.insert(Account(number=number, balance=balance))


@mutation
async def transfer(ctx: MutationCtx, source: float, target: float, amount: float) -> float:
    debtor = await ctx.db.query(Account.by_number(number=source)).unique()
    creditor = await ctx.db.query(Account.by_number(number=target)).unique()
    assert debtor is not None and creditor is not None
    if debtor.balance < amount:
        raise AppError("Not enough money.")
    await ctx.db.patch(debtor.id, balance=debtor.balance - amount)
    await ctx.db.patch(creditor.id, balance=creditor.balance + amount)
    return debtor.balance - amount


@query
async def total(ctx: QueryCtx) -> float:
    return sum([account.balance async for account in ctx.db.query(Account)])


@mutation
async def total_now(ctx: MutationCtx) -> float:
    return sum([account.balance async for account in ctx.db.query(Account)])
