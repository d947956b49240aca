"""Ids: one text for each table number and 16 bytes, and no other text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from reactor.errors import IdError
from reactor.schema import Document
from reactor.values.ids import Id, decode_id, encode_id, new_id, table_number_at, table_number_of

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
INTERNAL = bytes(range(16))
VECTORS = [
    (1, "040020g30g2gc1r81450p30d1r7qke8"),
    (127, "fw0020g30g2gc1r81450p30d1r7ze5r"),
    (128, "g00g00820c20a1g7104gm2rc1m70zyds"),
    (10001, "j57000820c20a1g7104gm2rc1m70ynr8"),
    (16384, "g2002001081g81860w40j2gb1g6gw3vs74"),
]
EDGES = [1, 127, 128, 16383, 16384, 2**21 - 1, 2**21, 2**28 - 1, 2**28, 2**32 - 1]
LENGTHS = [31, 31, 32, 32, 34, 34, 36, 36, 37, 37]
numbers = st.one_of(st.sampled_from(EDGES), st.integers(1, 2**32 - 1))
internals = st.binary(min_size=16, max_size=16)
TEXT = encode_id(10001, INTERNAL)


def spell(raw: bytes) -> str:
    """Base32 of any bytes, to make texts that ``encode_id`` would not."""
    bits = "".join(f"{byte:08b}" for byte in raw)
    bits += "0" * (-len(bits) % 5)
    return "".join(ALPHABET[int(bits[at : at + 5], 2)] for at in range(0, len(bits), 5))


def summed(raw: bytes) -> bytes:
    sums = [sum(raw[: count + 1]) for count in range(len(raw))]
    return raw + bytes((sum(raw) % 256, sum(sums) % 256))


@pytest.mark.parametrize(("number", "text"), VECTORS)
def test_ids_are_those_of_other_implementations(number: int, text: str) -> None:
    assert encode_id(number, INTERNAL) == text
    assert decode_id(text) == (number, INTERNAL)


@given(numbers, internals)
def test_an_id_gives_back_what_it_was_made_of(number: int, internal: bytes) -> None:
    text = encode_id(number, internal)
    assert decode_id(text) == (number, internal)
    assert set(text) <= set(ALPHABET)


@given(numbers, internals, st.text(max_size=40))
def test_the_table_of_what_is_an_id_is_told_by_its_beginning(number: int, internal: bytes, text: str) -> None:
    assert table_number_at(encode_id(number, internal)[:5]) == (number if number < 2**21 else 0)
    assert 0 <= table_number_at(text[:5]) < 2**21


@pytest.mark.parametrize(("number", "length"), list(zip(EDGES, LENGTHS, strict=True)))
def test_the_length_tells_how_many_bytes_the_table_number_takes(number: int, length: int) -> None:
    assert len(encode_id(number, INTERNAL)) == length


@given(numbers, internals, st.data())
def test_a_changed_character_never_gives_the_same_id_and_only_canonical_text_decodes(number: int, internal: bytes, data: Any) -> None:
    text = encode_id(number, internal)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from(ALPHABET.replace(text[at], ""))) + text[at + 1 :]
    try:
        decoded = decode_id(changed)
    except IdError:
        return
    assert decoded != (number, internal)
    assert encode_id(*decoded) == changed


@given(st.one_of(st.text(max_size=40), st.text(ALPHABET, min_size=31, max_size=37)))
def test_any_text_is_either_canonical_or_not_an_id(text: str) -> None:
    try:
        decoded = decode_id(text)
    except IdError:
        return
    assert encode_id(*decoded) == text


def test_one_changed_bit_is_always_noticed() -> None:
    raw = summed(b"\x91\x4e" + INTERNAL)
    assert decode_id(spell(raw)) == (10001, INTERNAL)
    for bit in range(8 * len(raw)):
        flipped = (int.from_bytes(raw, "big") ^ 1 << bit).to_bytes(len(raw), "big")
        with pytest.raises(IdError):
            decode_id(spell(flipped))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("hello", id="a word"),
        pytest.param(TEXT[:-1], id="shorter"),
        pytest.param(TEXT + "0", id="longer"),
        pytest.param(TEXT + "\n", id="a line's end"),
        pytest.param(" " + TEXT[1:], id="a space"),
        pytest.param(TEXT.upper(), id="upper case"),
        *(pytest.param(TEXT[:-1] + letter, id=f"the letter {letter}") for letter in "ilou"),
        pytest.param(TEXT[:-1] + "é", id="not ASCII"),
        pytest.param(TEXT[:-1] + "٣", id="a digit of another script"),
        pytest.param("0" * 31, id="table 0"),
        pytest.param("0" * 33, id="a length between"),
        pytest.param("0" * 10_000, id="very long"),
        pytest.param(spell(summed(b"\x00" + INTERNAL)), id="table 0 with its sums"),
        pytest.param(spell(summed(b"\x81\x00" + INTERNAL)), id="table 1 in two bytes"),
        pytest.param(spell(summed(b"\xff\xff\xff\xff\x1f" + INTERNAL)), id="a table number over 32 bits"),
        pytest.param(spell(summed(b"\xff\xff\xff\xff\xff" + INTERNAL)), id="a table number without an end"),
        pytest.param(spell(summed(b"\x01" + INTERNAL + b"\x00")), id="17 bytes"),
        pytest.param(spell(summed(b"\x91\x4e" + INTERNAL[:-1])), id="15 bytes"),
        pytest.param(spell(b"\x91\x4e" + INTERNAL + b"\x00\x00"), id="without sums"),
        pytest.param(encode_id(1, INTERNAL)[:-1] + "9", id="bits in the padding"),
    ],
)
def test_only_the_canonical_text_is_an_id(text: str) -> None:
    with pytest.raises(IdError, match="is not an id") as error:
        table_number_of(text)
    assert len(str(error.value)) < 200


def test_a_new_id_ends_in_its_day() -> None:
    assert decode_id(new_id(10001, bytes(14), 20_000)) == (10001, bytes(14) + (20_000).to_bytes(2, "big"))
    assert decode_id(new_id(10001, bytes(14), 2**16 + 1)) == (10001, bytes(14) + b"\x00\x01")


class Two:
    """Two tables, Apple with number 10001 and Pear with 10002."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def table_of_number(self, number: int) -> str | None:
        return {10001: "apples", 10002: "pears"}.get(number)

    def table_named_by(self, reference: Any) -> str:
        return {"Apple": "apples", "Pear": "pears"}[reference if isinstance(reference, str) else reference.__name__]


class Apple(Document, table="apples"):
    pass


@pytest.mark.parametrize("annotation", [Id[Apple], Id["Apple"]])
def test_a_typed_id_is_of_its_table(annotation: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    found = adapter.validate_python(TEXT, context=Two())
    assert (found, type(found)) == (TEXT, Id)
    for number, expected in ((10002, "table 'pears'"), (10003, "an unknown table")):
        with pytest.raises(ValidationError, match=f"expected an id of table 'apples', got an id of {expected}"):
            adapter.validate_python(encode_id(number, INTERNAL), context=Two())
    for wrong in ("apple", 5, None, b"a"):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong, context=Two())


@pytest.mark.parametrize("annotation", [Id, Id[Any]])
def test_an_id_of_any_table_is_any_id(annotation: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    assert adapter.validate_python(encode_id(77, INTERNAL), context=Two()) == encode_id(77, INTERNAL)
    with pytest.raises(ValidationError, match="is not an id"):
        adapter.validate_python("apple", context=Two())
