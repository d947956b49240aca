"""The stored schema on Postgres: its system rows, the SQL table of each table, and the SQL text that reads and changes them."""

# ruff: noqa: S608 (names are quoted where they become SQL, values are parameters)

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from reactor.engine.store import StoredIndex, StoredTable, Ts
from reactor.errors import StoreError
from reactor.schema.catalog import IndexDef, Table
from reactor.stores.postgres_connections import Connection
from reactor.stores.stored_indexes import FIRST_TABLE_NUMBER, SqlIndex, building, free_column, states

__all__ = [
    "KeyRange",
    "SqlTable",
    "add_index",
    "add_table",
    "fill_index",
    "finish",
    "grow_tree",
    "load_tables",
    "sweep",
    "table_of",
]

#: Of a name in Postgres.
NAME_BYTES = 63

#: How much of a key the b-tree holds; see migrations/postgres/0001.sql.
TREE_KEY_BYTES = 2000

#: How long the b-tree of a large table may take.
BUILD_TIMEOUT_S = 86_400.0


class KeyRange(NamedTuple):
    """A range of an index.

    Attributes:
        sql: scans any number of such ranges, for which it takes an array of each of their bounds and one of their limits. It gives
            the columns of a Row, in order, after the number of the range, from 1.
        bounds: of this one.
    """

    sql: str
    bounds: tuple[Any, ...]


class SqlTable:
    """A table as it stands in the database, with the statements that read and write it. Never changed: a new one replaces it."""

    __slots__ = ("_scans", "_statements", "indexes", "name", "number", "sql", "sql_name", "stored")

    def __init__(self, name: str, number: int, sql_name: str, shape: str, indexes: Sequence[SqlIndex]) -> None:
        self.name = name
        self.number = number
        self.sql_name = sql_name
        self.sql = quote(sql_name)
        self.indexes = tuple(indexes)
        self.stored = StoredTable(
            name, number, tuple(StoredIndex(i.name, i.fields, i.state == "ready") for i in indexes if i.state != "dropped"), shape
        )
        self._statements: dict[tuple[int | None, bool, bool], str] = {}  # that were asked for: by column, direction, and long bounds
        self._scans = {(index.name, index.fields): index.column for index in indexes if index.state == "ready"}

    def tree(self, index: SqlIndex) -> str:
        """The name of the b-tree over the key column of ``index``. No table has a dot in its name, so it is free."""
        return f"{self.number}.{index.column}.{index.name}"[:NAME_BYTES]

    def scan(self, index: IndexDef, lo: bytes, hi: bytes, *, reverse: bool) -> KeyRange:
        """What scans ``[lo, hi)`` of ``index``.

        Raises:
            StoreError: the index, with these fields, is not ready.
        """
        column = self._column(index)
        bounds = _bounds(column, lo, hi)
        which = (column, reverse, len(bounds) > 2)
        sql = self._statements.get(which)
        if sql is None:
            sql = self._statements[which] = self._scan_sql(*which)
        return KeyRange(sql, bounds)

    def count(self, index: IndexDef, lo: bytes, hi: bytes) -> tuple[str, tuple[Any, ...]]:
        """What counts the rows of ``[lo, hi)`` of ``index``, and tells the head at which that was; and its parameters.

        Raises:
            StoreError: as of ``scan``.
        """
        column = self._column(index)
        bounds = _bounds(column, lo, hi)
        where = _within(column, [f"${number}" for number in range(1, len(bounds) + 1)])
        return f"SELECT (SELECT count(*) FROM {self.sql} WHERE {where}), head_ts FROM _reactor_head", bounds

    def _column(self, index: IndexDef) -> int | None:
        """The number of the index's key column; None of that by id."""
        if index.position < 0:
            return None
        column = self._scans.get((index.name, index.fields))
        if column is None:
            raise StoreError(f"index {index.table}.{index.name} on {list(index.fields)} is not ready in the database. Push the schema")
        return column

    def _scan_sql(self, column: int | None, reverse: bool, long: bool) -> str:
        names = [f"bound_{number}" for number in range(4 if long else 2)]
        type = "text" if column is None else "bytea"
        arrays = ", ".join(f"${number}::{type}[]" for number in range(1, len(names) + 1))
        down = " DESC" if reverse else ""
        order = f"id{down}" if column is None else f"{_tree_key(column)}{down}, key_{column}{down}"
        key = "convert_to(id, 'UTF8')" if column is None else f"key_{column}"
        return (
            f"SELECT range, r.* FROM unnest({arrays}, ${len(names) + 1}::bigint[]) WITH ORDINALITY AS b({', '.join(names)}, most, range), "
            f"LATERAL (SELECT id, ts, doc, {key} FROM {self.sql} WHERE {_within(column, names)} ORDER BY {order} LIMIT most) AS r"
        )

    def columns(self, table: Table) -> tuple[list[int], list[int]]:
        """Positions in ``table.indexes`` of those whose keys commits write, and the numbers of their columns.

        Raises:
            StoreError: ``table`` lacks an index that is ready, and whose keys would be missing.
        """
        left = dict(self._scans)
        picks = [at for at, index in enumerate(table.indexes) if (index.name, index.fields) in left]
        numbers = [left.pop((table.indexes[at].name, table.indexes[at].fields)) for at in picks]
        if left:
            raise StoreError(f"table {table.name}: written without keys for its index {next(iter(left))[0]}. Push the schema first")
        return picks, numbers


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _tree_key(column: int) -> str:
    return f"substr(key_{column}, 1, {TREE_KEY_BYTES})"


