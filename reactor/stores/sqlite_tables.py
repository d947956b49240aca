"""The stored schema on SQLite: its system rows, the SQL table of each table, and the SQL text that reads and writes it."""

# ruff: noqa: S608 (names are quoted where they become SQL, values are parameters)

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import apsw

from reactor.engine.store import StoredIndex, StoredTable
from reactor.errors import StoreError
from reactor.schema.catalog import IndexDef, Table
from reactor.stores.stored_indexes import FIRST_TABLE_NUMBER, SqlIndex, building, free_column, states
from reactor.values.interval import END

__all__ = [
    "RowWriter",
    "SqlTable",
    "add_index",
    "add_table",
    "build_index",
    "check_table",
    "filling_sql",
    "finish",
    "load_table",
    "load_tables",
    "sweep",
]

#: UPDATE statements of a table that name only the key columns that change; beyond it all columns are named.
UPDATE_VARIANTS = 256


class SqlTable:
    """A table as it stands in the database, with the statements that read it. Never changed: a new one replaces it.

    ``scans`` has, by name and fields of each ready index, the statements that scan it forwards and in reverse, with the
    parameters lo, hi, limit.
    """

    __slots__ = ("_writer", "get_sql", "indexes", "name", "scan_by_id", "scans", "sql", "sql_name", "stored")

    def __init__(self, name: str, number: int, sql_name: str, shape: str, indexes: Sequence[SqlIndex]) -> None:
        self.name = name
        self.sql_name = sql_name
        self.sql = sql = _quote(sql_name)
        self.indexes = tuple(indexes)
        self.stored = StoredTable(
            name, number, tuple(StoredIndex(i.name, i.fields, i.state == "ready") for i in indexes if i.state != "dropped"), shape
        )
        self.get_sql = f"SELECT id, ts, doc FROM {sql} WHERE id = ?"
        self.scan_by_id = _scan(f"SELECT id, ts, doc, CAST(id AS BLOB) FROM {sql}", "id")
        self.scans = {
            (index.name, index.fields): _scan(
                f"SELECT id, ts, doc, key_{index.column} FROM {sql} INDEXED BY {_quote(self.tree(index))}", f"key_{index.column}"
            )
            for index in indexes
            if index.state == "ready"
        }
        self._writer: RowWriter | None = None

    def tree(self, index: SqlIndex) -> str:
        """The name of the b-tree over the key column of ``index``. No table has a dot in its name, so it is free."""
        return f"{self.sql_name}.{index.name}.{index.column}"

    def statements(self, index: IndexDef) -> tuple[str, str]:
        """What scans ``index``, forwards and in reverse.

        Raises:
            StoreError: the index, with these fields, is not ready.
        """
        if index.position < 0:
            return self.scan_by_id
        try:
            return self.scans[index.name, index.fields]
        except KeyError:
            raise StoreError(
                f"index {index.table}.{index.name} on {list(index.fields)} is not ready in the database. Push the schema"
            ) from None

    def count_sql(self, index: IndexDef) -> str:
        """What counts the rows of a range of ``index``, of which ``by_id`` is none; its parameters are lo and hi.

        Raises:
            StoreError: as of ``statements``.
        """
        # Of a scan only what is in the index: its b-tree has all that is counted.
        _, found, where = self.statements(index)[0].removesuffix(" LIMIT ?").partition(" FROM ")
        assert found and index.position >= 0
        return f"SELECT count(*) FROM {where.rpartition(' ORDER BY ')[0]}"

    def writer(self, table: Table) -> RowWriter:
        """The statements that write documents of ``table``."""
        writer = self._writer
        if writer is None or writer.table is not table:
            writer = self._writer = RowWriter(self, table)
        return writer


