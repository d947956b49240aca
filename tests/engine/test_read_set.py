"""Read sets and the index of subscriptions: a write overlaps exactly what looked where it was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.engine import recent
from reactor.engine.read_set import ReadSet
from reactor.engine.recent import Change, Recent
from reactor.engine.store import Write
from reactor.engine.subscriptions import Subscriptions
from reactor.schema.catalog import IndexDef, Table
from reactor.values.interval import END, FULL, Interval
from reactor.values.order import encode_key, prefix_end
from tests.engine.support import ITEMS, OTHERS, change, item, text

pytestmark = pytest.mark.sqlite_only("a structure in memory")

LISTS = ["", "a", "a\x00", "ab", "b"]
RANKS = [-1.0, -0.0, 0.0, 1.0, 2.5]

Fields = dict[str, Any]


class Look(NamedTuple):
    """A range that was read, and the documents that lie in it, told by their fields."""

    of: IndexDef
    interval: Interval
    sees: Callable[[Fields], bool]


def total(number: float) -> tuple[float, bool]:
    """Orders −0 below 0, as keys do."""
    return (number, str(number)[0] != "-")


def within(prefix: bytes, lo: float, hi: float) -> Interval:
    return Interval(prefix + encode_key(lo), prefix + encode_key(hi), prefix)


def looks_at(table: Table) -> st.SearchStrategy[Look]:
    by_list, by_rank, by_id = table.index("by_list"), table.index("by_rank"), table.by_id

    def of_list(list: str) -> Look:
        prefix = encode_key(list)
        return Look(by_list, Interval(prefix, prefix_end(prefix), prefix), lambda d: d["list"] == list)

    def of_both(list: str, rank: float) -> Look:
        prefix = encode_key(list) + encode_key(rank)
        return Look(by_list, Interval(prefix, prefix_end(prefix), prefix), lambda d: (d["list"], total(d["rank"])) == (list, total(rank)))

    def of_part(list: str, lo: float, hi: float) -> Look:
        interval = within(encode_key(list), lo, hi)
        return Look(by_list, interval, lambda d: d["list"] == list and total(lo) <= total(d["rank"]) < total(hi))

    def of_lists(lo: str, hi: str) -> Look:
        interval = Interval(encode_key(lo), encode_key(hi), b"")
        return Look(by_list, interval, lambda d: lo.encode() <= d["list"].encode() < hi.encode())

    def of_ranks(lo: float, hi: float) -> Look:
        return Look(by_rank, within(b"", lo, hi), lambda d: total(lo) <= total(d["rank"]) < total(hi))

    def of_id(number: int) -> Look:
        id = item(number, table)
        return Look(by_id, Interval(id.encode(), id.encode() + b"\x00", id.encode()), lambda d: d["_id"] == id)

    def of_ids(number: int) -> Look:
        id = item(number, table)
        return Look(by_id, Interval(id.encode(), END, b""), lambda d: d["_id"] >= id)

    lists, ranks, numbers = st.sampled_from(LISTS), st.sampled_from(RANKS), st.integers(0, 3)
    return st.one_of(
        st.just(Look(by_rank, FULL, lambda d: True)),
        st.builds(of_list, lists),
        st.builds(of_both, lists, ranks),
        st.builds(of_part, lists, ranks, ranks),
        st.builds(of_lists, lists, lists),
        st.builds(of_ranks, ranks, ranks),
        st.builds(of_id, numbers),
        st.builds(of_ids, numbers),
    )


@st.composite
def writes_of_one(draw: st.DrawFn) -> Write:
    table = draw(st.sampled_from([ITEMS, OTHERS]))
    id = item(draw(st.integers(0, 3)), table)
    states = st.one_of(st.none(), st.builds(lambda list, rank: text(id, list, rank), st.sampled_from(LISTS), st.sampled_from(RANKS)))
    before = draw(states)
    after = draw(states if before is not None else states.filter(lambda json: json is not None))
    return change(table, id, before, after)


LOOKS = st.lists(looks_at(ITEMS) | looks_at(OTHERS), max_size=6)
WRITES = st.lists(writes_of_one(), max_size=4)


def is_seen(look: Look, write: Write) -> bool:
    documents = [orjson.loads(json) for json in (write.before, write.after) if json is not None]
    return write.table.name == look.of.table and any(map(look.sees, documents))


def read_set_of(looks: list[Look]) -> ReadSet:
    made = ReadSet()
    for look in looks:
        made.add(look.of, look.interval.lo, look.interval.hi, look.interval.prefix)
    return made


@given(LOOKS, WRITES)
def test_a_read_set_overlaps_writes_exactly_where_it_looked(looks: list[Look], writes: list[Write]) -> None:
    assert read_set_of(looks).overlaps(writes) == any(is_seen(look, write) for look in looks for write in writes)


@pytest.mark.parametrize(("rank", "before", "after"), [(0.0, False, False), (1.0, False, True), (2.0, False, False)])
def test_a_span_that_is_widened_covers_what_it_then_reaches(rank: float, before: bool, after: bool) -> None:
    index = ITEMS.index("by_list")
    read_set = ReadSet()
    read = within(encode_key("a"), 1.0, 1.0)
    span = read_set.add(index, read.lo, read.hi, read.prefix)
    writes = [change(ITEMS, item(1), None, text(item(1), "a", rank))]
    assert read_set.overlaps(writes) is before
    span[1] = encode_key("a") + encode_key(2.0)
    assert read_set.overlaps(writes) is after


@given(st.lists(st.tuples(st.integers(0, 4), st.none() | LOOKS), max_size=12), WRITES)
def test_subscriptions_find_exactly_those_whose_read_set_was_touched(
    steps: list[tuple[int, list[Look] | None]], writes: list[Write]
) -> None:
    subscriptions: Subscriptions[int] = Subscriptions()
    model: dict[int, list[Look]] = {}
    for subscriber, looks in steps:
        if looks is None:
            subscriptions.remove(subscriber)
            model.pop(subscriber, None)
        else:
            subscriptions.replace(subscriber, read_set_of(looks))
            model[subscriber] = looks
        subscriptions.check_invariants()
    assert len(subscriptions) == len(model)
    touched = {subscriber for subscriber, looks in model.items() if any(is_seen(look, write) for look in looks for write in writes)}
    assert set(subscriptions.overlapping(writes)) == touched


def test_subscriptions_keep_nothing_of_those_that_left() -> None:
    subscriptions: Subscriptions[str] = Subscriptions()
    index = ITEMS.index("by_rank")
    for name in ("one", "two"):
        read_set = ReadSet()
        read_set.add(index, FULL.lo, FULL.hi, FULL.prefix)
        subscriptions.replace(name, read_set)
    subscriptions.remove("one")
    subscriptions.remove("two")
    assert (len(subscriptions), subscriptions._buckets) == (0, {})


@given(st.lists(st.tuples(WRITES, st.booleans(), st.integers(0, 30), LOOKS), max_size=25), st.sampled_from([1, 1000]))
def test_the_newest_change_inside_a_read_set_is_found_among_few_and_many(
    steps: list[tuple[list[Write], bool, int, list[Look]]], noted: int
) -> None:
    """Each step adds a change, drops some of the oldest, and looks for what was written since a position that is still kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent, "NOTED", noted)
        kept, model, dropped = Recent(), list[Change](), 0
        for position, (writes, undone, back, looks) in enumerate(steps, 1):
            change = Change(position, writes, undone)
            kept.add(change)
            model.append(change)
            after = max(dropped, position - back)
            for undone_only in (False, True):
                inside = [
                    change
                    for change in model[after:]
                    if (change.undone or not undone_only) and any(is_seen(look, write) for look in looks for write in change.writes)
                ]
                found = kept.overlapping(read_set_of(looks), after, undone_only=undone_only)
                assert found is (inside[-1] if inside else None)
            dropped = max(dropped, position - 12)
            kept.drop_upto(dropped)


def test_of_changes_that_are_forgotten_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "NOTED", 20)
    kept, read_set = Recent(), ReadSet()
    for position in range(1, 200):
        kept.add(Change(position, [change(ITEMS, item(position), None, text(item(position), f"{position}", 0.0))], False))
        assert kept.overlapping(read_set, max(0, position - 10)) is None
        kept.drop_upto(position - 10)
        assert len(kept._written) <= 20 + 10 * 8
