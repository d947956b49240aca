"""Reading from a hot standby that really follows, lags, stops replaying, dies and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from reactor.engine.committer import Answer, Committed, MutationTransaction
from reactor.engine.engine import Engine
from reactor.engine.runtime import SystemRuntime
from reactor.engine.store import Ts
from reactor.engine.transaction import Transaction
from reactor.limits import Limits
from reactor.stores import postgres_standby
from reactor.stores.postgres import PostgresStore
from tests.cluster.wire import laid
from tests.simulation.ledger import WHOLE, catalog, document_id, put
from tests.support.postgres import PostgresServer, new_database
from tests.support.waiting import eventually_async

pytestmark = [pytest.mark.anyio, pytest.mark.postgres_only("what is Postgres's own")]

CATALOG = catalog()
ACCOUNTS = CATALOG.tables["accounts"]
COUNT = 20


class Node:
    """An engine without a row cache, so that every read is one of the database."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.engine = Engine(store, CATALOG, SystemRuntime(), Limits(row_cache_bytes=0))

    @property
    def reason(self) -> str | None:
        """Why reads go to the primary."""
        assert self.store.standby is not None
        return self.store.standby.reason

    async def served(self) -> None:
        """Wait until the standby serves, and no reader is used any more that was opened on the primary before."""
        await eventually_async(lambda: self.reason is None, "the standby to serve")
        async with asyncio.timeout(20):
            while True:
                snapshot = self.store.snapshot()
                try:
                    await snapshot.scan(ACCOUNTS.by_id, WHOLE.lo, WHOLE.hi, reverse=False, limit=1)
                    if snapshot._reader is not None and snapshot._reader.standby is not None:
                        return
                finally:
                    snapshot.release()

    async def fill(self, balance: float) -> Committed:
        """Give every account this balance."""

        async def run(tx: MutationTransaction) -> Answer:
            for number in range(COUNT):
                id = document_id(ACCOUNTS, number)
                await put(tx, ACCOUNTS, id, await tx.get(ACCOUNTS, id), name=f"{number}", balance=balance)
            return Answer(b"null")

        return await self.engine.mutate(run)

    async def look(self) -> tuple[set[float], Ts]:
        """The balances there are, by an index and by ids, and when."""

        async def run(tx: Transaction) -> set[float]:
            index = ACCOUNTS.index("by_balance")
            rows = await tx.scan(index, WHOLE).rest()
            rows += [row for number in range(COUNT) if (row := await tx.get(ACCOUNTS, document_id(ACCOUNTS, number))) is not None]
            assert len(rows) == 2 * COUNT
            return {float(row.json.partition('"balance":')[2].partition(",")[0].rstrip("}")) for row in rows}

        return await self.engine.query(run)


@asynccontextmanager
async def node_on(url: str, read_url: str | None) -> AsyncIterator[Node]:
    store = await PostgresStore.open(url, read_url=read_url)
    try:
        node = Node(store)
        await node.engine.start()
        await node.engine.push(CATALOG)
        yield node
        await node.engine.stop()
    finally:
        await store.close()


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    standby = primary.standby()
    # A read that stands in the way of what is to be replayed is ended at once.
    standby.settings["max_standby_streaming_delay"] = "0"
    with standby as server:
        yield server


@pytest.fixture
def urls(primary: PostgresServer, standby: PostgresServer) -> tuple[str, str]:
    """A new database, on the primary and on the standby."""
    url = new_database(primary.url)
    return url, url.replace(str(primary.port), str(standby.port))


@pytest.fixture
async def node(urls: tuple[str, str]) -> AsyncIterator[Node]:
    """One that reads from the standby, with accounts of balance 1."""
    async with node_on(*urls) as node:
        await node.fill(1.0)
        await node.served()
        yield node


async def ask(url: str, sql: str) -> object:
    while True:
        try:
            connection = await asyncpg.connect(url)
            try:
                return await connection.fetchval(sql)
            finally:
                await connection.close()
        except (asyncpg.SerializationError, asyncpg.ConnectionDoesNotExistError):
            continue  # it stood in the way of what the standby replays: connecting asks it something too


async def reads(url: str) -> int:
    """Scans of the accounts by all sessions that have ended or been idle for a moment."""
    found = await ask(url, "SELECT coalesce(sum(idx_scan + seq_scan), 0)::int FROM pg_stat_user_tables WHERE relname = 'accounts'")
    assert isinstance(found, int)
    return found


async def until_reads(url: str, more_than: int) -> None:
    seen = more_than

    async def look() -> None:
        nonlocal seen
        seen = await reads(url)

    async with asyncio.timeout(20):
        while seen <= more_than:
            await look()


async def test_reads_reach_the_standby_and_not_the_primary(primary: PostgresServer, urls: tuple[str, str]) -> None:
    async with laid(primary.port) as wire, node_on(urls[0].replace(f":{primary.port}/", f":{wire.port}/"), urls[1]) as node:
        await node.fill(1.0)
        await node.served()
        # What listens asks where the head is.
        others = [asked for asked in wire.asked if not any(b"LISTEN" in question for question in asked)]

        def asked() -> int:
            return sum(map(len, others))

        asked_before = asked()
        read_before = await reads(urls[1])
        for _ in range(10):
            assert (await node.look())[0] == {1.0}
        assert asked() == asked_before
        assert len(wire.asked) == len(others) + 1
        await until_reads(urls[1], read_before + 9)


async def test_what_is_read_there_is_never_older_than_what_was_seen(node: Node, urls: tuple[str, str]) -> None:
    async with node_on(urls[0], None) as other:
        for balance in range(2, 30):
            committed = await (other if balance % 2 else node).fill(float(balance))
            assert await node.look() == ({float(balance)}, committed.ts)
        assert node.reason is None


