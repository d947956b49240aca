"""The row cache by what it answers, and by what it leaves to the snapshot."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactor.engine.row_cache import CHARACTER_BYTES, ROW_BYTES, RowCache
from reactor.engine.store import Row, Ts, Write
from reactor.values.order import encode_key, prefix_end
from tests.engine.support import ITEMS, change, item, text
from tests.support.examples import examples

pytestmark = pytest.mark.sqlite_only("a structure in memory")

BY_LIST = ITEMS.index("by_list")
LARGE = 1 << 20


def row(number: int, list: str = "a", rank: float = 0.0) -> Row:
    json = text(item(number), list, rank)
    return Row(item(number), Ts(1), json, ITEMS.keys_of_json(json)[BY_LIST.position])


def write(number: int, before: Row | None, after: Row | None) -> Write:
    return change(ITEMS, item(number), before and before.json, after and after.json)


def point(cache: RowCache, list: str, position: int, n: float = math.inf, *, reverse: bool = False) -> list[str] | None:
    prefix = encode_key(list)
    found = cache.point(BY_LIST, prefix, prefix_end(prefix), position, n, reverse=reverse)
    return None if found is None else [row.json for row in found]


def put_point(cache: RowCache, list: str, *rows: Row, n: float = math.inf, reverse: bool = False) -> None:
    """What a scan of the range with ``rows`` puts that asks for ``n``."""
    prefix = encode_key(list)
    found = [*reversed(rows)] if reverse else [*rows]
    whole = len(found) < n
    found = found if whole else found[: int(n)]
    for each in found:
        cache.put(each, cache.position)
    cache.put_point(BY_LIST, prefix, found, cache.position, whole=whole, reverse=reverse)


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
    cache.apply([write(3, row(3, "c"), row(3, "a", 1.0))], 2)
    assert point(cache, "a", 2) is None
    assert point(cache, "b", 2) == []
    cache.apply([write(2, row(2), row(2, "b"))], 3)
    assert point(cache, "b", 3) is None


def test_a_document_that_is_inserted_into_a_range_is_known_to_be_there_to_those_who_began_then_or_later() -> None:
    cache = RowCache(LARGE)
    put_point(cache, "a", row(1), row(3))
    cache.apply([write(2, None, row(2))], 1, pending=True)
    cache.apply([write(4, None, row(4))], 2, pending=True)
    assert point(cache, "a", 0) == [row(1).json, row(3).json]
    assert point(cache, "a", 1) == [row(1).json, row(2).json, row(3).json]
    assert point(cache, "a", 2) == [row(1).json, row(2).json, row(3).json, row(4).json]
    cache.apply([write(4, row(4), row(4, rank=0.0))], 3, pending=True)
    assert point(cache, "a", 1) is None, "when a version that is not the first one was inserted is not kept"


def test_whoever_began_before_another_nodes_insert_may_see_it_or_not_and_asks_the_snapshot() -> None:
    cache = RowCache(LARGE)
    put_point(cache, "a", row(1))
    cache.apply([write(2, None, row(2))], 1)
    assert point(cache, "a", 0) is None
    assert point(cache, "a", 1) == [row(1).json, row(2).json]


def test_an_older_version_of_a_document_does_not_tell_where_it_is_in_a_range() -> None:
    cache = RowCache(3 * (ROW_BYTES + 2 * CHARACTER_BYTES * len(row(0).json)))
    cache.apply([write(1, row(1, rank=1.0), row(1, rank=5.0))], 1)
    put_point(cache, "a", row(1, rank=5.0))
    for position in range(2, 5):
        cache.apply([write(position, None, row(position, "b"))], position)
    assert cache.row(item(1), math.inf) is None, "it was let go of"
    cache.apply([write(number, row(number, "b"), None) for number in range(2, 5)], 5)
    cache.put(row(1, rank=1.0), 0)
    cache.apply([write(8, None, row(8, rank=3.0))], 6)
    cache.apply([write(1, row(1, rank=5.0), row(1, rank=5.0))], 7)
    assert point(cache, "a", 7) in (None, [row(8, rank=3.0).json, row(1, rank=5.0).json])


def test_of_a_long_range_the_end_that_was_read_is_known_and_grows() -> None:
    cache = RowCache(LARGE)
    put_point(cache, "a", *map(row, range(20)), n=5, reverse=True)
    assert point(cache, "a", 0, 5, reverse=True) == [row(number).json for number in range(19, 14, -1)]
    assert point(cache, "a", 0, 6, reverse=True) is None and point(cache, "a", 0, 1) is None
    for number in range(30, 200):
        cache.apply([write(number, None, row(number))], number)
        cache.check_invariants()
    cache.apply([write(25, None, row(25))], 200)
    assert point(cache, "a", 200, 50, reverse=True) == [row(number).json for number in range(199, 149, -1)]
    cache.apply([write(3, row(3), None)], 201)
    assert point(cache, "a", 201, 5, reverse=True) is None, "where it was is not kept"


def test_of_a_long_range_the_beginning_is_known_whatever_is_appended() -> None:
    cache = RowCache(LARGE)
    put_point(cache, "a", *map(row, range(200, 210)), n=5)
    cache.apply([write(210, None, row(210))], 1)
    assert point(cache, "a", 1, 5) == [row(number).json for number in range(200, 205)]
    assert point(cache, "a", 1, 6) is None and point(cache, "a", 1) is None and point(cache, "a", 1, 1, reverse=True) is None
    for number in (*range(199, 190, -1), *range(189, 99, -1), 190):
        cache.apply([write(number, None, row(number))], 300 - number)
        cache.check_invariants()
    assert point(cache, "a", 200, 50) == [row(number).json for number in range(100, 150)]


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


State = dict[int, Row]
LOOKS = st.tuples(st.sampled_from("ab"), st.integers(1, 4) | st.just(math.inf), st.booleans())
WRITES = st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.integers(0, 2))


def rows_of(state: State, list: str, n: float = math.inf, *, reverse: bool = False) -> list[str]:
    found = sorted((row for row in state.values() if f'"list":"{list}"' in row.json), key=lambda row: row.key, reverse=reverse)
    return [row.json for row in found[: min(len(found), int(min(n, 99)))]]


@settings(max_examples=examples(200))
@given(st.lists(st.one_of(LOOKS, WRITES), max_size=40), st.integers(1, 12))
def test_it_never_holds_more_than_it_may_and_never_answers_wrongly(steps: list[Any], rows: int) -> None:
    cache = RowCache(rows * (ROW_BYTES + 200))
    # What may be seen at each position: of other nodes' commits after it some or none. Theirs are the odd documents.
    seen: list[list[State]] = [[{number: row(number) for number in range(0, 8, 2)}]]
    for position, (what, list, how) in enumerate(steps, 1):
        stored = dict(seen[-1][0])
        if isinstance(what, str):
            ordered = sorted((r for r in stored.values() if f'"list":"{what}"' in r.json), key=lambda r: r.key)
            put_point(cache, what, *ordered, n=list, reverse=how)
            for number in range(10):
                if number not in stored:
                    cache.put_absent(item(number), cache.position)
            cache.position = position
        else:
            before, after = stored.pop(what, None), None if what in stored and how == 2 else row(what, list, float(how))
            foreign = what % 2 == 1
            cache.apply([write(what, before, after)], position, pending=not foreign)
            if after is not None:
                stored[what] = after
            for states in seen if foreign else ():
                later = {number: row for number, row in states[-1].items() if number != what}
                states.append(later if after is None else {**later, what: after})
        seen.append([stored])
        cache.check_invariants()
        for number in range(10):
            known = cache.row(item(number), position)
            assert known is None or known.json == stored[number].json
            assert not (cache.absent(item(number), position) and number in stored)
        for at, states in enumerate(seen):
            for name, n, reverse in itertools.product("ab", (1, 2, 4, math.inf), (False, True)):
                found = point(cache, name, at, n, reverse=reverse)
                assert found is None or all(found == rows_of(state, name, n, reverse=reverse) for state in states)


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
        assert cache.point(BY_LIST, prefix, hi, 0, math.inf, reverse=False) is None
    assert cache.point(BY_LIST, prefix, prefix_end(prefix), 0, math.inf, reverse=False) == [row(1)]


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


def test_a_text_that_is_not_ascii_counts_as_what_it_takes() -> None:
    plain, wide = row(1, "a" * 500), row(1, "a" * 499 + "😀")
    cache = RowCache(ROW_BYTES + CHARACTER_BYTES * len(plain.json))
    cache.put(plain, 0)
    assert cache.row(item(1), 0) is not None
    cache = RowCache(ROW_BYTES + 2 * CHARACTER_BYTES * len(wide.json))
    cache.put(wide, 0)
    assert cache.row(item(1), 0) is None
    cache.check_invariants()