class RowWriter:
    """The statements that write documents of one ``Table`` into one ``SqlTable``. Their parameters: id, ts, doc, keys.

    Raises:
        StoreError: the table lacks an index that is ready, and whose keys would be missing.
    """

    __slots__ = ("_columns", "_sql", "_unfilled", "_updates", "delete", "insert", "picks", "table")

    def __init__(self, stored: SqlTable, table: Table) -> None:
        self.table = table
        ready = {(i.name, i.fields): i.column for i in stored.indexes if i.state == "ready"}
        #: Positions in ``table.indexes`` of those whose key columns commits write; the others are not ready.
        self.picks = tuple(at for at, index in enumerate(table.indexes) if (index.name, index.fields) in ready)
        self._columns = {at: ready.pop((table.indexes[at].name, table.indexes[at].fields)) for at in self.picks}
        if ready:
            raise StoreError(f"table {table.name}: written without keys for its index {next(iter(ready))[0]}. Push the schema first")
        self._sql = stored.sql
        # A key that the backfill gave to an earlier version would be wrong for this one; none is seen to be missing.
        self._unfilled = "".join(f", key_{i.column} = NULL" for i in stored.indexes if i.state == "building")
        self._updates: dict[tuple[int, ...], str] = {}
        names = "".join(f", key_{self._columns[at]}" for at in self.picks)
        self.insert = f"INSERT INTO {self._sql} (id, ts, doc{names}) VALUES (?, ?, ?{', ?' * len(self.picks)})"
        self.delete = f"DELETE FROM {self._sql} WHERE id = ?"

    def update(self, before: Sequence[bytes], after: Sequence[bytes]) -> tuple[str, tuple[int, ...]]:
        """The statement that puts a new version in place of another, and the positions of the keys that it takes.

        SQLite takes a row out of an index and puts it back when a column of it is named, though it stays as it was; so
        only keys that differ are.
        """
        changed = () if before == after else tuple([at for at in self.picks if before[at] != after[at]])
        sql = self._updates.get(changed)
        if sql is None:
            if len(self._updates) >= UPDATE_VARIANTS:
                changed = self.picks
            sets = "".join(f", key_{self._columns[at]} = ?{number}" for number, at in enumerate(changed, 4))
            sql = self._updates[changed] = f"UPDATE {self._sql} SET ts = ?2, doc = ?3{sets}{self._unfilled} WHERE id = ?1"
        return sql, changed


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _scan(select: str, column: str) -> tuple[str, str]:
    where = f"{select} WHERE {column} >= ? AND {column} < ? ORDER BY {column}"
    return f"{where} LIMIT ?", f"{where} DESC LIMIT ?"


# --- reading the system rows


def load_tables(connection: apsw.Connection) -> dict[str, SqlTable]:
    """Every table of the database, by name."""
    names: list[Any] = connection.execute("SELECT name FROM _reactor_tables ORDER BY number").fetchall()
    return {name: load_table(connection, name) for (name,) in names}


def load_table(connection: apsw.Connection, name: str) -> SqlTable:
    """The table of this name, as the connection sees it."""
    number, sql_name, shape = connection.execute("SELECT number, sql_name, shape FROM _reactor_tables WHERE name = ?", (name,)).get
    rows = connection.execute(
        "SELECT name, fields, key_column, state FROM _reactor_indexes WHERE table_name = ? ORDER BY key_column", (name,)
    )
    return SqlTable(
        name, number, sql_name, shape, [SqlIndex(index, tuple(json.loads(fields)), column, state) for index, fields, column, state in rows]
    )


# --- changing the stored schema. Each of these runs inside a transaction of its own and returns the table as it then is.


def add_table(connection: apsw.Connection, name: str) -> SqlTable:
    """``Store.create_table``."""
    system = name.startswith("_")
    last = connection.execute("SELECT max(number) FROM _reactor_tables WHERE (number < ?) = ?", (FIRST_TABLE_NUMBER, system)).get
    number = last + 1 if last is not None else 1 if system else FIRST_TABLE_NUMBER
    # SQLite's names know no case, and some are its own. No name of ours begins with a digit or has a dot in it.
    taken = (
        name.lower().startswith("sqlite_") or connection.execute("SELECT 1 FROM sqlite_schema WHERE lower(name) = lower(?)", (name,)).get
    )
    sql_name = f"{number}.{name}" if taken else name
    connection.execute("INSERT INTO _reactor_tables (name, number, sql_name) VALUES (?, ?, ?)", (name, number, sql_name))
    connection.execute(
        f"CREATE TABLE {_quote(sql_name)} (id TEXT NOT NULL PRIMARY KEY, ts INTEGER NOT NULL, doc TEXT NOT NULL, key_1 BLOB) STRICT"
    )
    connection.execute("INSERT INTO _reactor_indexes VALUES (?, 1, 'by_creation_time', '[]', 'ready')", (name,))
    table = load_table(connection, name)
    _grow_tree(connection, table, table.indexes[0])
    return table


