"""The row cache by what it answers, and by what it leaves to the snapshot."""

from __future__ import annotations

import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.engine.row_cache import CHARACTER_BYTES, ROW_BYTES, RowCache
from reactor.engine.store import Row, Ts, Write
from reactor.values.order import encode_key, prefix_end
from tests.engine.support import ITEMS, change, item, text

pytestmark = pytest.mark.sqlite_only("a structure in memory")

BY_LIST = ITEMS.index("by_list")
LARGE = 1 << 20


def row(number: int, list: str = "a", rank: float = 0.0) -> Row:
    json = text(item(number), list, rank)
    return Row(item(number), Ts(1), json, ITEMS.keys_of_json(json)[BY_LIST.position])


def write(number: int, before: Row | None, after: Row | None) -> Write:
    return change(ITEMS, item(number), before and before.json, after and after.json)


def point(cache: RowCache, list: str, position: int) -> list[str] | None:
    prefix = encode_key(list)
    found = cache.point(BY_LIST, prefix, prefix_end(prefix), position)
    return None if found is None else [row.json for row in found]


def put_point(cache: RowCache, list: str, *rows: Row) -> None:
    prefix = encode_key(list)
    for each in rows:
        cache.put(each, cache.position)
    cache.put_point(BY_LIST, prefix, prefix_end(prefix), rows, cache.position)


def test_a_row_is_known_to_whoever_began_at_its_position_or_later() -> None:
    cache = RowCache(LARGE)
    cache.apply([write(1, None, row(1))], 5)
    assert cache.row(item(1), 4) is None
    assert cache.row(item(1), 5) == cache.row(item(1), 6)
    assert cache.row(item(1), 5) is not None


def test_what_an_earlier_transaction_read_is_not_taken_for_the_newest() -> None:
    cache = RowCache(LARGE)
    cache.apply([write(1, row(1), row(1, rank=2.0))], 5)
    cache.apply([write(1, row(1, rank=2.0), None)], 6)
    cache.put(row(1), 4)
    assert cache.row(item(1), 7) is None
    assert cache.row(item(1), math.inf) is not None, "as a text that was parsed it serves still"


def test_an_absence_is_known_until_a_document_is_there() -> None:
    cache = RowCache(LARGE)
    cache.apply([write(1, row(1), None)], 5)
    assert not cache.absent(item(1), 5)
    cache.put_absent(item(1), 5)
    assert cache.absent(item(1), 6) and not cache.absent(item(1), 4), "it was there before"
    cache.apply([write(1, None, row(1))], 7)
    assert not cache.absent(item(1), 7)


def test_an_earlier_transaction_does_not_say_that_a_newer_document_is_absent() -> None:
    cache = RowCache(LARGE)
    cache.apply([write(1, None, row(1))], 5)
    cache.put_absent(item(1), 4)
    assert not cache.absent(item(1), 5)
    cache.apply([write(1, row(1), None)], 6)  # taken back
    cache.put_absent(item(1), 5)
    assert not cache.absent(item(1), 6), "it may have read over its snapshot"


def test_a_range_holds_what_was_found_until_something_moves_into_or_out_of_it() -> None:
    cache = RowCache(LARGE)
    put_point(cache, "a", row(1), row(2))
    put_point(cache, "b")
    cache.apply([write(1, row(1), row(1, rank=0.0))], 1)
    assert point(cache, "a", 1) == [row(1).json, row(2).json]
    cache.apply([write(3, None, row(3, "a", 1.0))], 2)
    assert point(cache, "a", 2) is None
    assert point(cache, "b", 2) == []
    cache.apply([write(2, row(2), row(2, "b"))], 3)
    assert point(cache, "b", 3) is None


def test_a_range_whose_row_was_pushed_out_is_not_known() -> None:
    cache = RowCache(LARGE)
    put_point(cache, "a", row(1))
    cache.apply([write(1, row(1), None)], 1)
    assert point(cache, "a", 1) is None


def test_nothing_is_kept_in_no_space() -> None:
    cache = RowCache(0)
    put_point(cache, "a", row(1))
    cache.put_absent(item(3), 0)
    cache.apply([write(2, None, row(2))], 1)
    assert not cache.absent(item(3), 1)
    assert cache.row(item(1), math.inf) is None and cache.row(item(2), math.inf) is None and point(cache, "a", 1) is None
    cache.check_invariants()


