"""Mistakes that users make: a type checker must reject each marked line, and no other. Never run."""

from __future__ import annotations

from datetime import timedelta

from reactor import Crons, Depends, Id, MutationCtx, QueryCtx, mutation, query
from tests.types.good import Message, User, by_author, current_user, forget, rules, send

crons = Crons()
crons.interval("forget", timedelta(minutes=5), forget)  # error: an argument of what the cron calls is missing
crons.cron("read", "0 8 * * *", by_author)  # error: a query


@query
async def unread(ctx: QueryCtx, id: Id[Message]) -> str:
    message = await ctx.db.get(id)
    return message.body  # error: the document may be missing


@query
async def newest(ctx: QueryCtx, author: Id[User]) -> list[User]:
    return await ctx.db.query(Message.by_author(author=author)).collect()  # error: documents of another class


@mutation
async def relay(ctx: MutationCtx, author: Id[User], message: Id[Message]) -> None:
    await ctx.run_mutation(send, author=message, body="hi")  # error: the id of another table
    await ctx.run_query(by_author)  # error: an argument is missing
    await ctx.run_query(send, author=author, body="hi")  # error: a mutation, called as a query
    await ctx.scheduler.run_after(timedelta(), send, author=author)  # error: an argument of what is scheduled is missing
    await ctx.scheduler.run_after(timedelta(), by_author, author=author)  # error: a query, scheduled
    await ctx.scheduler.cancel(message)  # error: the id of another table


@query
async def greet(ctx: QueryCtx, *, user: str = Depends(current_user)) -> str:  # error: the dependency gives a user
    return user


@rules.read(Message)  # error: the rule is for another class
async def readable(ctx: QueryCtx, user: User) -> bool:
    return True
