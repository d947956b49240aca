"""Transactions: what they read through the layers on the snapshot, what that adds to the read set, and what is undone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from reactor.engine.eager import start
from reactor.engine.store import Row, Ts, Write
from reactor.engine.transaction import MOST_ROWS, Base, Savepoint, Scan, Transaction
from reactor.engine.write_set import Image, Overlay
from reactor.errors import LimitExceeded, ReactorError
from reactor.limits import Limits
from reactor.schema.catalog import IndexDef
from reactor.values.interval import FULL, Interval
from reactor.values.order import encode_key, prefix_end
from tests.engine.support import ITEMS, CalmDatabase, change, item, text
from tests.simulation.model_store import ModelStore
from tests.support.examples import examples

pytestmark = pytest.mark.sqlite_only("a transaction over a snapshot in memory")

T = TypeVar("T")

Model = dict[str, str]

BY_LIST, BY_RANK = ITEMS.index("by_list"), ITEMS.index("by_rank")
A = encode_key("a")
INTERVALS: list[tuple[IndexDef, Interval]] = [
    (ITEMS.by_id, FULL),
    (BY_RANK, FULL),
    (BY_RANK, Interval(encode_key(1.0), encode_key(3.0), b"")),
    (BY_LIST, Interval(A, prefix_end(A), A)),
    (BY_LIST, Interval(A + encode_key(2.0), prefix_end(A), A)),
]

NUMBERS = st.integers(0, 9)
FIELDS = st.tuples(st.sampled_from("ab"), st.integers(0, 4).map(float))
DOCUMENTS = st.dictionaries(NUMBERS, FIELDS)
READING = st.tuples(st.just("scan"), st.sampled_from(INTERVALS), st.booleans())
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), NUMBERS, st.none() | FIELDS),
        st.tuples(st.just("savepoint")),
        st.tuples(st.just("rollback"), st.integers(0, 3)),
        READING,
        st.tuples(st.just("next"), st.integers(0, 5), st.integers(1, 4)),
        st.tuples(st.just("one"), st.integers(0, 5)),
    ),
    max_size=25,
)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run what never suspends."""
    result = start(work)
    assert not isinstance(result, asyncio.Task)
    return result


def key_of(index: IndexDef, json: str, id: str) -> bytes:
    return id.encode() if index.position < 0 else ITEMS.keys_of_json(json)[index.position]


def rows_in(model: Model, index: IndexDef, lo: bytes, hi: bytes, reverse: bool) -> list[tuple[bytes, str]]:
    found = [(key, json) for id, json in model.items() if lo <= (key := key_of(index, json, id)) < hi]
    return sorted(found, reverse=reverse)


def model_of(documents: dict[int, tuple[str, float]]) -> Model:
    return {item(number): text(item(number), *fields) for number, fields in documents.items()}


def base_of(committed: Model, accepted: dict[int, tuple[str, float] | None]) -> tuple[Base, Model]:
    """A snapshot with ``committed``, what was accepted on top of it, and newer images that are not to be seen."""
    database = CalmDatabase()
    database.tables["items"] = {id: (Ts(1), json, ITEMS.keys_of_json(json)) for id, json in committed.items()}
    database.remember()
    overlay = Overlay()
    model = dict(committed)
    overlay.put(Image(1, ITEMS, item(0), None, ()))  # at or below what the snapshot has
    for position, (number, fields) in enumerate(accepted.items(), 2):
        id = item(number)
        json = None if fields is None else text(id, *fields)
        overlay.put(Image(position, ITEMS, id, json, () if json is None else ITEMS.keys_of_json(json)))
        model.pop(id, None)
        if json is not None:
            model[id] = json
    upto = len(accepted) + 1
    for number in range(3):
        json = text(item(number), "a", 1.5)
        overlay.put(Image(upto + 1, ITEMS, item(number), json, ITEMS.keys_of_json(json)))
    return Base(ModelStore(database).snapshot(), overlay, 1, upto), model