async def test_a_standby_that_replays_nothing_serves_what_it_has_with_the_later_commits_over_it(
    node: Node, urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_standby, "LAG_S", 60.0)
    before = await reads(urls[1])
    await ask(urls[1], "SELECT pg_wal_replay_pause()")
    try:
        committed = await node.fill(2.0)
        assert await node.look() == ({2.0}, committed.ts)
        await until_reads(urls[1], before)
        assert node.reason is None
        assert node.store.standby is not None
        assert node.store.standby.behind_s > 0
    finally:
        await ask(urls[1], "SELECT pg_wal_replay_resume()")
    await eventually_async(lambda: node.store.standby is not None and node.store.standby.behind_s == 0, "the standby to have the commit")


@pytest.mark.parametrize("bound", ["LAG_S", "LAG_BYTES"])
async def test_a_standby_that_is_too_far_behind_is_left_until_it_has_caught_up(
    node: Node, urls: tuple[str, str], bound: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgres_standby, bound, 0.3 if bound == "LAG_S" else 20_000)
    await ask(urls[1], "SELECT pg_wal_replay_pause()")
    try:
        balance = 2.0
        while node.reason is None:
            committed = await node.fill(balance)
            assert await node.look() == ({balance}, committed.ts)
            balance += 1
            await asyncio.sleep(0.05)
        assert "behind" in node.reason
        assert [record.levelname for record in caplog.records if "Reads go to the primary" in record.message] == ["WARNING"]
        committed = await node.fill(1000.0)
        assert await node.look() == ({1000.0}, committed.ts)
    finally:
        await ask(urls[1], "SELECT pg_wal_replay_resume()")
    await node.served()
    assert await node.look() == ({1000.0}, committed.ts)


async def test_a_standby_that_dies_costs_no_read_and_serves_again(node: Node, standby: PostgresServer, urls: tuple[str, str]) -> None:
    for balance, end in ((2.0, standby.kill), (3.0, standby.restart)):
        reading = asyncio.gather(*(node.look() for _ in range(20)))
        await asyncio.to_thread(end)
        committed = await node.fill(balance)
        assert await node.look() == ({balance}, committed.ts)
        assert all(found <= {balance - 1, balance} and len(found) == 1 for found, _ in await reading)
        if standby.process is None:
            await eventually_async(lambda: node.reason is not None, "it to be missed")
            assert "does not answer" in (node.reason or "")
            await asyncio.to_thread(standby.start)
        await node.served()
        assert (await node.look())[0] == {balance}


async def test_a_read_that_the_standby_ends_is_made_again(node: Node, urls: tuple[str, str]) -> None:
    snapshot = node.store.snapshot()
    first = await snapshot.scan(ACCOUNTS.by_id, WHOLE.lo, WHOLE.hi, reverse=False, limit=COUNT)
    reader = snapshot._reader
    assert reader is not None and reader.standby is not None
    await node.fill(2.0)
    await ask(urls[0], "VACUUM accounts")  # takes away what the snapshot's transaction may still read
    ended = f"SELECT confl_snapshot > 0 FROM pg_stat_database_conflicts WHERE datname = '{urls[1].rpartition('/')[2]}'"
    async with asyncio.timeout(20):
        while not await ask(urls[1], ended):
            pass
    again = await snapshot.scan(ACCOUNTS.by_id, WHOLE.lo, WHOLE.hi, reverse=False, limit=COUNT)
    assert [row.json for row in again] == [row.json for row in first]
    assert snapshot._reader is not reader
    snapshot.release()
    assert (await node.look())[0] == {2.0}


async def test_a_schema_in_force_on_the_primary_alone_is_not_read_by_on_the_standby(node: Node, urls: tuple[str, str]) -> None:
    await ask(urls[1], "SELECT pg_wal_replay_pause()")
    try:
        await node.store.create_table("more")
        await node.engine.push(CATALOG)
        committed = await node.fill(2.0)
        assert await node.look() == ({2.0}, committed.ts)
        await eventually_async(lambda: node.reason is not None, "the standby to be left")
    finally:
        await ask(urls[1], "SELECT pg_wal_replay_resume()")
    await node.served()
    assert await node.look() == ({2.0}, committed.ts)


async def test_what_is_no_standby_of_the_database_is_not_read_from(primary: PostgresServer, urls: tuple[str, str]) -> None:
    other = new_database(primary.url)
    async with node_on(other, None):
        pass
    for read_url, why in (
        (urls[0], "is no standby"),
        (other, "not of reactor-"),
        ("postgres://postgres@127.0.0.1:1/none", "does not answer"),
        ("http://127.0.0.1", "127.0.0.1"),
    ):
        async with node_on(urls[0], read_url) as node:
            committed = await node.fill(1.0)
            await eventually_async(lambda node=node, why=why: why in (node.reason or ""), why)  # type: ignore[misc]
            assert await node.look() == ({1.0}, committed.ts)


async def test_a_standby_with_commits_that_never_were_is_not_read_from(
    node: Node, urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a primary that was given up had told its standby alone."""
    async with node_on(*urls) as second:
        await second.served()
        # The log of the primary does not have the ts at which the standby is.
        standby = second.store._snapshots.standby
        assert standby is not None
        monkeypatch.setattr(standby, "_is_commit", lambda ts: second.store._is_commit(Ts(ts + 1)))
        standby.start_anew()
        await eventually_async(lambda: "commits that the primary does not have" in (second.reason or ""), "it to be left")
        assert (await second.look())[0] == {1.0}
