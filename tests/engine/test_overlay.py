"""The overlay against a list of images."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.engine.store import Row, Ts
from reactor.engine.write_set import Image, Overlay
from reactor.values.interval import FULL
from tests.engine.support import ITEMS, OTHERS, item, text

pytestmark = pytest.mark.sqlite_only("a structure in memory")

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.sampled_from([ITEMS, OTHERS]),
            st.integers(0, 3),
            st.none() | st.tuples(st.sampled_from("ab"), st.integers(0, 3).map(float)),
            st.integers(0, 2),
        ),
        st.tuples(st.just("drop_above"), st.integers(0, 12)),
        st.tuples(st.just("drop_upto"), st.integers(0, 12)),
    ),
    max_size=20,
)


def found_in(images: list[Image], id: str, above: int, upto: int) -> Image | None:
    latest = [image for image in images if image.id == id and image.position <= upto]
    return latest[-1] if latest and latest[-1].position > above else None


def check(overlay: Overlay, images: list[Image]) -> None:
    overlay.check_invariants()
    last = images[-1].position if images else 0
    assert bool(overlay) == bool(images)
    newest = {image.id: image for image in images}
    assert {image.id: image for image in overlay.latest()} == newest
    for table in (ITEMS, OTHERS):
        assert overlay.touches(table.name) or not any(image.table is table for image in images)
        for above, upto in ((0, last), (0, last // 2), (last // 2, last), (last // 3, last - 1)):
            visible = [image for id in newest if (image := found_in(images, id, above, upto)) is not None and image.table is table]
            for id in newest:
                assert overlay.find(id, above, upto) == found_in(images, id, above, upto)
            for index in (*table.indexes, table.by_id):
                rows = sorted(
                    (
                        Row(i.id, Ts(0), i.json, i.id.encode() if index.position < 0 else i.keys[index.position])
                        for i in visible
                        if i.json is not None
                    ),
                    key=lambda row: row.key,
                )
                assert overlay.rows(index, FULL.lo, FULL.hi, above, upto) == rows
                for one, other in pairwise(rows):
                    assert overlay.rows(index, one.key, other.key, above, upto) == [one]


@given(STEPS)
def test_an_overlay_is_read_as_of_any_position_like_a_list_of_images(steps: list[tuple[object, ...]]) -> None:
    overlay = Overlay()
    images: list[Image] = []
    position = 0
    for step in steps:
        match step:
            case ("put", table, int() as number, fields, int() as further):
                position += further
                assert table is ITEMS or table is OTHERS
                id = item(number, table)
                json = None if fields is None else text(id, *fields)  # type: ignore[misc]
                image = Image(position, table, id, json, () if json is None else table.keys_of_json(json))
                overlay.put(image)
                images.append(image)
            case ("drop_above", int() as upto):
                overlay.drop_above(upto)
                images = [image for image in images if image.position <= upto]
            case ("drop_upto", int() as upto):
                overlay.drop_upto(upto)
                images = [image for image in images if image.position > upto]
        check(overlay, images)
    overlay.clear()
    check(overlay, [])