def transaction(base: Base, **limits: Any) -> Transaction:
    return Transaction(base, now_ms=1.0, limits=Limits(**limits), read_only=False)


class CountingSnapshot:
    """A snapshot that notes how many rows each scan of it gave."""

    def __init__(self, of: Any) -> None:
        self._of = of
        self.ts = of.ts
        self.scans: list[int] = []

    async def scan(self, index: IndexDef, lo: bytes, hi: bytes, *, reverse: bool, limit: int) -> list[Row]:
        rows: list[Row] = await self._of.scan(index, lo, hi, reverse=reverse, limit=limit)
        self.scans.append(len(rows))
        return rows


def counted(documents: int, **limits: Any) -> tuple[Transaction, CountingSnapshot]:
    """A transaction over so many documents of one list, and what counts its scans."""
    base, _ = base_of(model_of({number: ("a", float(number)) for number in range(documents)}), {})
    snapshot: Any = CountingSnapshot(base.snapshot)
    return transaction(Base(snapshot), **limits), snapshot


class Machine:
    """A transaction and its model, side by side."""

    def __init__(self, base: Base, model: Model) -> None:
        self.tx = transaction(base)
        self.found = dict(model)
        self.model = model
        self.savepoints: list[tuple[Savepoint, Model]] = []
        self.scans: list[tuple[Scan, IndexDef, list[bytes], bool]] = []

    async def do(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("write", number, fields):
                await self.write(item(number), None if fields is None else text(item(number), *fields))
            case ("savepoint",):
                self.savepoints.append((self.tx.savepoint(), dict(self.model)))
            case ("rollback", deep) if self.savepoints:
                del self.savepoints[max(1, len(self.savepoints) - deep) :]
                savepoint, self.model = self.savepoints.pop()
                self.tx.rollback(savepoint)
            case ("scan", (index, interval), reverse):
                self.scans.append((self.tx.scan(index, interval, reverse=reverse), index, [interval.lo, interval.hi], reverse))
            case ("next", at, n) if self.scans:
                scan = self.scans[at % len(self.scans)][0]
                self.check(at, n, [row.json for row in await scan.next(n)])
            case ("one", at) if self.scans:
                row = await self.scans[at % len(self.scans)][0].one()
                self.check(at, 1, [] if row is None else [row.json])

    async def write(self, id: str, json: str | None) -> None:
        row = await self.tx.get(ITEMS, id)
        assert (None if row is None else row.json) == self.model.get(id)
        if row is None and json is None:
            return
        self.tx.write(ITEMS, id, row, json, () if json is None else ITEMS.keys_of_json(json), 1)
        self.model.pop(id, None)
        if json is not None:
            self.model[id] = json

    def check(self, at: int, n: int, got: list[str]) -> None:
        """A scan goes on from the last row that it gave, in what is there by now."""
        _, index, span, reverse = self.scans[at % len(self.scans)]
        rows = rows_in(self.model, index, span[0], span[1], reverse)[:n]
        assert got == [json for _, json in rows]
        if len(rows) < n:
            span[0] = span[1]  # over, whatever comes later
        elif reverse:
            span[1] = rows[-1][0]
        else:
            span[0] = rows[-1][0] + b"\x00"

    async def finish(self) -> None:
        for index, interval in INTERVALS:
            for reverse in (False, True):
                expected = rows_in(self.model, index, interval.lo, interval.hi, reverse)
                assert [(row.key, row.json) for row in await self.tx.scan(index, interval, reverse=reverse).rest()] == expected
                assert await self.tx.scan(index, interval, reverse=reverse).count() == len(expected)
        changed = {id for id in self.found.keys() | self.model.keys() if self.found.get(id) != self.model.get(id)}
        writes = {write.id: structs.replace(write, row=None) for write in self.tx.writes()}
        assert writes == {id: change(ITEMS, id, self.found.get(id), self.model.get(id)) for id in changed}


@settings(max_examples=examples(100))
@given(DOCUMENTS, st.dictionaries(NUMBERS, st.none() | FIELDS, max_size=4), STEPS)
def test_a_transaction_reads_all_layers_as_one_and_undoes_nested_writes(
    committed: dict[int, tuple[str, float]], accepted: dict[int, tuple[str, float] | None], steps: list[tuple[Any, ...]]
) -> None:
    async def play() -> None:
        machine = Machine(*base_of(model_of(committed), accepted))
        for step in steps:
            await machine.do(step)
        await machine.finish()

    run(play())


@given(DOCUMENTS, st.sampled_from(INTERVALS), st.booleans(), st.integers(1, 5), NUMBERS, st.none() | FIELDS)
def test_a_scan_that_stopped_early_is_touched_exactly_by_what_would_have_changed_it(
    documents: dict[int, tuple[str, float]],
    where: tuple[IndexDef, Interval],
    reverse: bool,
    n: int,
    number: int,
    after: tuple[str, float] | None,
) -> None:
    index, interval = where
    before = documents.get(number)
    if before == after:
        return
    changed = {other: fields for other, fields in documents.items() if other != number} | ({} if after is None else {number: after})

    async def read(documents: dict[int, tuple[str, float]], by_one: bool) -> tuple[list[str], Transaction]:
        tx = transaction(base_of(model_of(documents), {})[0])
        scan = tx.scan(index, interval, reverse=reverse)
        rows = [await scan.one() for _ in range(n)] if by_one else await scan.next(n)
        return [row.json for row in rows if row is not None], tx

    for by_one in (False, True):
        result, tx = run(read(documents, by_one))
        again, _ = run(read(changed, by_one))
        id = item(number)
        write = change(ITEMS, id, *(None if fields is None else text(id, *fields) for fields in (before, after)))
        assert tx.read_set.overlaps([write]) == (result != again)


def written(number: int) -> list[Write]:
    return [change(ITEMS, item(number), None, text(item(number), "a", 1.0))]


def test_a_get_of_what_is_missing_is_touched_by_its_insert_alone() -> None:
    tx = transaction(base_of({}, {})[0])
    assert run(tx.get(ITEMS, item(5))) is None
    assert [number for number in range(10) if tx.read_set.overlaps(written(number))] == [5]


def test_a_scan_that_never_began_has_read_nothing() -> None:
    tx = transaction(base_of({}, {})[0])
    tx.scan(BY_RANK, FULL)
    assert not tx.read_set.overlaps(written(5))


def test_what_a_rolled_back_call_read_is_still_read() -> None:
    tx = transaction(base_of({}, {})[0])
    savepoint = tx.savepoint()
    run(tx.get(ITEMS, item(5)))
    tx.rollback(savepoint)
    assert tx.read_set.overlaps(written(5))


def test_a_scan_forgets_what_it_fetched_ahead_of_a_rollback() -> None:
    """The row that the nested call wrote was fetched with the first one, before the call was undone."""

    async def play() -> list[str | None]:
        tx = transaction(base_of(model_of({1: ("a", 1.0)}), {})[0])
        savepoint = tx.savepoint()
        json = text(item(2), "a", 2.0)
        tx.write(ITEMS, item(2), None, json, ITEMS.keys_of_json(json), 1)
        scan = tx.scan(BY_RANK, FULL)
        first = await scan.one()
        tx.rollback(savepoint)
        second = await scan.one()
        return [row and row.id for row in (first, second)]

    assert run(play()) == [item(1), None]


def test_writes_that_were_undone_do_not_count_towards_the_limit() -> None:
    async def write(tx: Transaction, number: int) -> None:
        json = text(item(number), "a", 1.0)
        tx.write(ITEMS, item(number), None, json, ITEMS.keys_of_json(json), 10)

    async def play() -> None:
        tx = transaction(base_of({}, {})[0], documents_written=2)
        for _ in range(3):
            savepoint = tx.savepoint()
            await write(tx, 1)
            await write(tx, 2)
            tx.rollback(savepoint)
        assert tx.usage.bytes_written == 0
        await write(tx, 1)
        await write(tx, 2)
        with pytest.raises(LimitExceeded):
            await write(tx, 3)

    run(play())


def test_a_read_that_fails_at_a_limit_is_still_in_the_read_set() -> None:
    tx = transaction(base_of(model_of({number: ("a", 1.0) for number in range(6)}), {})[0], documents_read=3)
    with pytest.raises(LimitExceeded):
        run(tx.scan(ITEMS.by_id, FULL).rest())
    assert [number for number in range(6) if tx.read_set.overlaps(written(number))] == [0, 1, 2, 3]


@pytest.mark.parametrize("reading", ["next", "rest", "count"])
def test_a_scan_has_few_rows_in_memory_beyond_the_bytes_that_may_be_read(reading: str) -> None:
    tx, snapshot = counted(1000, bytes_read=len(text(item(0), "a", 0.0)) * 200)
    scan = tx.scan(ITEMS.by_id, FULL)
    with pytest.raises(LimitExceeded, match="bytes of documents"):
        run({"next": lambda: scan.next(1000), "rest": scan.rest, "count": scan.count}[reading]())
    assert sum(snapshot.scans) <= 200 + MOST_ROWS


async def first(tx: Transaction, reverse: bool) -> Row | None:
    return next(iter(await tx.scan(BY_LIST, INTERVALS[3][1], reverse=reverse).next(1)), None)


@pytest.mark.parametrize("reverse", [False, True])
def test_taking_the_first_document_away_again_and_again_reads_none_twice(reverse: bool) -> None:
    tx, snapshot = counted(300)

    async def drain() -> list[str]:
        taken: list[str] = []
        while (row := await first(tx, reverse)) is not None:
            taken.append(row.id)
            tx.write(ITEMS, row.id, row, None, (), 0)
        return taken

    assert run(drain()) == [item(number) for number in (reversed(range(300)) if reverse else range(300))]
    assert sum(snapshot.scans) <= 4 * 300


@pytest.mark.parametrize("reverse", [False, True])
def test_a_first_document_below_many_deleted_ones_takes_few_statements(reverse: bool) -> None:
    tx, snapshot = counted(600)

    async def play() -> Row | None:
        for row in (await tx.scan(BY_LIST, INTERVALS[3][1], reverse=reverse).rest())[:-1]:
            tx.write(ITEMS, row.id, row, None, (), 0)
        snapshot.scans.clear()
        return await first(tx, reverse)

    row = run(play())
    assert row is not None and row.id == item(0 if reverse else 599)
    assert len(snapshot.scans) <= 16


@pytest.mark.parametrize("reverse", [False, True])
def test_what_a_rolled_back_call_had_taken_away_is_found_again(reverse: bool) -> None:
    tx, _ = counted(20)

    async def play() -> list[str]:
        found: list[str] = []
        for _ in range(2):
            savepoint = tx.savepoint()
            for _ in range(5):
                row = await first(tx, reverse)
                assert row is not None
                found.append(row.id)
                tx.write(ITEMS, row.id, row, None, (), 0)
            tx.rollback(savepoint)
        return found

    found = run(play())
    assert found[:5] == found[5:] == [item(19 - number if reverse else number) for number in range(5)]


USES: dict[str, Callable[[Transaction, Scan], Any]] = {
    "get": lambda tx, scan: run(tx.get(ITEMS, item(1))),
    "scan": lambda tx, scan: tx.scan(BY_RANK, FULL),
    "a scan's rest": lambda tx, scan: run(scan.rest()),
    "a scan's one": lambda tx, scan: run(scan.one()),
    "write": lambda tx, scan: tx.write(ITEMS, item(1), None, None, (), 0),
    "savepoint": lambda tx, scan: tx.savepoint(),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("nested", [False, True])
def test_a_closed_transaction_refuses_every_use(use: str, nested: bool) -> None:
    tx = transaction(base_of({}, {})[0])
    if nested:
        tx = tx.ended()
    scan = Scan(tx, BY_RANK, FULL, False)
    tx.close()
    with pytest.raises(ReactorError) as refused:
        USES[use](tx, scan)
    assert refused.value.code == "TransactionClosed"
