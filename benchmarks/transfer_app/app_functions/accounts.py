from __future__ import annotations

from reactor import AppError, MutationCtx, PaginationOptions, QueryCtx, mutation, query
from schema import Account


@mutation
async def fill(ctx: MutationCtx, start: int, end: int, balance: float) -> None:
    for number in range(start, end):
        await ctx.db.insert(Account(number=number, balance=balance))


@mutation
async def transfer(ctx: MutationCtx, source: float, target: float, amount: float) -> None:
    debtor = await ctx.db.query(Account.by_number(number=source)).unique()
    creditor = await ctx.db.query(Account.by_number(number=target)).unique()
    if debtor is None or creditor is None:
        raise AppError("There is no such account.")
    if debtor.balance < amount:
        raise AppError("Not enough money.")
    await ctx.db.patch(debtor.id, balance=debtor.balance - amount)
    await ctx.db.patch(creditor.id, balance=creditor.balance + amount)


@query
async def balance(ctx: QueryCtx, number: float) -> float:
    account = await ctx.db.query(Account.by_number(number=number)).unique()
    return account.balance if account else 0


@query
async def total(ctx: QueryCtx, options: PaginationOptions) -> tuple[float, str, bool]:
    """The sum of one page's balances, and where the next page begins."""
    page = await ctx.db.query(Account).paginate(options)
    return sum(account.balance for account in page.page), page.continue_cursor, page.is_done
