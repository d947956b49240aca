"""The rows of ``_reactor_indexes``, which every store keeps alike, and what a schema makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from reactor.engine.store import StoredTable
from reactor.errors import StoreError
from reactor.schema.catalog import Table

__all__ = ["FIRST_TABLE_NUMBER", "SqlIndex", "building", "free_column", "is_finished", "states"]

#: Numbers below are kept for tables of reactor's own.
FIRST_TABLE_NUMBER = 10_001


class SqlIndex(NamedTuple):
    """A row of ``_reactor_indexes``."""

    name: str
    fields: tuple[str, ...]
    column: int
    state: str  # building, ready or dropped


class _Stored(Protocol):
    @property
    def indexes(self) -> Sequence[SqlIndex]: ...
    @property
    def stored(self) -> StoredTable: ...


def is_finished(stored: _Stored, table: Table) -> bool:
    """Whether ``Store.finish_schema`` has nothing to do for this table."""
    return stored.stored.shape == table.shape and all(index.state == state for index, state in states(stored, table).items())


def states(stored: _Stored, table: Table) -> Mapping[SqlIndex, str]:
    """What becomes of each index: of two that the schema could mean, the newer one serves."""
    wanted = {(index.name, index.fields) for index in table.indexes}
    states: dict[SqlIndex, str] = {}
    for index in sorted(stored.indexes, key=lambda index: index.state != "building"):
        if index.state != "dropped" and (index.name, index.fields) in wanted:
            wanted.remove((index.name, index.fields))
            states[index] = "ready"
        else:
            states[index] = "dropped"
    return states


def building(stored: _Stored, name: str) -> SqlIndex:
    """The index of this name that is not ready.

    Raises:
        StoreError: there is none.
    """
    for index in stored.indexes:
        if index.name == name and index.state == "building":
            return index
    raise StoreError(f"index {stored.stored.name}.{name} is not being built")


def free_column(stored: _Stored) -> int:
    """The lowest number of a key column that no index has."""
    used = {index.column for index in stored.indexes}
    return next(number for number in range(1, len(used) + 2) if number not in used)
