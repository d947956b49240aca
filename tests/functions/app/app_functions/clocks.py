"""Time and randomness, by every name that they have."""

from __future__ import annotations

import asyncio
import datetime
import os
import random
import secrets
import time
import uuid
from collections.abc import Callable
from datetime import datetime as Moment
from random import randint
from time import time as seconds
from typing import Any
from uuid import uuid4

from reactor import ActionCtx, MutationCtx, QueryCtx, action, mutation, query
from tests.functions.app.app_functions import items

CLOCKS: dict[str, Callable[[], Any]] = {
    "time.time": lambda: time.time() * 1000,
    "time.time_ns": lambda: time.time_ns() / 1e6,
    "from time": lambda: seconds() * 1000,
    "datetime.now": lambda: datetime.datetime.now(datetime.UTC).timestamp() * 1000,
    "datetime.utcnow": lambda: datetime.datetime.utcnow().replace(tzinfo=datetime.UTC).timestamp() * 1000,
    "from datetime": lambda: Moment.now(datetime.UTC).timestamp() * 1000,
    "date.today": lambda: datetime.date.today().isoformat(),
    "time.gmtime": lambda: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()),
    "time.strftime": lambda: time.strftime("%Y-%m-%d"),
    "time.monotonic": lambda: time.monotonic(),
    "time.perf_counter": lambda: time.perf_counter(),
}

DRAWS: dict[str, Callable[[], Any]] = {
    "random.random": lambda: random.random(),
    "random.choice": lambda: random.choice(range(1_000_000)),
    "random.shuffle": lambda: random.sample(range(100), 10),
    "from random": lambda: randint(0, 1_000_000_000),
    "uuid.uuid4": lambda: str(uuid.uuid4()),
    "from uuid": lambda: str(uuid4()),
    "os.urandom": lambda: os.urandom(16).hex(),
}


@query
async def clocks(ctx: QueryCtx) -> dict[str, Any]:
    """What each clock shows, after all have been read once."""
    before = {name: read() for name, read in CLOCKS.items()}
    after = {name: read() for name, read in CLOCKS.items()}
    assert before == after, "time passed"
    return {"ctx.now": ctx.now, **after}


@mutation
async def nested_now(ctx: MutationCtx) -> list[float]:
    nested = await ctx.run_query(clocks)
    item = await ctx.run_mutation(items.insert, list="a", rank=1)
    document = await ctx.db.get(item)
    assert document is not None
    return [ctx.now, nested["ctx.now"], nested["time.time"], document.creation_time]


@query
async def draws(ctx: QueryCtx) -> dict[str, Any]:
    drawn = {name: [draw(), draw()] for name, draw in DRAWS.items()}
    assert all(first != second for first, second in drawn.values())
    return {"ctx.random": ctx.random.random(), **drawn}


@query
async def token(ctx: QueryCtx, name: str) -> None:
    getattr(secrets, name)(16)


@action
async def real(ctx: ActionCtx) -> bool:
    """An action's clock runs, and it may wait and make secrets."""
    began = time.perf_counter_ns()
    await asyncio.sleep(0.001)
    time.sleep(0.001)
    assert len(secrets.token_bytes(16)) == 16
    assert {name: draw() for name, draw in DRAWS.items()}
    return time.perf_counter_ns() > began


@query
async def sleeps(ctx: QueryCtx, how: str) -> None:
    if how == "time.sleep":
        time.sleep(0.001)
    else:
        await asyncio.sleep(0.001)


@query
async def is_instance(ctx: QueryCtx) -> bool:
    now = datetime.datetime.now(datetime.UTC)
    made = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(days=1)
    return isinstance(now, datetime.datetime) and isinstance(made, datetime.datetime) and isinstance(made, datetime.date) and now != made


@query
async def imported_late(ctx: QueryCtx) -> list[float]:
    """The time, and something random twice, by what is imported when the function runs."""
    import random
    import time as clock
    from datetime import datetime
    from os import urandom

    return [clock.time() * 1000, datetime.now().timestamp() * 1000, random.random(), float(int.from_bytes(urandom(4), "big"))]
