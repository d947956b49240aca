"""Calling the app as a client does, and filling its tables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import orjson

from reactor import Id, MutationCtx
from reactor.functions.identity import Caller
from reactor.functions.outcome import Outcome
from reactor.testing import TestBackend
from tests.functions.app.schema import Item

__all__ = ["APP", "PACKAGE", "call", "fill", "ranks"]

APP = Path(__file__).parent / "app"
PACKAGE = "tests.functions.app"


async def call(
    backend: TestBackend, kind: Literal["query", "mutation", "action"], path: str, *, production: bool = False, **args: Any
) -> Outcome:
    """Call a function as a client that is no admin; what it is told."""
    runner = backend._runner
    runner.production = production
    run: Callable[[str, bytes, Caller], Awaitable[Outcome]] = getattr(runner, kind)
    return await run(path, orjson.dumps(args), Caller(None, False, "0123456789abcdef"))


async def fill(backend: TestBackend, list: str, *ranks: float) -> list[Id[Item]]:
    """Insert items, in one commit."""

    async def insert(ctx: MutationCtx) -> Any:
        return [await ctx.db.insert(Item(list=list, rank=rank)) for rank in ranks]

    made: Any = await backend.run(insert)
    return made  # type: ignore[no-any-return]


async def ranks(backend: TestBackend, list: str = "a") -> Any:
    """The ranks of a list's items, as committed."""
    return await backend.query("items:ranks", list=list)
