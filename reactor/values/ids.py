"""Ids: their text, the table in it, and their type."""

from __future__ import annotations

from base64 import b32hexencode
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ForwardRef, Generic, Protocol, TypeVar, get_args

from pydantic_core import PydanticCustomError, core_schema

from reactor.errors import IdError

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

__all__ = ["Id", "Tables", "decode_id", "encode_id", "new_id", "table_number_at", "table_number_of"]

T = TypeVar("T")

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_DIGITS = "0123456789abcdefghijklmnopqrstuv"  # what Python has for the same values
_TO_DIGITS = bytes(ord(_DIGITS[_ALPHABET.index(chr(byte))]) if chr(byte) in _ALPHABET else ord("!") for byte in range(256))
_FROM_DIGITS = bytes.maketrans(_DIGITS.upper().encode(), _ALPHABET.encode())
_LENGTHS = frozenset((31, 32, 34, 36, 37))
_INTERNAL_BYTES = 16


class Tables(Protocol):
    """What an id is checked against: the tables of one schema."""

    #: In ids, of tables by what ``Id[…]`` names them by, as far as ids were met.
    numbers: dict[Any, int]

    def table_of_number(self, number: int) -> str | None:
        """The name of the table with this number in ids, or None."""
        ...

    def table_named_by(self, reference: Any) -> str:
        """The name of the table that ``Id[reference]`` points to: a document class, its name, or a forward reference."""
        ...


class Id(str, Generic[T]):
    """The id of a document of class ``T``: a str that carries its table in its type and in its text."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        arguments = get_args(source)
        target = arguments[0] if arguments and arguments[0] is not Any and not isinstance(arguments[0], TypeVar) else None
        if isinstance(target, ForwardRef):
            target = target.__forward_arg__

        def check(text: str, info: core_schema.ValidationInfo) -> Id[Any]:
            try:
                number = table_number_of(text)
            except IdError as error:
                raise PydanticCustomError("id", "{reason}", {"reason": str(error)}) from None
            tables: Tables | None = info.context
            if tables is not None and target is not None and tables.numbers.get(target) != number:
                expected = tables.table_named_by(target)
                found = tables.table_of_number(number)
                if found != expected:
                    of = "an unknown table" if found is None else f"table {found!r}"
                    raise PydanticCustomError("id", "{reason}", {"reason": f"expected an id of table {expected!r}, got an id of {of}"})
                tables.numbers[target] = number
            return Id(text)

        return core_schema.with_info_after_validator_function(
            check,
            core_schema.str_schema(strict=True),
            metadata={"reactor_id": target},
            serialization=core_schema.to_string_ser_schema(),
        )


def encode_id(table_number: int, internal: bytes) -> str:
    """The text of the id with these 16 bytes in the table with this number (1 … 2^32−1)."""
    assert 0 < table_number < 2**32 and len(internal) == _INTERNAL_BYTES
    raw = _varint(table_number) + internal
    raw += _checksum(raw)
    return b32hexencode(raw).rstrip(b"=").translate(_FROM_DIGITS).decode()


def decode_id(text: str) -> tuple[int, bytes]:
    """The table number and the 16 bytes of an id.

    Raises:
        IdError: the text is not an id; only the one canonical text of an id is.
    """
    if len(text) not in _LENGTHS:
        raise _not_an_id(text)
    try:
        bits = int(text.encode().translate(_TO_DIGITS), 32)
    except ValueError:
        raise _not_an_id(text) from None
    length, padding = divmod(len(text) * 5, 8)
    raw = (bits >> padding).to_bytes(length, "big")
    number, at = _read_varint(raw)
    if (
        not 0 < number < 2**32
        or (at > 1 and not raw[at - 1])  # not the shortest varint
        or length != at + _INTERNAL_BYTES + 2
        or bits & ((1 << padding) - 1)
        or _checksum(raw[:-2]) != raw[-2:]
    ):
        raise _not_an_id(text)
    return number, raw[at:-2]


@lru_cache(maxsize=65536)
def table_number_of(text: str) -> int:
    """The table number of an id.

    Raises:
        IdError: the text is not an id.
    """
    return decode_id(text)[0]


@lru_cache(maxsize=4096)
def table_number_at(start: str) -> int:
    """The table number of what is known to be an id, by its first five characters. Of other texts, and beyond 2^21, any number or 0."""
    try:
        bits = int(start.encode().translate(_TO_DIGITS), 32)
    except ValueError:
        return 0
    return _read_varint((bits >> 1).to_bytes(3, "big"))[0]


def new_id(table_number: int, random14: bytes, days: int) -> str:
    """An id for a new document: 14 random bytes, then the day, so that ids of one day lie together in no order."""
    assert len(random14) == 14
    return encode_id(table_number, random14 + (days & 0xFFFF).to_bytes(2, "big"))


def _not_an_id(text: str) -> IdError:
    shown = text if len(text) <= 50 else text[:50] + "…"
    return IdError(f"{shown!r} is not an id. Ids come from the database: pass on what a query or insert returned")


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _read_varint(raw: bytes) -> tuple[int, int]:
    number = 0
    for at, group in enumerate(raw[:5]):
        number |= (group & 0x7F) << (7 * at)
        if not group & 0x80:
            return number, at + 1
    return 0, 0


def _checksum(raw: bytes) -> bytes:
    # Fletcher's: the sum, and the sum of the sums so far.
    return bytes((sum(raw) & 0xFF, sum(accumulate(raw)) & 0xFF))
