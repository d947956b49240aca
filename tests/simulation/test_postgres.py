"""The same simulation, of three nodes over one real Postgres: what suspends, and for how long, is up to it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from reactor.engine.engine import Engine
from reactor.limits import Limits
from reactor.stores.postgres import PostgresStore
from reactor.values.interval import FULL
from tests.simulation.ledger import catalog
from tests.simulation.test_serializability import ScriptedRuntime, Simulation
from tests.support.postgres import database


@dataclass
class OverPostgres(Simulation):
    url: str = ""

    async def play(self) -> None:
        async with AsyncExitStack() as stack:
            stores = []
            for _ in range(self.nodes):
                stores.append(await PostgresStore.open(self.url))
                stack.push_async_callback(stores[-1].close)
            self.catalog = catalog()
            self.stores: list[Any] = [SimpleNamespace(failures=0)]  # this database does not fail when it is told to
            self.engines = [Engine(store, self.catalog, ScriptedRuntime(self.rng), Limits(mutation_attempts=12)) for store in stores]
            for engine in self.engines:
                await engine.push(self.catalog)
            await self.run(clients=6, mutations=25)
            fresh = await PostgresStore.open(self.url)
            stack.push_async_callback(fresh.close)
            snapshot = fresh.snapshot()
            for name, table in self.catalog.tables.items():
                rows = await snapshot.scan(table.by_id, FULL.lo, FULL.hi, reverse=False, limit=10_000)
                self.database.tables[name] = {row.id: (row.ts, row.json, ()) for row in rows}


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(6))
async def test_transactions_of_three_nodes_over_postgres_are_strictly_serializable(seed: int, postgres_url: str) -> None:
    with database(postgres_url) as url:
        simulation = OverPostgres(seed, nodes=3, url=url)
        await simulation.play()
        simulation.check()
        assert simulation.done
