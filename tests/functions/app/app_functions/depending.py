"""Functions with dependencies, which note each time that they run."""

from __future__ import annotations

from typing import Annotated, Any

from reactor import ActionCtx, AppError, Depends, Id, MutationCtx, QueryCtx, action, mutation, query
from tests.functions.app.schema import Item, Person

seen: list[str] = []


async def name_of(ctx: QueryCtx | ActionCtx) -> str:
    """Who calls."""
    seen.append("name_of")
    identity = await ctx.auth.identity()
    if identity is None:
        raise AppError("nobody")
    return identity.subject


def shouted(ctx: Any, name: Annotated[str, Depends(name_of)]) -> str:
    seen.append("shouted")
    return name.upper()


async def person_of(ctx: QueryCtx, name: str = Depends(name_of)) -> Person | None:
    return await ctx.db.query(Person).filter(lambda person: person.name == name).first()


async def enrolled(ctx: MutationCtx, name: Annotated[str, Depends(name_of)]) -> Id[Person]:
    return await ctx.db.insert(Person(name=name, age=None))


def in_list(name: str) -> Any:
    """A dependency that is made for an argument."""

    async def items(ctx: QueryCtx) -> list[Item]:
        return await ctx.db.query(Item.by_list(list=name)).collect()

    return Depends(items)


Caller = Annotated[str, Depends(name_of)]


@query
async def greet(ctx: QueryCtx, name: Caller, loud: Annotated[str, Depends(shouted)], greeting: str = "hello") -> str:
    return f"{greeting} {name} {loud}"


@query
async def me(ctx: QueryCtx, *, person: Person | None = Depends(person_of)) -> Person | None:
    return person


@query
async def count(ctx: QueryCtx, items: Annotated[list[Item], in_list("a")]) -> int:
    return len(items)


@query
async def nobodys(ctx: QueryCtx, text: str) -> str:
    return text


@mutation
async def enrol(ctx: MutationCtx, fail: bool = False, *, id: Id[Person] = Depends(enrolled)) -> Id[Person]:
    if fail:
        raise AppError("after all")
    return id


@mutation
async def relay(ctx: MutationCtx) -> list[str]:
    """Calls what has dependencies: by object, by path, and directly."""
    return [
        await ctx.run_query("depending:greet", greeting="by path"),
        await greet(ctx, greeting="directly"),  # type: ignore[call-arg]  # to type checkers, the annotated ones are missing
        await greet(ctx, "given", greeting="directly"),  # type: ignore[call-arg]
        str(await ctx.run_mutation(enrol) == (await ctx.db.query(Person).collect())[0].id),
    ]


@action
async def act(ctx: ActionCtx, name: Caller, text: str) -> str:
    return f"{name} {text} {await ctx.run_query('depending:greet')}"