def _bounds(column: int | None, lo: bytes, hi: bytes) -> tuple[Any, ...]:
    """Two bounds, or of a key that is longer than what the b-tree holds of it, four: of what it holds, and whole."""
    if column is None:
        return _id_bound(lo), _id_bound(hi)
    if len(lo) <= TREE_KEY_BYTES and len(hi) <= TREE_KEY_BYTES:
        # Then a key lies between them exactly when what the b-tree holds of it does.
        return lo, hi
    return lo[:TREE_KEY_BYTES], hi[:TREE_KEY_BYTES], lo, hi


def _within(column: int | None, bounds: Sequence[str]) -> str:
    """The condition that a row's key lies between ``bounds``, given as they are called in the statement."""
    lo, hi, *whole = bounds
    if column is None:
        return f"id >= {lo} AND id < {hi}"
    key = _tree_key(column)
    if whole:
        return f"{key} >= {lo} AND {key} <= {hi} AND key_{column} >= {whole[0]} AND key_{column} < {whole[1]}"
    return f"{key} >= {lo} AND {key} < {hi}"


def _id_bound(key: bytes) -> str:
    """A bound of ids, which are ASCII letters and digits. Texts cannot hold U+0000; U+0001 is below those too."""
    # Latin-1 keeps the order of bytes, also of bounds that are not ASCII.
    return key.decode("latin-1").replace("\0", "\1")


# --- reading the system rows


async def load_tables(connection: Connection) -> dict[str, SqlTable]:
    """Every table of the database, by name, as the connection sees it."""
    rows: list[Any] = await connection.fetch(
        "SELECT t.name, t.number, t.sql_name, t.shape, i.name, i.fields, i.key_column, i.state "
        "FROM _reactor_tables t LEFT JOIN _reactor_indexes i ON i.table_name = t.name ORDER BY t.number, i.key_column"
    )
    indexes: dict[tuple[Any, ...], list[SqlIndex]] = {}
    for *table, name, fields, column, state in rows:
        of = indexes.setdefault(tuple(table), [])
        if column is not None:
            of.append(SqlIndex(name, tuple(json.loads(fields)), column, state))
    return {name: SqlTable(name, number, sql_name, shape, of) for (name, number, sql_name, shape), of in indexes.items()}


# --- changing the stored schema. Each of these runs inside a transaction that holds the head.


async def _changed(connection: Connection) -> None:
    """Have every node load the tables anew."""
    await connection.execute("UPDATE _reactor_head SET tables_version = tables_version + 1")


async def add_table(connection: Connection, name: str) -> None:
    """``Store.create_table``."""
    system = name.startswith("_")
    last = await connection.fetchval("SELECT max(number) FROM _reactor_tables WHERE (number < $1) = $2", FIRST_TABLE_NUMBER, system)
    number = last + 1 if last is not None else 1 if system else FIRST_TABLE_NUMBER
    taken = len(name) > NAME_BYTES or await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", quote(name))
    sql_name = f"{number}.{name}"[:NAME_BYTES] if taken else name
    index = SqlIndex("by_creation_time", (), 1, "ready")
    await connection.execute("INSERT INTO _reactor_tables (name, number, sql_name) VALUES ($1, $2, $3)", name, number, sql_name)
    await connection.execute(
        f'CREATE TABLE {quote(sql_name)} (id text COLLATE "C" NOT NULL, ts bigint NOT NULL, doc json NOT NULL, key_1 bytea, '
        f'CONSTRAINT "{number}.id" PRIMARY KEY (id)) WITH (fillfactor = 80)'
    )
    await connection.execute("INSERT INTO _reactor_indexes VALUES ($1, 1, $2, '[]', 'ready')", name, index.name)
    await grow_tree(connection, SqlTable(name, number, sql_name, "", [index]), index)
    await _changed(connection)


