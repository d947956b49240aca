"""What is asked of Postgres, counted on the wire: a question is what a node sends after Postgres has spoken last."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import pytest

from reactor.engine.committer import Answer, Committed, MutationTransaction
from reactor.engine.engine import Engine
from reactor.engine.runtime import SystemRuntime
from reactor.engine.store import RequestKey
from reactor.engine.transaction import Transaction
from reactor.limits import Limits
from reactor.stores.postgres import PostgresStore
from tests.cluster.wire import Wire, laid
from tests.simulation.ledger import catalog, document_id, equal, put
from tests.support.postgres import database

pytestmark = pytest.mark.anyio

_numbers = itertools.count()

CATALOG = catalog()
ACCOUNTS = CATALOG.tables["accounts"]
BY_NAME = ACCOUNTS.index("by_name")


@dataclass
class Node:
    """An engine, and the wire between it and Postgres."""

    engine: Engine
    wire: Wire

    def asked(self) -> int:
        """Questions so far. Left out: those of the connection that listens, which asks where the head is for all who want to know,
        and the end of a transaction that read, which nobody waits for and which comes a moment later.
        """
        others = [asked for asked in self.wire.asked if not any(b"LISTEN" in question for question in asked)]
        return sum(b"COMMIT" not in question or b"NOTIFY" in question for asked in others for question in asked)

    async def write(self, number: int, *, existing: bool = False) -> Committed:
        balance = float(next(_numbers))

        async def run(tx: MutationTransaction) -> Answer:
            id = document_id(ACCOUNTS, number)
            await put(tx, ACCOUNTS, id, await tx.get(ACCOUNTS, id) if existing else None, name=f"{number}", balance=balance)
            return Answer(b"null")

        return await self.engine.mutate(run)


@asynccontextmanager
async def node_on(url: str) -> AsyncIterator[Node]:
    port = urlsplit(url).port
    assert port is not None
    async with laid(port) as wire:
        store = await PostgresStore.open(url.replace(f":{port}/", f":{wire.port}/"))
        engine = Engine(store, CATALOG, SystemRuntime(), Limits())
        await engine.start()
        await engine.push(CATALOG)
        yield Node(engine, wire)
        await engine.stop()
        await store.close()


@pytest.fixture
async def node(postgres_url: str) -> AsyncIterator[Node]:
    with database(postgres_url) as url:
        async with node_on(url) as node:
            yield node


async def read(tx: Transaction) -> list[int]:
    """Two documents that are there by id and by index, one that is not, and a name that nobody has."""
    found = [await tx.get(ACCOUNTS, document_id(ACCOUNTS, number)) for number in (1, 2, 99)]
    rows = []
    for name in ("1", "2", "nobody"):
        known = tx.known(ACCOUNTS, BY_NAME, equal(BY_NAME, name), 2, False)
        rows.append(len(await tx.scan(BY_NAME, equal(BY_NAME, name)).next(2) if known is None else known))
    return [row is not None for row in found] + rows


async def test_what_was_read_or_written_and_did_not_change_is_not_asked_for_again(node: Node) -> None:
    for number in (1, 2, 3):
        await node.write(number)
    first, _ = await node.engine.query(read)
    before = node.asked()
    for number in (4, 3):
        again, _ = await node.engine.query(read)
        assert again == first == [True, True, False, 1, 1, 0]
        assert node.asked() == before, "a commit of something else, and reads from the cache, ask nothing"
        await node.write(number, existing=number == 3)
        before = node.asked()


async def test_what_many_read_at_once_is_asked_at_once(postgres_url: str) -> None:
    async def look(tx: Transaction, number: int) -> tuple[int, bool]:
        rows = await tx.scan(BY_NAME, equal(BY_NAME, f"{number}")).next(2)
        return len(rows), await tx.get(ACCOUNTS, document_id(ACCOUNTS, number + 100)) is not None

    with database(postgres_url) as url:
        async with node_on(url) as here, node_on(url) as there:
            await asyncio.gather(*(here.write(number) for number in range(200)))
            await there.engine.query(partial(look, number=0))
            before = there.asked()
            found = await asyncio.gather(*(there.engine.query(partial(look, number=number)) for number in range(100)))
            assert [result for result, _ in found] == [(1, True)] * 100
            # The ranges, of which the first may go ahead alone, then the documents; beginning to read, and preparing what is asked.
            assert there.asked() - before <= 12


async def test_a_request_that_runs_again_is_not_looked_for_again(node: Node) -> None:
    runs = 0

    async def run(tx: MutationTransaction) -> Answer:
        nonlocal runs
        runs += 1
        id = document_id(ACCOUNTS, 1)
        row = await tx.get(ACCOUNTS, id)
        if runs % 2:
            await node.write(1, existing=True)
        await put(tx, ACCOUNTS, id, row, name="1", balance=float(-runs))
        return Answer(b"null")

    await node.write(1)
    asked = []
    for request in (RequestKey("session", 1), None, RequestKey("session", 2)):
        before = node.asked()
        await node.engine.mutate(run, request=request)
        asked.append(node.asked() - before)
    assert runs == 6
    assert asked[0] > asked[1] == asked[2], "a session is asked for once, and a request that is new in it not at all"


async def test_an_absence_ends_with_the_commit_that_ends_it_also_one_of_another_node(postgres_url: str) -> None:
    with database(postgres_url) as url:
        async with node_on(url) as here, node_on(url) as there:
            for number in (1, 2):
                await here.write(number)
            assert (await there.engine.query(read))[0] == [True, True, False, 1, 1, 0]
            await here.write(99)
            assert (await there.engine.query(read))[0] == (await here.engine.query(read))[0] == [True, True, True, 1, 1, 0]


@pytest.mark.parametrize("size", [1, 10, 300])
async def test_a_group_of_commits_asks_three_times_whatever_its_size(node: Node, size: int) -> None:
    # Statements are prepared when they are first met.
    await node.write(0)
    await asyncio.gather(*(node.write(1000 + number) for number in range(size)))
    before = node.asked()
    committed = await asyncio.gather(*(node.write(2000 + number) for number in range(size)))
    groups = 1 if size == 1 else 2
    assert node.asked() - before <= 3 * groups, "lock, write, commit"
    assert len({each.ts for each in committed}) == size


async def test_a_commit_of_another_node_is_read_under_the_lock(postgres_url: str) -> None:
    with database(postgres_url) as url:
        async with node_on(url) as here, node_on(url) as there:
            for node in (here, there, here, there):
                await node.write(1, existing=True)
            before = here.asked()
            committed = await there.write(1, existing=True)
            assert (await here.write(1, existing=True)).ts > committed.ts
            # The two nodes share no wire. Its own follower may have heard of the commit before: then there is nothing to read.
            assert here.asked() - before <= 5, "lock, read, write, commit, and hearing of it"