def add_index(connection: apsw.Connection, table: SqlTable, name: str, fields: tuple[str, ...]) -> SqlTable:
    """``Store.create_index``."""
    connection.execute(
        "UPDATE _reactor_indexes SET state = 'dropped' WHERE table_name = ? AND name = ? AND state = 'building'", (table.name, name)
    )
    column = free_column(table)
    # A column that a dropped index left behind has been emptied before its number became free.
    if not connection.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = ?", (table.sql_name, f"key_{column}")).get:
        connection.execute(f"ALTER TABLE {table.sql} ADD COLUMN key_{column} BLOB")
    connection.execute("INSERT INTO _reactor_indexes VALUES (?, ?, ?, ?, 'building')", (table.name, column, name, json.dumps(fields)))
    return load_table(connection, table.name)


def filling_sql(table: SqlTable, name: str) -> str:
    """The statement behind ``Store.fill_index``, with the parameters id, ts, key."""
    return f"UPDATE {table.sql} SET key_{building(table, name).column} = ?3 WHERE id = ?1 AND ts = ?2"


def build_index(connection: apsw.Connection, table: SqlTable, name: str) -> SqlTable:
    """``Store.build_index``."""
    _grow_tree(connection, table, building(table, name))
    return table


def finish(connection: apsw.Connection, changes: Sequence[tuple[SqlTable, Table]]) -> dict[str, SqlTable]:
    """``Store.finish_schema`` for tables that are not yet what the schema wants.

    Raises:
        StoreError: a document has no key in an index that would become ready.
    """
    for stored, table in changes:
        connection.execute("UPDATE _reactor_tables SET shape = ? WHERE name = ?", (table.shape, table.name))
        for index, state in states(stored, table).items():
            if state == "ready" and index.state != "ready":
                _grow_tree(connection, stored, index)
                missing = connection.execute(
                    f"SELECT id FROM {stored.sql} INDEXED BY {_quote(stored.tree(index))} WHERE key_{index.column} IS NULL LIMIT 1"
                ).get
                if missing is not None:
                    raise StoreError(f"index {table.name}.{index.name} cannot become ready: document {missing} has no key in it")
            connection.execute(
                "UPDATE _reactor_indexes SET state = ? WHERE table_name = ? AND key_column = ?", (state, table.name, index.column)
            )
    return {stored.name: load_table(connection, stored.name) for stored, _ in changes}


def _grow_tree(connection: apsw.Connection, table: SqlTable, index: SqlIndex) -> None:
    connection.execute(f"CREATE INDEX IF NOT EXISTS {_quote(table.tree(index))} ON {table.sql} (key_{index.column})")


# --- what dropped indexes leave behind


def sweep(connection: apsw.Connection, table: SqlTable, index: SqlIndex, after: int, rows: int) -> int | None:
    """Empty the key column of a dropped index, so that its number can be used again.

    Dropping the column instead would rewrite the whole table in one transaction while commits wait.

    Args:
        after: the rowid that the step before returned; 0 at first.
        rows: how many to look at.

    Returns: where to go on, or None when the column is empty and its number free.
    """
    connection.execute(f"DROP INDEX IF EXISTS {_quote(table.tree(index))}")
    upto: int | None = connection.execute(
        f"SELECT max(rowid) FROM (SELECT rowid FROM {table.sql} WHERE rowid > ? ORDER BY rowid LIMIT ?)",
        (after, rows),
    ).get
    if upto is None:
        connection.execute("DELETE FROM _reactor_indexes WHERE table_name = ? AND key_column = ?", (table.name, index.column))
    else:
        column = f"key_{index.column}"
        connection.execute(
            f"UPDATE {table.sql} SET {column} = NULL WHERE rowid > ? AND rowid <= ? AND {column} IS NOT NULL",
            (after, upto),
        )
    return upto


def check_table(connection: apsw.Connection, table: SqlTable) -> None:
    """Read both ends of the table and of each index: enough to see that they are there and lead to documents.

    Raises:
        apsw.Error: they are not.
    """
    for sql in table.scan_by_id:
        connection.execute(sql, ("", "\xff", 1)).fetchall()
    for statements in table.scans.values():
        for sql in statements:
            connection.execute(sql, (b"", END, 1)).fetchall()