async def add_index(connection: Connection, table: SqlTable, name: str, fields: tuple[str, ...]) -> None:
    """``Store.create_index``."""
    await connection.execute(
        "UPDATE _reactor_indexes SET state = 'dropped' WHERE table_name = $1 AND name = $2 AND state = 'building'", table.name, name
    )
    column = free_column(table)
    # A column that a dropped index left behind has been emptied before its number became free.
    await connection.execute(f"ALTER TABLE {table.sql} ADD COLUMN IF NOT EXISTS key_{column} bytea")
    row = (table.name, column, name, json.dumps(fields))
    await connection.execute("INSERT INTO _reactor_indexes VALUES ($1, $2, $3, $4, 'building')", *row)
    await _changed(connection)


async def fill_index(connection: Connection, table: SqlTable, name: str, rows: Sequence[tuple[str, Ts, bytes]]) -> None:
    """``Store.fill_index``."""
    column = f"key_{building(table, name).column}"
    await connection.execute(
        f"UPDATE {table.sql} AS t SET {column} = u.key FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS u(id, ts, key) "
        f"WHERE t.id = u.id AND t.ts = u.ts",
        *map(list, zip(*rows, strict=True)) if rows else ([], [], []),
    )


async def grow_tree(connection: Connection, table: SqlTable, index: SqlIndex, *, beside_writes: bool = False) -> None:
    """Build the b-tree of an index, if it is not there whole.

    Args:
        beside_writes: commits go on meanwhile. Only outside a transaction.
    """
    name = table.tree(index)
    valid = await connection.fetchval("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)", quote(name))
    if valid:
        return
    how = "CONCURRENTLY " if beside_writes else ""
    if valid is not None:
        # Left by a build that was cut off.
        await connection.execute(f"DROP INDEX {how}{quote(name)}")
    await connection.execute(f"CREATE INDEX {how}{quote(name)} ON {table.sql} ({_tree_key(index.column)})", timeout=BUILD_TIMEOUT_S)


async def finish(connection: Connection, changes: Sequence[tuple[SqlTable, Table]]) -> None:
    """``Store.finish_schema`` for tables that are not yet what the schema wants.

    Raises:
        StoreError: a document has no key in an index that would become ready.
    """
    for stored, table in changes:
        await connection.execute("UPDATE _reactor_tables SET shape = $1 WHERE name = $2", table.shape, table.name)
        for index, state in states(stored, table).items():
            if state == "ready" and index.state != "ready":
                await grow_tree(connection, stored, index)
                missing = await connection.fetchval(f"SELECT id FROM {stored.sql} WHERE {_tree_key(index.column)} IS NULL LIMIT 1")
                if missing is not None:
                    raise StoreError(f"index {table.name}.{index.name} cannot become ready: document {missing} has no key in it")
            await connection.execute(
                "UPDATE _reactor_indexes SET state = $1 WHERE table_name = $2 AND key_column = $3", state, table.name, index.column
            )
    if changes:
        await _changed(connection)


# --- what dropped indexes leave behind


async def sweep(connection: Connection, table: SqlTable, index: SqlIndex, after: str, rows: int) -> str | None:
    """Empty the key column of a dropped index, so that its number can be used again.

    Dropping the column instead would leave Postgres one of the 1600 columns poorer each time.

    Args:
        after: the id that the step before returned; '' at first.
        rows: how many to look at.

    Returns: where to go on, or None when the column is empty and its number free.
    """
    await connection.execute(f"DROP INDEX IF EXISTS {quote(table.tree(index))}")
    upto: str | None = await connection.fetchval(
        f"SELECT max(id) FROM (SELECT id FROM {table.sql} WHERE id > $1 ORDER BY id LIMIT $2) AS step", after, rows
    )
    if upto is None:
        await connection.execute("DELETE FROM _reactor_indexes WHERE table_name = $1 AND key_column = $2", table.name, index.column)
        await _changed(connection)
    else:
        column = f"key_{index.column}"
        await connection.execute(f"UPDATE {table.sql} SET {column} = NULL WHERE id > $1 AND id <= $2 AND {column} IS NOT NULL", after, upto)
    return upto


def table_of(tables: Mapping[str, SqlTable], name: str) -> SqlTable:
    """The table of this name.

    Raises:
        StoreError: there is none.
    """
    table = tables.get(name)
    if table is None:
        raise StoreError(f"table {name} is not in the database. Push the schema")
    return table
