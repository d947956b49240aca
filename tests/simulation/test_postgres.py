"""The same simulation, of three nodes over one real Postgres: what suspends, and for how long, is up to it.

Connections are ended at random, so that groups are lost before and under their COMMIT, and the log is trimmed under the nodes.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from reactor.engine.engine import Engine
from reactor.engine.store import Ts
from reactor.errors import StoreUnavailable
from reactor.limits import Limits
from reactor.stores.postgres import PostgresStore
from reactor.values.interval import FULL
from tests.simulation.ledger import catalog
from tests.simulation.test_serializability import ScriptedRuntime, Simulation
from tests.support.postgres import database

SEEDS = range(60 if os.environ.get("REACTOR_TEST_LONG") else 6)

#: Any connection of any node.
END_ONE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'reactor%' ORDER BY random() LIMIT 1
"""


@dataclass
class OverPostgres(Simulation):
    url: str = ""
    ended: int = 0

    async def play(self) -> None:
        async with AsyncExitStack() as stack:
            stores = []
            for _ in range(self.nodes):
                stores.append(await PostgresStore.open(self.url))
                stack.push_async_callback(stores[-1].close)
            self.admin = await stack.enter_async_context(asyncpg.create_pool(self.url, min_size=1, max_size=1))
            self.catalog = catalog()
            self.stores: list[Any] = [SimpleNamespace(failures=0)]  # this database does not fail when it is told to
            self.engines = [Engine(store, self.catalog, ScriptedRuntime(self.rng), Limits(mutation_attempts=12)) for store in stores]
            for engine in self.engines:
                await engine.push(self.catalog)
            self.trimming: Callable[..., Awaitable[None]] = stores[0].trim
            await self.run(clients=6, mutations=20)
            fresh = await PostgresStore.open(self.url)
            stack.push_async_callback(fresh.close)
            snapshot = fresh.snapshot()
            for name, table in self.catalog.tables.items():
                rows = await snapshot.scan(table.by_id, FULL.lo, FULL.hi, reverse=False, limit=10_000)
                self.database.tables[name] = {row.id: (row.ts, row.json, ()) for row in rows}

    async def mutation(self, rng: random.Random, *args: Any) -> None:
        if rng.random() < 0.1:
            self.ended += await self.admin.fetchval(END_ONE) or 0
        await super().mutation(rng, *args)

    async def trim(self) -> None:
        with contextlib.suppress(StoreUnavailable):  # its connection may be the one that is ended
            await self.trimming(log_before=Ts(1 << 62), requests_before=Ts(0))


@pytest.mark.anyio
@pytest.mark.parametrize("seed", SEEDS)
async def test_transactions_of_three_nodes_over_postgres_are_strictly_serializable(seed: int, postgres_url: str) -> None:
    with database(postgres_url) as url:
        simulation = OverPostgres(seed, nodes=3, url=url)
        await simulation.play()
        simulation.check()
        assert len(simulation.done) > 50 and simulation.ended > 3
