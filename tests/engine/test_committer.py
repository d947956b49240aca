"""Commits: in groups, answered when durable, built upon before, once for each request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest

from reactor.engine import committer
from reactor.engine.committer import Answer, Committed
from reactor.engine.engine import Engine
from reactor.engine.store import Commit, RequestKey, Store, Ts
from reactor.engine.transaction import Transaction
from reactor.errors import StoreError, StoreFull, StoreUnavailable, WriteConflict
from tests.engine.support import (
    CATALOG,
    ITEMS,
    Body,
    CalmDatabase,
    GatedStore,
    adding,
    item,
    mutation,
    putting,
    rank,
    ranks,
    running,
    settled,
)
from tests.simulation.model_store import ModelStore
from tests.support.databases import Databases

REQUEST = RequestKey("session", 1)

pytestmark = pytest.mark.anyio


class Pausing:
    """A mutation that reads item 1, waits to be let on, and writes item 2 unless it is only to read."""

    def __init__(self, *, writes: bool = True) -> None:
        self.writes = writes
        self.saw: list[float | None] = []
        self.go = asyncio.Event()

    async def __call__(self, tx: Transaction) -> float | None:
        found = await rank(tx, 1)
        self.saw.append(found)
        await self.go.wait()
        if self.writes:
            await putting(2)(tx)
        return found


async def refused_when_there_is_one(tx: Transaction) -> None:
    if await rank(tx, 1) is not None:
        raise LookupError("there is one already")


async def test_what_comes_while_a_group_is_written_is_the_next_group(store: GatedStore) -> None:
    async with running(store) as engine:
        store.gate.clear()
        sent = [mutation(engine, putting(0))]
        await store.writing.wait()
        sent += [mutation(engine, putting(number)) for number in range(1, 6)]
        await settled()
        store.gate.set()
        done = await asyncio.gather(*sent)
    assert [len(group) for group in store.groups] == [1, 5]
    ts = [committed.ts for committed in done]
    assert ts == sorted(set(ts)) == [commit.ts for group in store.groups for commit in group]


async def test_a_mutation_is_answered_and_seen_by_queries_only_when_it_is_durable(store: GatedStore) -> None:
    async with running(store) as engine:
        store.gate.clear()
        told: list[Committed] = []

        async def run(tx: Transaction) -> Answer:
            return Answer(b"1", (), await adding(1)(tx))

        sent = asyncio.ensure_future(engine.mutate(run, on_durable=told.append))
        await store.writing.wait()
        await settled()
        assert (sent.done(), told, await ranks(engine)) == (False, [], {})
        store.gate.set()
        committed = await sent
        assert (told, await ranks(engine)) == ([committed], {item(1): 1.0})


async def test_a_callback_that_fails_undoes_no_commit_and_is_logged(store: GatedStore, caplog: pytest.LogCaptureFixture) -> None:
    async with running(store) as engine:

        def fail(committed: Committed) -> None:
            raise RuntimeError("the socket is gone")

        async def run(tx: Transaction) -> Answer:
            return Answer(b"1", (), await adding(1)(tx))

        sent = [engine.mutate(run, request=REQUEST, on_durable=fail), engine.mutate(run)]
        assert sorted(committed.result for committed in await asyncio.gather(*sent)) == [1.0, 2.0]
        assert await ranks(engine) == {item(1): 2.0}
    assert "the socket is gone" in caplog.text


async def test_mutations_read_through_what_is_being_written(store: GatedStore) -> None:
    async with running(store) as engine:
        store.gate.clear()
        sent = [mutation(engine, adding(1)) for _ in range(5)]
        await settled()
        assert not any(task.done() for task in sent)
        store.gate.set()
        assert [committed.result for committed in await asyncio.gather(*sent)] == [1.0, 2.0, 3.0, 4.0, 5.0]


async def test_when_a_group_fails_its_callers_are_told_and_what_built_on_it_runs_again(store: GatedStore) -> None:
    async with running(store) as engine:
        store.gate.clear()
        store.failures = 1
        first = mutation(engine, adding(1, 10.0))
        await store.writing.wait()
        later = [mutation(engine, adding(1)), mutation(engine, adding(1)), mutation(engine, putting(2))]
        await settled()
        store.gate.set()
        with pytest.raises(StoreFull):
            await first
        done = await asyncio.gather(*later)
        assert [committed.result for committed in done] == [1.0, 2.0, None]
        assert await ranks(engine) == {item(1): 2.0, item(2): 0.0}


async def test_a_mutation_that_was_running_when_a_group_failed_runs_again(store: GatedStore) -> None:
    async with running(store) as engine:
        store.gate.clear()
        store.failures = 1
        first = mutation(engine, putting(1, rank=7.0))
        await store.writing.wait()
        body = Pausing()
        second = mutation(engine, body)
        await settled()
        store.gate.set()
        with pytest.raises(StoreFull):
            await first
        body.go.set()
        assert (await second).result is None
    assert body.saw == [7.0, None]


async def test_a_failure_is_told_when_what_it_rests_on_is_durable(store: GatedStore) -> None:
    async with running(store) as engine:
        store.gate.clear()
        first = mutation(engine, putting(1))
        await store.writing.wait()
        second = mutation(engine, refused_when_there_is_one)
        await settled()
        assert not second.done()
        store.gate.set()
        await first
        with pytest.raises(LookupError):
            await second


@pytest.mark.parametrize("when", ["before the group failed", "after the group failed"])
async def test_a_failure_that_rests_on_what_was_never_written_is_not_told(store: GatedStore, when: str) -> None:
    async with running(store) as engine:
        store.gate.clear()
        store.failures = 1
        first = mutation(engine, putting(1))
        await store.writing.wait()
        go = asyncio.Event()

        async def refuse(tx: Transaction) -> None:
            found = await rank(tx, 1)
            await go.wait()
            if found is not None:
                raise LookupError("there is one already")

        second = mutation(engine, refuse)
        if when.startswith("before"):
            go.set()
        await settled()
        store.gate.set()
        with pytest.raises(StoreFull):
            await first
        go.set()
        assert (await second).result is None


@pytest.mark.postgres_only("no connection to SQLite is lost: a write in the same process is known to have happened or not")
async def test_a_mutation_whose_answer_was_lost_is_applied_once(store: GatedStore) -> None:
    """The group is durable, and nobody knows: its callers get an error, and ask again."""
    async with running(store) as engine:
        store.cut_off = 1
        with pytest.raises(StoreError):
            await mutation(engine, adding(1), request=REQUEST, value=b"1")
        again = await mutation(engine, adding(1), request=REQUEST, value=b"2")
        assert (again.replayed, again.value, again.ts) == (True, b"1", store.groups[0][0].ts)
        assert (await mutation(engine, adding(1))).result == 2.0
        assert engine.head_ts == (await store.log_after(Ts(0)))[-1].ts
        assert await ranks(engine) == {item(1): 2.0}


async def test_a_request_that_committed_is_answered_as_the_first_time(store: GatedStore) -> None:
    async with running(store) as engine:
        first = await mutation(engine, adding(1), request=REQUEST, value=b"1")
        await mutation(engine, adding(1))
        again = await mutation(engine, adding(1), request=REQUEST, value=b"2")
        other = await mutation(engine, adding(1), request=RequestKey("session", 2), value=b"3")
    assert (again.ts, again.value, again.replayed) == (first.ts, b"1", True)
    assert (other.value, other.result, other.replayed) == (b"3", 3.0, False)


async def test_a_request_without_writes_is_remembered_too(store: GatedStore) -> None:
    async with running(store) as engine:

        async def look(tx: Transaction) -> float | None:
            return await rank(tx, 1)

        first = await mutation(engine, look, request=REQUEST, value=b"1")
        assert engine.head_ts == first.ts > 0
        again = await mutation(engine, look, request=REQUEST, value=b"2")
    assert (again.ts, again.value, again.replayed) == (first.ts, b"1", True)


@pytest.mark.parametrize("moment", ["while it runs", "while it is written"])
@pytest.mark.parametrize("gone", [False, True])
async def test_a_request_sent_twice_at_once_happens_once(store: GatedStore, moment: str, gone: bool) -> None:
    """``gone``: the connection over which it came first is closed, once the commit was accepted."""
    async with running(store) as engine:
        store.gate.clear()
        body = Pausing()
        first = mutation(engine, body, request=REQUEST, value=b"1")
        await settled()
        if moment == "while it is written":
            body.go.set()
            await store.writing.wait()
        second = mutation(engine, body, request=REQUEST, value=b"2")
        await settled()
        body.go.set()
        await store.writing.wait()
        if gone:
            first.cancel()
            await settled()
        assert not second.done()
        store.gate.set()
        again = await second
        assert (again.value, again.replayed, len(body.saw)) == (b"1", True, 1)
        if not gone:
            assert (await first).ts == again.ts


@pytest.mark.parametrize("how", ["its caller went away", "it failed"])
async def test_a_request_that_came_to_nothing_is_run_by_who_waited_for_it(store: GatedStore, how: str) -> None:
    async with running(store) as engine:
        go = asyncio.Event()

        async def fail(tx: Transaction) -> None:
            await go.wait()
            raise LookupError("not this time")

        first = mutation(engine, fail, request=REQUEST)
        await settled()
        second = mutation(engine, adding(1), request=REQUEST)
        await settled()
        assert not second.done()
        if how == "it failed":
            go.set()
        else:
            first.cancel()
        done = await second
        assert (done.result, done.replayed) == (1.0, False)
        with pytest.raises((LookupError, asyncio.CancelledError)):
            await first


async def test_one_who_waits_for_a_request_of_another_may_go_away(store: GatedStore) -> None:
    async with running(store) as engine:
        body = Pausing()
        first, second, third = (mutation(engine, body, request=REQUEST, value=b"1") for _ in range(3))
        await settled()
        second.cancel()
        await settled()
        assert not third.done()
        body.go.set()
        assert (await third).ts == (await first).ts
        assert len(body.saw) == 1


async def test_a_caller_that_goes_away_does_not_take_its_commit_along(store: GatedStore) -> None:
    async with running(store) as engine:
        store.gate.clear()
        first, second = mutation(engine, adding(1)), mutation(engine, adding(1))
        await store.writing.wait()
        first.cancel()
        await settled()
        assert first.cancelled()
        store.gate.set()
        assert (await second).result == 2.0
        assert await ranks(engine) == {item(1): 2.0}


async def test_a_caller_that_goes_away_before_the_commit_leaves_nothing(store: GatedStore) -> None:
    async with running(store) as engine:
        body = Pausing()
        sent = mutation(engine, body)
        await settled()
        sent.cancel()
        await settled()
        await mutation(engine, putting(3))
        assert await ranks(engine) == {item(3): 0.0}


@pytest.mark.parametrize("writes", [True, False])
async def test_a_mutation_runs_again_when_what_it_read_changed_also_when_it_only_read(store: GatedStore, writes: bool) -> None:
    async with running(store) as engine:
        body = Pausing(writes=writes)
        sent = mutation(engine, body)
        await settled()
        other = await mutation(engine, putting(1, rank=5.0))
        body.go.set()
        committed = await sent
    assert (body.saw, committed.result) == ([None, 5.0], 5.0)
    assert committed.ts > other.ts if writes else committed.ts == other.ts


async def test_a_mutation_does_not_run_again_when_something_else_changed(store: GatedStore) -> None:
    async with running(store) as engine:
        body = Pausing()
        sent = mutation(engine, body)
        await settled()
        await mutation(engine, putting(3))
        body.go.set()
        await sent
    assert body.saw == [None]


@pytest.mark.parametrize("through", [False, True])
async def test_a_mutation_that_only_read_waits_for_what_it_read_and_is_not_written(store: GatedStore, through: bool) -> None:
    async with running(store) as engine:
        await mutation(engine, putting(1))
        if through:
            store.gate.clear()
            mutation(engine, putting(2))
            await store.writing.wait()
        sent = mutation(engine, lambda tx: rank(tx, 1))
        await settled()
        assert sent.done() is not through
        store.gate.set()
        assert (await sent).result == 0.0
        log = await store.log_after(Ts(0))
        assert (await sent).ts == engine.head_ts == log[-1].ts
    assert len(log) == (2 if through else 1)


async def test_a_mutation_that_changes_nothing_in_the_end_leaves_no_trace(store: GatedStore) -> None:
    async with running(store) as engine:
        await mutation(engine, putting(1))

        async def there_and_back(tx: Transaction) -> None:
            for step in (putting(1, rank=3.0), putting(1), putting(2)):
                await step(tx)
            tx.write(ITEMS, item(2), None, None, (), 0)

        await mutation(engine, there_and_back)
    assert len(await store.log_after(Ts(0))) == 1


async def test_a_mutation_gives_up_and_says_which_table_was_in_its_way(store: GatedStore) -> None:
    async with running(store, mutation_attempts=3) as engine:
        attempts = 0

        async def body(tx: Transaction) -> None:
            nonlocal attempts
            attempts += 1
            await rank(tx, 1)
            await mutation(engine, putting(1, rank=float(attempts)))
            await putting(2)(tx)

        with pytest.raises(WriteConflict, match="'items'"):
            await mutation(engine, body)
        assert (attempts, await ranks(engine)) == (3, {item(1): 3.0})


async def locked_out(url: str) -> None:
    """Wait until another waits for the head of this database."""
    connection = await asyncpg.connect(url)
    async with asyncio.timeout(20):
        while not await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ):
            await asyncio.sleep(0)
    await connection.close()


@pytest.mark.postgres_only("there is no other node over SQLite")
async def test_what_another_node_committed_makes_a_mutation_run_again_and_what_built_on_it_too(
    databases: Databases, tmp_path: Path
) -> None:
    address = databases.new(tmp_path)
    store, elsewhere = GatedStore(await databases.open(address)), GatedStore(await databases.open(address))
    async with running(store) as engine, running(elsewhere) as other:
        store.gate.clear()
        first = mutation(engine, putting(5))
        await store.writing.wait()
        theirs = mutation(other, putting(1, rank=4.0))
        await locked_out(str(address))
        # The next group comes after the other node's commit, which this one has not heard of.
        body = Pausing()
        body.go.set()
        together = [mutation(engine, body), mutation(engine, adding(2)), mutation(engine, putting(6))]
        await settled()
        # Else it might get the head before the other one, which has to wake up first.
        store.door.clear()
        store.gate.set()
        await asyncio.gather(first, theirs)
        store.door.set()
        assert [committed.result for committed in await asyncio.gather(*together)] == [4.0, 1.0, None]
        assert (body.saw[0], body.saw[-1]) == (None, 4.0)
        # Who had read it ran again while the head was held.
        assert [len(group) for group in store.groups[:2]] == [1, 3]
    await store.close()
    await elsewhere.close()


class Counted:
    """A mutation that counts its runs."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.runs = 0

    async def __call__(self, tx: Transaction) -> object:
        self.runs += 1
        return await self.body(tx)


