"""How tables and indexes stand in the SQLite file: readable by others, and no larger than it must be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from reactor.engine.store import Ts
from reactor.schema import Document, Index
from reactor.stores import sqlite_tables
from reactor.stores.sqlite import SqliteStore
from reactor.stores.sqlite_tables import UPDATE_VARIANTS
from tests.stores.library import Book, Library, catalog_of, push, titles

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("what is SQLite's own")]


class PlainBook(Document, table="books"):
    title: str
    shelf: str = ""
    year: float = 0.0


class Shelved(Document, table="books"):
    title: str
    shelf: str = ""
    year: float = 0.0

    by_shelf = Index("shelf")


@pytest.fixture
async def library() -> AsyncIterator[Library[SqliteStore]]:
    store = SqliteStore.temporary()
    yield Library(store, await push(store, catalog_of(Book)))
    await store.close()


def ask(library: Library[SqliteStore], sql: str) -> Sequence[Any]:
    """What another program sees."""
    with apsw.Connection(str(library.store.path), flags=apsw.SQLITE_OPEN_READONLY) as connection:
        rows = connection.execute(sql).fetchall()
    connection.close()
    return rows


async def test_a_document_is_a_row_of_its_id_its_ts_its_json_and_a_key_for_each_index(library: Library[SqliteStore]) -> None:
    write = library.add("Emma")
    await library.put(write)
    assert ask(library, "SELECT name FROM pragma_table_info('books')") == [(n,) for n in ("id", "ts", "doc", "key_1", "key_2", "key_3")]
    assert ask(library, "SELECT * FROM books") == [(write.id, 10, write.after, *write.after_keys)]
    assert ask(library, "SELECT name, fields, key_column, state FROM _reactor_indexes") == [
        ("by_creation_time", "[]", 1, "ready"),
        ("by_shelf", '["shelf", "year"]', 2, "ready"),
        ("by_title", '["title"]', 3, "ready"),
    ]


async def test_every_scan_follows_a_b_tree_and_sorts_nothing(library: Library[SqliteStore]) -> None:
    table = library.store._tables["books"]
    for sql in (*table.scan_by_id, *(sql for pair in table.scans.values() for sql in pair)):
        plan = library.store._writer.connection.execute(f"EXPLAIN QUERY PLAN {sql}", (b"a", b"b", 1)).fetchall()
        assert [str(row[3]).split(" USING ")[0] for row in plan] == ["SEARCH books"]


async def test_a_scan_is_planned_once_whatever_its_bounds_and_its_limit(library: Library[SqliteStore]) -> None:
    await library.put(*(library.add(f"{n}", shelf=f"{n % 3}") for n in range(9)))
    planned = 0

    def plan(*_: object) -> int:
        nonlocal planned
        planned += 1
        return apsw.SQLITE_OK

    with closing(library.store._file.connect_reader()) as connection:
        connection.authorizer = plan  # asked whenever a statement is made
        (forwards, _) = library.store._tables["books"].statements(library.books.index("by_shelf"))
        found = [connection.execute(forwards, (b"", b"\xff", 1)).fetchall()]
        once = planned
        found += [connection.execute(forwards, (b"", hi, limit)).fetchall() for hi in (b"\xff", b"\xfe") for limit in range(2, 6)]
    assert list(map(len, found)) == [1, 2, 3, 4, 5, 2, 3, 4, 5]
    assert planned == once > 0


async def test_the_column_of_a_dropped_index_is_emptied_and_used_again(library: Library[SqliteStore]) -> None:
    store = library.store
    writes = [library.add(f"{n}", shelf="a") for n in range(2500)]
    await library.put(*writes)
    plain = catalog_of(PlainBook).tables["books"]
    await store.finish_schema([plain])
    assert ask(library, "SELECT count(*) FROM books WHERE key_2 IS NOT NULL OR key_3 IS NOT NULL") == [(2500,)]
    plain.number = library.books.number
    library.books = plain
    await library.put(library.remove(writes[0].id), library.change(writes[1].id, year=1.0), library.add("more"))
    await store.trim(log_before=Ts(0), requests_before=Ts(0))
    assert ask(library, "SELECT count(*) FROM books WHERE key_2 IS NOT NULL OR key_3 IS NOT NULL") == [(0,)]
    assert ask(library, "SELECT key_column FROM _reactor_indexes") == [(1,)]
    assert ask(library, "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'books' AND sql IS NOT NULL") == [
        ("books.by_creation_time.1",)
    ]
    table = catalog_of(Shelved).tables["books"]
    await store.create_index("books", "by_shelf", ("shelf",))
    snapshot = store.snapshot()
    rows = [
        (row.id, row.ts, table.keys_of_json(row.json)[1])
        for row in await snapshot.scan(plain.by_id, b"", b"\xff", reverse=False, limit=9999)
    ]
    snapshot.release()
    await store.fill_index("books", "by_shelf", rows)
    await store.build_index("books", "by_shelf")
    await store.finish_schema([table])
    assert ask(library, "SELECT name, key_column FROM _reactor_indexes") == [("by_creation_time", 1), ("by_shelf", 2)]
    snapshot = store.snapshot()
    assert len(await titles(snapshot, table, "by_shelf", "a")) == 2499
    snapshot.release()


async def test_emptying_goes_on_after_reopening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reactor.stores.sqlite.SWEEP_ROWS", 10)
    store = SqliteStore.open(tmp_path / "reactor.db")
    library = Library(store, await push(store, catalog_of(Book)))
    await library.put(*(library.add(f"{n}") for n in range(50)))
    await store.finish_schema([catalog_of(PlainBook).tables["books"]])
    table = store._tables["books"]
    # A step, and no more:
    assert sqlite_tables.sweep(store._writer.connection, table, table.indexes[1], 0, 10) == 10
    await store.close()
    library.store = store = SqliteStore.open(tmp_path / "reactor.db")
    assert [index.state for index in store._tables["books"].indexes] == ["ready", "dropped", "dropped"]
    assert ask(library, "SELECT count(key_2), count(key_3) FROM books") == [(40, 50)]
    await store.trim(log_before=Ts(0), requests_before=Ts(0))
    assert [index.state for index in store._tables["books"].indexes] == ["ready"]
    assert ask(library, "SELECT count(key_2), count(key_3) FROM books") == [(0, 0)]
    await store.close()


async def test_names_that_sqlite_cannot_have_beside_others_get_the_number_before_them(library: Library[SqliteStore]) -> None:
    await library.store.create_table("BOOKS")
    await library.store.create_table("sqlite_things")
    assert ask(library, "SELECT name, sql_name FROM _reactor_tables ORDER BY number") == [
        ("books", "books"),
        ("BOOKS", "10002.BOOKS"),
        ("sqlite_things", "10003.sqlite_things"),
    ]


async def test_updates_name_only_the_keys_that_change_and_have_a_bounded_number_of_forms(library: Library[SqliteStore]) -> None:
    writer = library.store._tables["books"].writer(library.books)
    same = (b"a", b"b", b"c")
    assert writer.update(same, same) == ('UPDATE "books" SET ts = ?2, doc = ?3 WHERE id = ?1', ())
    assert writer.update(same, (b"a", b"x", b"c")) == ('UPDATE "books" SET ts = ?2, doc = ?3, key_2 = ?4 WHERE id = ?1', (1,))
    document = type(
        "Wide",
        (Document,),
        {"__annotations__": {f"f{n}": float for n in range(12)}, "__module__": __name__} | {f"by_{n}": Index(f"f{n}") for n in range(12)},
        table="wide",
    )
    table = (await push(library.store, catalog_of(document, Book))).tables["wide"]
    writer = library.store._tables["wide"].writer(table)
    before = (b"",) * 13
    forms = set()
    for bits in range(4096):
        after = (b"", *(b"x" if bits >> n & 1 else b"" for n in range(12)))
        sql, changed = writer.update(before, after)
        assert all(at in changed for at in range(13) if before[at] != after[at])
        forms.add(sql)
    assert len(forms) <= UPDATE_VARIANTS + 1