def test_long_keys_take_no_more_room_than_there_is() -> None:
    tracemalloc.start()
    try:
        cache = RowCache(LARGE)
        for number in range(100):
            put_point(cache, f"{number}" + "a" * 100_000)  # ranges that are asked for and hold nothing
            long = row(number, f"{number}" + "b" * 100_000)
            cache.apply([write(number, None, long)], 2 * number + 1)
            cache.apply([write(number, long, None)], 2 * number + 2)
        cache.check_invariants()
        del long
        assert tracemalloc.get_traced_memory()[0] < 2 * LARGE
    finally:
        tracemalloc.stop()


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.booleans()), max_size=60), st.integers(1, 5))
def test_it_never_holds_more_than_it_may_and_never_answers_wrongly(steps: list[tuple[int, str, bool]], rows: int) -> None:
    cache = RowCache(rows * (ROW_BYTES + 200))
    stored: dict[int, Row] = {}
    for position, (number, list, look) in enumerate(steps, 1):
        if look:
            put_point(cache, list, *sorted((r for r in stored.values() if f'"list":"{list}"' in r.json), key=lambda r: r.key))
            if number not in stored:
                cache.put_absent(item(number), cache.position)
            cache.position = position
        else:
            after = None if number in stored and position % 3 == 0 else row(number, list, float(position % 2))
            cache.apply([write(number, stored.get(number), after)], position)
            stored.pop(number, None)
            if after is not None:
                stored[number] = after
        cache.check_invariants()
        for each in range(10):
            known = cache.row(item(each), position)
            assert known is None or known.json == stored[each].json
            assert not (cache.absent(item(each), position) and each in stored)
        for name in "ab":
            expected = [r.json for r in sorted(stored.values(), key=lambda r: r.key) if f'"list":"{name}"' in r.json]
            assert point(cache, name, position) in (None, expected)


def test_what_was_put_or_written_longest_ago_goes_first() -> None:
    count = 1000
    cache = RowCache(count * (ROW_BYTES + CHARACTER_BYTES * len(row(0).json)))
    for number in range(count):
        cache.apply([write(number, None, row(number))], number + 1)
    for number in range(0, count, 2):  # written again, half of them are the newest
        cache.apply([write(number, row(number), row(number, rank=1.0))], count + number + 1)
    for number in range(count, count + count // 4):
        cache.apply([write(number, None, row(number))], 2 * count + number + 1)
        cache.check_invariants()
    known = [number for number in range(count + count // 4) if cache.row(item(number), math.inf) is not None]
    odd = [number for number in range(1, count, 2) if number in known]
    assert odd == list(range(odd[0], count, 2)) and len(odd) >= count // 4 - 8, "the oldest went, and hardly more than had to"
    assert set(known) == {*odd, *range(0, count, 2), *range(count, count + count // 4)}


def test_a_range_goes_when_it_is_older_than_the_rows() -> None:
    cache = RowCache(20 * (ROW_BYTES + CHARACTER_BYTES * len(row(0).json)))
    put_point(cache, "a", row(1))
    for number in range(2, 40):
        cache.apply([write(number, None, row(number, "b")), write(1, row(1), row(1, rank=0.0))], number)
    assert cache.row(item(1), 40) is not None and point(cache, "a", 40) is None
    put_point(cache, "a", row(1))
    cache.apply([write(40, None, row(40, "b"))], 41)
    assert point(cache, "a", 41) == [row(1).json]
    cache.check_invariants()


def test_only_an_interval_that_covers_a_prefix_is_answered_by_what_is_known_of_the_prefix() -> None:
    cache = RowCache(LARGE)
    put_point(cache, "a", row(1))
    prefix = encode_key("a")
    for hi in (prefix, prefix[:-1], prefix + b"\xff", b"", row(1).key):
        assert cache.point(BY_LIST, prefix, hi, 0) is None
    assert cache.point(BY_LIST, prefix, prefix_end(prefix), 0) == [row(1)]


def test_it_tells_under_which_prefixes_nothing_moved_once_it_takes_note() -> None:
    cache = RowCache(LARGE)
    a, b = encode_key("a"), encode_key("b")
    cache.apply([write(1, None, row(1))], 1)
    assert not cache.unmoved(BY_LIST, a, 1), "of an index that no range was kept of, moves are not noted"
    put_point(cache, "b")
    cache.apply([write(1, row(1), row(1, rank=2.0))], 2)
    assert not cache.unmoved(BY_LIST, a, 0), "that was before it was noted"
    assert not cache.unmoved(BY_LIST, a, 1) and cache.unmoved(BY_LIST, a, 2), "another rank is another place within the range"
    cache.apply([write(2, None, row(2))], 3)
    assert not cache.unmoved(BY_LIST, a, 2) and cache.unmoved(BY_LIST, a, 3) and cache.unmoved(BY_LIST, b, 2)
    assert not cache.unmoved(BY_LIST, b"", 2), "under the prefix of no field lie all keys"
    cache.clear(9)
    assert not cache.unmoved(BY_LIST, a, 9)