class InTheWay:
    """A mutation that reads item 3, in whose way another mutation comes as often as one can begin."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.others: list[asyncio.Task[Committed]] = []

    async def __call__(self, tx: Transaction) -> None:
        await rank(tx, 3)
        self.others.append(mutation(self.engine, putting(3, rank=float(len(self.others)))))
        await settled()
        await putting(4)(tx)


class Two:
    """Two nodes. What ``other`` commits is held back with the head, until ``let_go``."""

    def __init__(self, store: GatedStore, engine: Engine, elsewhere: GatedStore, other: Engine) -> None:
        self.store = store
        self.engine = engine
        self.elsewhere = elsewhere
        self.other = other

    async def hold(self, body: Body) -> None:
        self.elsewhere.gate.clear()
        self.theirs = mutation(self.other, body)
        await self.elsewhere.writing.wait()
        self.store.groups.clear()

    async def let_go(self) -> None:
        await settled()
        self.elsewhere.gate.set()
        await self.theirs


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    database = CalmDatabase()
    store, elsewhere = (GatedStore(cast(Store, ModelStore(database))) for _ in range(2))
    async with running(store) as engine, running(elsewhere) as other:
        yield Two(store, engine, elsewhere, other)


on_the_model = pytest.mark.sqlite_only("its store is a model of one with other nodes")


@on_the_model
async def test_only_who_had_read_what_another_node_committed_runs_again_or_read_what_such_a_one_wrote(two: Two) -> None:
    async def copy(tx: Transaction) -> None:
        await putting(2, rank=await rank(tx, 1) or 0.0)(tx)

    await two.hold(putting(1, rank=4.0))
    bodies = [Counted(body) for body in (adding(2), copy, adding(2), putting(6), adding(7), adding(7))]
    sent = [mutation(two.engine, body) for body in bodies]
    await two.let_go()
    await asyncio.gather(*sent)
    assert [body.runs for body in bodies] == [1, 2, 2, 1, 1, 1]
    assert [len(group) for group in two.store.groups] == [6]
    assert await ranks(two.engine) == {item(1): 4.0, item(2): 5.0, item(6): 0.0, item(7): 2.0}


@on_the_model
async def test_a_mutation_that_runs_reads_on_while_others_are_taken_back_and_commits_if_it_had_not_read_them(two: Two) -> None:
    await two.hold(putting(1, rank=4.0))
    sent = mutation(two.engine, adding(1))
    await settled()
    go = asyncio.Event()

    async def read(tx: Transaction, numbers: tuple[int, ...]) -> list[float | None]:
        before = [await rank(tx, number) for number in numbers[:1]]
        await go.wait()
        after = [await rank(tx, number) for number in numbers[1:]]
        await putting(5 + numbers[0])(tx)
        return before + after

    saw: list[list[float | None]] = []

    def reading(*numbers: int) -> Body:
        async def body(tx: Transaction) -> None:
            saw.append(await read(tx, numbers))

        return body

    apart = Counted(reading(2, 3))
    touched = Counted(reading(1, 1))
    both = [mutation(two.engine, body) for body in (apart, touched)]
    await two.let_go()
    await sent
    go.set()
    await asyncio.gather(*both)
    assert (apart.runs, touched.runs) == (1, 2)
    # It read the same twice, also when that was never to be.
    assert saw == [[None, None], [1.0, 1.0], [5.0, 5.0]]


@on_the_model
async def test_who_was_taken_back_runs_again_in_the_same_turn_although_one_is_favoured(two: Two) -> None:
    """Else a node whose every group has lost something never gets round to some."""
    await two.hold(putting(1, rank=4.0))
    stale = Counted(adding(1))
    sent = [mutation(two.engine, stale)]
    body = InTheWay(two.engine)
    blocked = Counted(body)
    sent.append(mutation(two.engine, blocked))
    while len(body.others) < 3:
        await settled()
    await settled()
    await two.let_go()
    await asyncio.gather(*sent, *body.others)
    assert (stale.runs, blocked.runs) == (2, 4)
    assert [len(group) for group in two.store.groups][:1] == [5], "three that came in the way, and both of these"


async def test_a_push_does_not_wait_for_mutations_that_are_to_be_favoured(store: GatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "FAVOUR_S", 3600.0)
    async with running(store) as engine:
        store.gate.clear()
        sent = mutation(engine, putting(1))
        await store.writing.wait()
        ran: list[int] = []

        async def favoured(number: int) -> None:
            async with engine._committer.favour():
                while (tx := engine._committer.begin(favoured=True)) is None:
                    await engine._committer.opened()
                ran.append(number)
                engine._committer.end(tx)

        waiting = [asyncio.ensure_future(favoured(number)) for number in range(3)]
        pushing = asyncio.ensure_future(engine.push(CATALOG))
        await settled()
        store.gate.set()
        async with asyncio.timeout(60):
            await asyncio.gather(pushing, sent, *waiting)
        assert ran == [0, 1, 2]


@on_the_model
async def test_what_other_nodes_commit_while_the_head_is_lost_again_and_again_is_not_held_against_a_mutation(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = two.store.head
    lost = 0

    @contextlib.asynccontextmanager
    async def head() -> AsyncIterator[Any]:
        if lost:
            await mutation(two.other, putting(3, rank=float(lost)))
        async with real() as held:
            write = held.write

            async def losing(commits: Sequence[Commit]) -> None:
                nonlocal lost
                if lost < 12:
                    lost += 1
                    raise StoreUnavailable("the connection is silent")
                await write(commits)

            held.write = losing
            yield held

    async def body(tx: Transaction) -> float | None:
        seen = await rank(tx, 3)
        await putting(4)(tx)
        return seen

    monkeypatch.setattr(two.store, "head", head)
    assert (await mutation(two.engine, body)).result == 12.0


async def test_a_mutation_that_lost_three_times_runs_while_no_other_begins(store: GatedStore) -> None:
    async with running(store) as engine:
        body = InTheWay(engine)
        others = [Counted(adding(8)) for _ in range(3)]
        sent = [mutation(engine, Counted(body)), *(mutation(engine, other) for other in others)]
        await asyncio.gather(*sent, *body.others)
        assert len(body.others) == 4
        *earlier, last = [(await other).ts for other in body.others]
        assert max(earlier) < (await sent[0]).ts < last


async def test_of_many_that_others_come_in_the_way_of_each_gets_its_turn(store: GatedStore) -> None:
    async with running(store) as engine:
        bodies = [InTheWay(engine) for _ in range(8)]
        counted = [Counted(body) for body in bodies]
        sent = [mutation(engine, body) for body in counted]
        gone = mutation(engine, InTheWay(engine))
        await settled()
        gone.cancel()
        await asyncio.gather(*sent)
        assert max(body.runs for body in counted) == 4


async def test_a_pause_waits_for_what_was_accepted_while_it_waited(store: GatedStore) -> None:
    """A mutation that is accepted in the very turn in which the last group became durable is not written during the pause."""
    async with running(store) as engine:
        store.gate.clear()
        body = Pausing()
        last = mutation(engine, body)
        await settled()

        async def run(tx: Transaction) -> Answer:
            return Answer(b"null", (), await putting(3)(tx))

        first = asyncio.ensure_future(engine.mutate(run, on_durable=lambda committed: body.go.set()))
        await store.writing.wait()
        entered = asyncio.Event()

        async def pause(engine: Engine) -> int:
            async with engine._committer.paused():
                entered.set()
                before = len(store.groups)
                await settled()
                return len(store.groups) - before

        paused = asyncio.ensure_future(pause(engine))
        await settled()
        assert not entered.is_set()
        store.gate.set()
        await first
        assert await paused == 0
        await last
