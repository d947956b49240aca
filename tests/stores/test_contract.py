"""What ``reactor.engine.store`` promises, of every store."""

from __future__ import annotations

import asyncio
import random

import pytest
from msgspec.structs import replace

from reactor.engine.store import LOG_BYTES, LogEntry, LoggedWrite, RequestKey, RequestRecord, Row, Store, StoredIndex, Ts
from reactor.errors import StoreError
from reactor.schema import Document, Index
from reactor.values.interval import END
from reactor.values.order import encode_key
from tests.stores.conftest import Place
from tests.stores.library import Book, Library, Reader, catalog_of, ids_of, keys_of, push, titles

pytestmark = pytest.mark.anyio

FIRST = RequestKey("session-1", 0)


class TestSnapshot:
    async def test_an_empty_database_is_at_ts_0(self, store: Store) -> None:
        snapshot = store.snapshot()
        assert snapshot.ts == 0
        snapshot.release()

    async def test_get_finds_the_document_with_the_ts_of_its_commit(self, library: Library) -> None:
        write = library.add("Emma")
        ts = await library.put(write)
        await library.put(library.add("Persuasion"))
        snapshot = library.store.snapshot()
        assert await snapshot.get(library.books, write.id) == Row(write.id, ts, library.now[write.id], b"")
        snapshot.release()

    async def test_get_finds_nothing_under_an_unknown_id_or_in_another_table(self, library: Library) -> None:
        write = library.add("Emma")
        await library.put(write)
        snapshot = library.store.snapshot()
        assert await snapshot.get(library.books, library.new_id()) is None
        assert await snapshot.get(library.catalog.tables["readers"], write.id) is None
        snapshot.release()

    async def test_stays_at_its_commit_while_others_follow(self, library: Library) -> None:
        first = library.add("Emma")
        await library.put(first)
        before = library.store.snapshot()
        await library.put(library.change(first.id, title="Persuasion"), library.add("Sanditon"))
        between = library.store.snapshot()
        await library.put(library.remove(first.id))
        after = library.store.snapshot()
        assert await titles(before, library.books) == ["Emma"]
        assert await titles(between, library.books) == ["Persuasion", "Sanditon"]
        assert await titles(after, library.books) == ["Sanditon"]
        assert before.ts < between.ts < after.ts == library.ts
        for snapshot in (between, before, after):
            snapshot.release()

    async def test_rows_of_a_range_are_counted_as_of_the_newest_commit(self, library: Library) -> None:
        by_shelf = library.books.index("by_shelf")
        first = library.add("0", shelf="0")
        await library.put(first, *(library.add(f"{number}", shelf=f"{number % 3}") for number in range(1, 10)))
        lo, hi = encode_key("1"), encode_key("3")
        assert await library.store.count(by_shelf, lo, hi) == (6, library.ts)
        assert await library.store.count(by_shelf, b"", END) == (10, library.ts)
        await library.put(library.change(first.id, shelf="2"))
        assert await library.store.count(by_shelf, lo, hi) == (7, library.ts)
        assert await library.store.count(by_shelf, hi, lo) == (0, library.ts)

    async def test_one_of_several_at_the_same_commit_is_released_alone(self, library: Library) -> None:
        await library.put(library.add("Emma"))
        one, other = library.store.snapshot(), library.store.snapshot()
        one.release()
        one.release()
        await library.put(library.add("Persuasion"))
        one.release()
        assert await titles(other, library.books) == ["Emma"]
        other.release()

    async def test_many_snapshots_of_different_commits_are_open_at_once(self, library: Library) -> None:
        snapshots = []
        for number in range(20):
            await library.put(library.add(str(number)))
            snapshots.append(library.store.snapshot())
        assert [len(await titles(snapshot, library.books)) for snapshot in snapshots] == list(range(1, 21))
        for snapshot in snapshots[::2] + snapshots[1::2]:
            snapshot.release()

    async def test_does_not_see_a_group_before_its_write_has_returned(self, library: Library) -> None:
        returned = 0

        async def watch() -> None:
            while True:
                snapshot = library.store.snapshot()
                assert snapshot.ts <= returned
                snapshot.release()
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        for number in range(30):
            async with library.store.head() as head:
                commit = library.commit(library.add(str(number)))
                await head.write([commit])
                returned = commit.ts
        assert watching.cancel()


class TestScan:
    @pytest.fixture
    async def shelf(self, library: Library) -> Library:
        await library.put(
            library.add("Emma", shelf="a", year=1815.0),
            library.add("Persuasion", shelf="a", year=1817.0),
            library.add("Middlemarch", shelf="b", year=1871.0),
            library.add("Sanditon", shelf="a", year=1817.0),
        )
        return library

    async def test_goes_by_ascending_key_or_descending_in_reverse(self, shelf: Library) -> None:
        snapshot = shelf.store.snapshot()
        assert await titles(snapshot, shelf.books, "by_title") == ["Emma", "Middlemarch", "Persuasion", "Sanditon"]
        assert await titles(snapshot, shelf.books, "by_title", reverse=True) == ["Sanditon", "Persuasion", "Middlemarch", "Emma"]
        assert await titles(snapshot, shelf.books, reverse=True) == ["Sanditon", "Middlemarch", "Persuasion", "Emma"]
        snapshot.release()

    async def test_covers_an_equality_prefix_and_breaks_ties_by_creation(self, shelf: Library) -> None:
        snapshot = shelf.store.snapshot()
        assert await titles(snapshot, shelf.books, "by_shelf", "a") == ["Emma", "Persuasion", "Sanditon"]
        assert await titles(snapshot, shelf.books, "by_shelf", "a", 1817.0, reverse=True) == ["Sanditon", "Persuasion"]
        assert await titles(snapshot, shelf.books, "by_shelf", "c") == []
        snapshot.release()

    async def test_gives_each_row_its_key_and_takes_the_limit(self, shelf: Library) -> None:
        snapshot = shelf.store.snapshot()
        index = shelf.books.index("by_shelf")
        rows = await snapshot.scan(index, b"", END, reverse=False, limit=2)
        assert [row.key for row in rows] == [shelf.books.keys_of_json(row.json)[index.position] for row in rows]
        assert len(rows) == 2
        assert await snapshot.scan(index, b"", END, reverse=False, limit=0) == []
        snapshot.release()

    @pytest.mark.parametrize("name", ["by_id", "by_creation_time", "by_shelf", "by_title"])
    @pytest.mark.parametrize("reverse", [False, True])
    async def test_includes_lo_and_excludes_hi(self, shelf: Library, name: str, reverse: bool) -> None:
        snapshot = shelf.store.snapshot()
        index = shelf.books.index(name)
        every = [row.key for row in await snapshot.scan(index, b"", END, reverse=False, limit=9)]
        assert every == sorted(every) and len(every) == 4
        edges = [b"", *every, *(key + b"\x00" for key in every), *(key[:-1] for key in every), b"\x80", END]
        for lo in edges:
            for hi in edges:
                rows = await snapshot.scan(index, lo, hi, reverse=reverse, limit=9)
                assert [row.key for row in rows] == sorted((key for key in every if lo <= key < hi), reverse=reverse)
        snapshot.release()

    @pytest.mark.parametrize("name", ["by_id", "by_title"])
    async def test_ranges_and_documents_read_at_once_are_what_they_are_one_by_one(self, shelf: Library, name: str) -> None:
        await shelf.put(*(shelf.add("Sir " * 600 + end) for end in ("Charles", "William")))
        snapshot = shelf.store.snapshot()
        index = shelf.books.index(name)
        every = await snapshot.scan(index, b"", END, reverse=False, limit=9)
        ids = [row.id for row in every] + [shelf.new_id()]
        keys = [b"", *(row.key for row in every), END]
        asked = [(lo, hi, reverse, limit) for lo in keys for hi in keys for reverse in (False, True) for limit in (1, 3, 5000)]
        scans = (snapshot.scan(index, lo, hi, reverse=reverse, limit=limit) for lo, hi, reverse, limit in asked)
        gets = (snapshot.get(shelf.books, id) for id in ids)
        found, got = await asyncio.gather(asyncio.gather(*scans), asyncio.gather(*gets))
        for (lo, hi, reverse, limit), rows in zip(asked, found, strict=True):
            assert rows == sorted((row for row in every if lo <= row.key < hi), key=lambda row: row.key, reverse=reverse)[:limit]
        assert got == [replace(row, key=b"") for row in every] + [None]
        assert len({id(rows) for rows in found}) == len(found), "each may change its own"
        snapshot.release()

    async def test_by_id_goes_by_the_bytes_of_the_id(self, shelf: Library) -> None:
        snapshot = shelf.store.snapshot()
        rows = await snapshot.scan(shelf.books.by_id, b"", END, reverse=False, limit=9)
        assert [row.key for row in rows] == [row.id.encode() for row in rows]
        rest = await snapshot.scan(shelf.books.by_id, rows[1].key + b"\x00", END, reverse=False, limit=9)
        assert rest == rows[2:]
        assert await snapshot.scan(shelf.books.by_id, rows[2].key, rows[2].key + b"\x00", reverse=True, limit=9) == [rows[2]]
        snapshot.release()

    async def test_of_an_index_with_other_fields_than_the_stored_one_says_to_push(self, shelf: Library) -> None:
        class Book(Document, table="books"):
            title: str
            shelf: str = ""
            year: float = 0.0

            by_title = Index("title", "year")

        snapshot = shelf.store.snapshot()
        with pytest.raises(StoreError, match=r"index books\.by_title on \['title', 'year'\] is not ready.*Push the schema"):
            await titles(snapshot, catalog_of(Book).tables["books"], "by_title")
        snapshot.release()

    async def test_of_a_table_that_is_not_there_says_to_push(self, store: Store) -> None:
        books = catalog_of(Book).tables["books"]
        snapshot = store.snapshot()
        with pytest.raises(StoreError, match=r"books.*Push the schema"):
            await titles(snapshot, books)
        with pytest.raises(StoreError, match=r"books.*Push the schema"):
            await snapshot.get(books, "x")
        snapshot.release()


class TestHead:
    async def test_is_held_by_one_at_a_time(self, library: Library) -> None:
        order = []

        async def hold(name: str) -> None:
            async with library.store.head() as head:
                order.append((name, head.ts))
                await head.write([library.commit(library.add(name))])
                order.append((name, head.ts))

        await asyncio.gather(hold("a"), hold("b"), hold("c"))
        assert order == [("a", 0), ("a", 10), ("b", 10), ("b", 20), ("c", 20), ("c", 30)]

    async def test_is_freed_when_its_holder_fails(self, library: Library) -> None:
        with pytest.raises(RuntimeError):
            async with library.store.head():
                raise RuntimeError
        await library.put(library.add("Emma"))

    async def test_has_no_entries_of_its_own_commits(self, library: Library) -> None:
        await library.put(library.add("Emma"))
        async with library.store.head() as head:
            assert await head.entries_after(head.ts) == []

    async def test_ts_is_known_again_after_reopening(self, place: Place) -> None:
        store = await place.open()
        library = Library(store, await push(store, catalog_of(Book)))
        ts = await library.put(library.add("Emma"))
        await store.close()
        store = await place.open()
        async with store.head() as head:
            assert head.ts == ts
        await store.close()


class TestWrite:
    async def test_commits_follow_each_other_within_a_group(self, library: Library) -> None:
        kept, dropped = library.add("Emma"), library.add("Sanditon")
        commits = [
            library.commit(kept, dropped),
            library.commit(library.change(kept.id, title="Persuasion", shelf="a")),
            library.commit(library.change(kept.id, shelf="b"), library.remove(dropped.id)),
            library.commit(library.add("Middlemarch")),
        ]
        await library.write(*commits)
        snapshot = library.store.snapshot()
        assert snapshot.ts == commits[-1].ts
        row = await snapshot.get(library.books, kept.id)
        assert row is not None and row.ts == commits[2].ts
        assert await titles(snapshot, library.books) == ["Persuasion", "Middlemarch"]
        assert await titles(snapshot, library.books, "by_shelf", "b") == ["Persuasion"]
        assert await titles(snapshot, library.books, "by_shelf", "a") == []
        snapshot.release()

    async def test_a_document_added_and_removed_in_one_group_is_only_in_the_log(self, library: Library) -> None:
        write = library.add("Emma")
        await library.write(library.commit(write), library.commit(library.remove(write.id)))
        snapshot = library.store.snapshot()
        assert await titles(snapshot, library.books) == []
        assert len(await library.store.log_after(Ts(0))) == 2
        snapshot.release()

    async def test_a_document_removed_and_added_again_in_one_group_is_there(self, library: Library) -> None:
        write = library.add("Emma", shelf="a")
        await library.put(write)
        json = library.now[write.id]
        keys = keys_of(library.books, json)
        removal = library.remove(write.id)
        await library.write(library.commit(removal), library.commit(replace(write, after=json, after_keys=keys)))
        snapshot = library.store.snapshot()
        assert await titles(snapshot, library.books, "by_shelf", "a") == ["Emma"]
        snapshot.release()

    async def test_a_changed_document_moves_in_the_indexes_that_it_changed_in(self, library: Library) -> None:
        write = library.add("Emma", shelf="a", year=1815.0)
        await library.put(write)
        await library.put(library.change(write.id, shelf="b"))
        await library.put(library.change(write.id, note="nothing that is indexed"))
        await library.put(library.change(write.id, title="Persuasion"))
        snapshot = library.store.snapshot()
        assert await titles(snapshot, library.books, "by_shelf", "a") == []
        assert await titles(snapshot, library.books, "by_shelf", "b", 1815.0) == ["Persuasion"]
        assert await titles(snapshot, library.books, "by_title", "Emma") == []
        assert await titles(snapshot, library.books, "by_title", "Persuasion") == ["Persuasion"]
        snapshot.release()

    async def test_writes_several_tables_in_one_commit(self, library: Library) -> None:
        readers = library.catalog.tables["readers"]
        book, reader = library.add("Emma"), library.add("Anne", readers)
        await library.put(book, reader)
        snapshot = library.store.snapshot()
        assert await snapshot.get(library.books, book.id) is not None
        assert await snapshot.get(readers, reader.id) is not None
        snapshot.release()

    async def test_is_there_after_reopening(self, place: Place) -> None:
        store = await place.open()
        library = Library(store, await push(store, catalog_of(Book)))
        await library.write(library.commit(library.add("Emma"), request=FIRST, result=b'"x"', log_lines=("a", "b")))
        await store.close()
        store = await place.open()
        snapshot = store.snapshot()
        assert await titles(snapshot, library.books, "by_title") == ["Emma"]
        assert await snapshot.find_request(FIRST) == RequestRecord(Ts(10), b'"x"', ("a", "b"))
        assert len(await store.log_after(Ts(0))) == 1
        snapshot.release()
        await store.close()

    async def test_of_nothing_leaves_no_trace(self, library: Library) -> None:
        await library.write()
        await library.write(library.commit())
        snapshot = library.store.snapshot()
        assert snapshot.ts == 0
        assert await library.store.log_after(Ts(0)) == []
        snapshot.release()

    async def test_texts_of_every_kind_come_back_as_they_were(self, library: Library) -> None:
        odd = "ünï\u0000\U0001f600 \"quoted\" 'single' \\ \x7f"
        write = library.add(odd)
        await library.put(write)
        snapshot = library.store.snapshot()
        row = await snapshot.get(library.books, write.id)
        assert row is not None and row.json == library.now[write.id]
        assert await titles(snapshot, library.books, "by_title", odd) == [odd]
        snapshot.release()

    async def test_that_fails_writes_nothing_of_the_group_and_the_next_one_succeeds(self, library: Library) -> None:
        kept = library.add("Emma")
        await library.put(kept)
        good = library.add("Persuasion")
        stranger = library.add("never written")
        with pytest.raises(StoreError, match="not in the database as its commit saw it"):
            await library.write(library.commit(good), library.commit(library.change(stranger.id, title="neither")))
        snapshot = library.store.snapshot()
        assert snapshot.ts == 10
        assert await titles(snapshot, library.books) == ["Emma"]
        assert len(await library.store.log_after(Ts(0))) == 1
        snapshot.release()
        async with library.store.head() as head:
            assert head.ts == 10
        await library.put(good)

    async def test_refuses_a_ts_that_does_not_grow(self, library: Library) -> None:
        await library.put(library.add("Emma"))
        library.ts -= 10
        with pytest.raises(StoreError, match="commit 10 does not come after 10"):
            await library.put(library.add("Persuasion"))
        one, other = library.commit(library.add("a")), library.commit(library.add("b"))
        with pytest.raises(StoreError, match="does not come after"):
            await library.write(other, one)

    async def test_refuses_a_table_that_lacks_a_ready_index(self, library: Library) -> None:
        class Book(Document, table="books"):
            title: str
            shelf: str = ""
            year: float = 0.0

        write = library.add("Emma")
        with pytest.raises(StoreError, match=r"books: written without keys for its index by_\w+\. Push the schema"):
            await library.put(replace(write, table=catalog_of(Book).tables["books"], after_keys=write.after_keys[:1]))

    async def test_goes_on_to_its_end_when_the_caller_is_cancelled(self, library: Library) -> None:
        after_write: list[int] = []

        async def write() -> None:
            async with library.store.head() as head:
                await head.write([library.commit(library.add("Emma"))])
                after_write.append(head.ts)
                await asyncio.sleep(0)
                after_write.append(0)  # not reached

        writing = asyncio.create_task(write())
        while not writing.cancelling():
            await asyncio.sleep(0)
            writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert after_write == [10]
        snapshot = library.store.snapshot()
        assert (snapshot.ts, await titles(snapshot, library.books)) == (10, ["Emma"])
        snapshot.release()

    async def test_the_caller_learns_of_a_failure_before_its_cancellation(self, library: Library) -> None:
        stranger = library.add("never written")

        async def write() -> None:
            started.set()
            with pytest.raises(StoreError):
                await library.put(library.add("Emma"), library.change(stranger.id, title="x"))
            await asyncio.sleep(0)

        started = asyncio.Event()
        writing = asyncio.create_task(write())
        await started.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing


class TestRequests:
    async def test_are_found_by_session_and_number(self, library: Library) -> None:
        await library.write(library.commit(library.add("Emma"), request=FIRST, result=b'{"a":1.0}', log_lines=("'hi'", "ünï \ud800")))
        snapshot = library.store.snapshot()
        assert await snapshot.find_request(FIRST) == RequestRecord(Ts(10), b'{"a":1.0}', ("'hi'", "ünï \ud800"))
        assert await snapshot.find_request(RequestKey("session-1", 1)) is None
        assert await snapshot.find_request(RequestKey("session-2", 0)) is None
        snapshot.release()

    async def test_without_writes_are_remembered_with_a_ts_of_their_own(self, library: Library) -> None:
        await library.write(library.commit(request=FIRST, result=b"7"))
        snapshot = library.store.snapshot()
        assert snapshot.ts == 10
        assert await snapshot.find_request(FIRST) == RequestRecord(Ts(10), b"7", ())
        assert await library.store.log_after(Ts(0)) == []
        snapshot.release()

    async def test_are_not_seen_by_snapshots_from_before(self, library: Library) -> None:
        snapshot = library.store.snapshot()
        await library.write(library.commit(request=FIRST))
        assert await snapshot.find_request(FIRST) is None
        snapshot.release()

    async def test_cannot_be_written_twice(self, library: Library) -> None:
        await library.write(library.commit(request=FIRST, result=b"1"))
        with pytest.raises(StoreError):
            await library.write(library.commit(library.add("Emma"), request=FIRST, result=b"2"))
        snapshot = library.store.snapshot()
        assert await snapshot.find_request(FIRST) == RequestRecord(Ts(10), b"1", ())
        assert await titles(snapshot, library.books) == []
        snapshot.release()


class TestLog:
    async def test_has_before_and_after_of_each_document_in_order(self, library: Library) -> None:
        add = library.add("Emma")
        other = library.add("Anne", library.catalog.tables["readers"])
        await library.put(add, other)
        before = library.now[add.id]
        change = library.change(add.id, title="Persuasion")
        await library.write(library.commit(change), library.commit(library.remove(add.id)))
        assert await library.store.log_after(Ts(0)) == [
            LogEntry(Ts(10), (LoggedWrite("books", add.id, None, before), LoggedWrite("readers", other.id, None, other.after))),
            LogEntry(Ts(20), (LoggedWrite("books", add.id, before, change.after),)),
            LogEntry(Ts(30), (LoggedWrite("books", add.id, change.after, None),)),
        ]

    async def test_gives_what_is_after_one_ts_and_not_after_another(self, library: Library) -> None:
        await library.write(*(library.commit(library.add(str(n)), library.add(str(n))) for n in range(9)))
        log = library.store.log_after

        async def found(ts: int, until: int | None = None, limit: int = 1000) -> list[int]:
            entries = await log(Ts(ts), until=None if until is None else Ts(until), limit=limit)
            assert all(len(entry.writes) == 2 for entry in entries)
            return [entry.ts for entry in entries]

        assert await found(70) == [80, 90]
        assert await found(75) == [80, 90]
        assert await found(90) == []
        assert await found(20, 50) == [30, 40, 50]
        assert await found(20, 49) == [30, 40]
        assert await found(50, 20) == []
        assert await found(0, limit=2) == [10, 20]
        assert await found(20, 50, limit=3) == [30, 40, 50]
        assert await found(20, 50, limit=4) == [30, 40, 50]

    async def test_gives_few_entries_at_a_time_where_they_are_large(self, library: Library) -> None:
        chance = random.Random(1)
        size_bytes = LOG_BYTES // 4
        ts = [await library.put(library.add(chance.randbytes(size_bytes // 2).hex())) for _ in range(10)]
        found: list[Ts] = []
        steps = 0
        while entries := await library.store.log_after(found[-1] if found else Ts(0)):
            assert sum(len(write.after or "") for entry in entries for write in entry.writes) < LOG_BYTES + 2 * size_bytes
            found += [entry.ts for entry in entries]
            steps += 1
        assert found == ts and steps < 10
        [huge] = await library.store.log_after(Ts(0), limit=1)
        assert huge.ts == ts[0]


class TestTrim:
    async def test_forgets_what_is_below_and_says_so_when_asked_for_it(self, library: Library) -> None:
        for number in range(5):
            await library.put(library.add(str(number)))
        await library.store.trim(log_before=Ts(30), requests_before=Ts(0))
        assert [entry.ts for entry in await library.store.log_after(Ts(20))] == [30, 40, 50]
        for ts in (0, 10, 19):
            with pytest.raises(StoreError) as caught:
                await library.store.log_after(Ts(ts))
            assert caught.value.code == "LogTrimmed"

    async def test_of_everything_does_not_take_ts_back(self, place: Place) -> None:
        store = await place.open()
        library = Library(store, await push(store, catalog_of(Book)))
        await library.put(library.add("Emma"))
        await store.trim(log_before=Ts(1000), requests_before=Ts(1000))
        await store.close()
        store = await place.open()
        library.store = store
        snapshot = store.snapshot()
        assert snapshot.ts == 10
        snapshot.release()
        assert await store.log_after(Ts(10)) == []
        with pytest.raises(StoreError, match="no longer has the commits after 9"):
            await store.log_after(Ts(9))
        library.ts = 0
        with pytest.raises(StoreError, match="does not come after"):
            await library.put(library.add("Persuasion"))
        await store.close()

    async def test_keeps_requests_apart_from_the_log_and_over_reopening(self, place: Place) -> None:
        store = await place.open()
        library = Library(store, await push(store, catalog_of(Book)))
        keys = [RequestKey("session-1", number) for number in range(4)]
        for key in keys:
            await library.write(library.commit(library.add("Emma"), request=key, result=str(key.request).encode()))
        await store.trim(log_before=Ts(40), requests_before=Ts(20))
        await store.close()
        store = await place.open()
        assert [entry.ts for entry in await store.log_after(Ts(30))] == [40]
        snapshot = store.snapshot()
        assert [await snapshot.find_request(key) for key in keys] == [
            None,
            RequestRecord(Ts(20), b"1", ()),
            RequestRecord(Ts(30), b"2", ()),
            RequestRecord(Ts(40), b"3", ()),
        ]
        snapshot.release()
        await store.close()

    async def test_of_nothing_is_nothing(self, library: Library) -> None:
        await library.store.trim(log_before=Ts(1000), requests_before=Ts(1000))
        assert await library.store.log_after(Ts(0)) == []


class TestSchema:
    async def test_tables_are_numbered_from_10001_and_begin_with_by_creation_time(self, store: Store) -> None:
        books = await store.create_table("books")
        readers = await store.create_table("readers")
        assert (books.number, readers.number) == (10_001, 10_002)
        assert books.indexes == (StoredIndex("by_creation_time", (), True),)
        assert books.shape == ""
        assert store.tables() == {"books": books, "readers": readers}

    async def test_a_system_table_has_a_number_below_those_of_the_apps(self, store: Store) -> None:
        names = ["_files", "books", "_jobs", "readers"]
        numbers = [(await store.create_table(name)).number for name in names]
        assert numbers == [1, 10_001, 2, 10_002]

    async def test_is_there_after_reopening(self, place: Place) -> None:
        store = await place.open()
        await push(store, catalog_of(Book, Reader))
        tables = dict(store.tables())
        await store.close()
        store = await place.open()
        assert dict(store.tables()) == tables
        assert (await store.create_table("more")).number == 10_003
        await store.close()

    async def test_finish_makes_indexes_ready_and_remembers_the_shape(self, library: Library) -> None:
        stored = library.store.tables()["books"]
        assert set(stored.indexes) == {
            StoredIndex("by_creation_time", (), True),
            StoredIndex("by_shelf", ("shelf", "year"), True),
            StoredIndex("by_title", ("title",), True),
        }
        assert stored.shape == library.books.shape != ""

    async def test_an_index_built_beside_writes_has_every_document(self, store: Store) -> None:
        library = Library(store, await push(store, catalog_of(PlainBook)))
        plain = library.books
        old = [library.add(f"old {n}", shelf="a") for n in range(5)]
        await library.put(*old)
        catalog = catalog_of(Book)
        books = catalog.tables["books"]
        for name in ("by_shelf", "by_title"):
            await store.create_index("books", name, books.index(name).fields)
        snapshot = store.snapshot()
        walked = [await snapshot.get(plain, write.id) for write in old]
        snapshot.release()
        # While the rows are walked: one changes, one goes, one comes.
        await library.put(library.change(old[0].id, title="changed"), library.remove(old[1].id), library.add("new", shelf="b"))
        for name in ("by_shelf", "by_title"):
            position = books.index(name).position
            rows = [(row.id, row.ts, books.keys_of_json(row.json)[position]) for row in walked if row is not None]
            await store.fill_index("books", name, rows)
            await store.build_index("books", name)
        assert [index.ready for index in store.tables()["books"].indexes] == [True, False, False]
        with pytest.raises(StoreError, match=r"cannot become ready: document .* has no key in it"):
            await store.finish_schema([books])
        # Catching up by the log.
        snapshot = store.snapshot()
        for write in (await store.log_after(Ts(10)))[0].writes:
            row = await snapshot.get(plain, write.id)
            if row is not None:
                for name in ("by_shelf", "by_title"):
                    key = books.keys_of_json(row.json)[books.index(name).position]
                    await store.fill_index("books", name, [(row.id, row.ts, key)])
        snapshot.release()
        await store.finish_schema([books])
        snapshot = store.snapshot()
        assert await titles(snapshot, books, "by_title") == ["changed", "new", "old 2", "old 3", "old 4"]
        assert await titles(snapshot, books, "by_shelf", "a") == ["changed", "old 2", "old 3", "old 4"]
        snapshot.release()

    async def test_a_row_changed_while_an_index_is_filled_loses_the_key_of_its_old_version(self, store: Store) -> None:
        library = Library(store, await push(store, catalog_of(PlainBook)))
        write = library.add("Emma")
        ts = await library.put(write)
        await store.create_index("books", "by_title", ("title",))
        await store.fill_index("books", "by_title", [(write.id, ts, b"\x10emma")])
        await library.put(library.change(write.id, note="changed"))
        with pytest.raises(StoreError, match=f"document {write.id} has no key"):
            await store.finish_schema([catalog_of(TitledBook).tables["books"]])

    async def test_a_redefined_index_serves_as_it_was_until_the_schema_is_finished(self, library: Library) -> None:
        class Book(Document, table="books"):
            title: str
            shelf: str = ""
            year: float = 0.0

            by_shelf = Index("year")
            by_title = Index("title")

        store, old = library.store, library.books
        new = catalog_of(Book).tables["books"]
        write = library.add("Emma", shelf="a", year=1815.0)
        ts = await library.put(write)
        await store.create_index("books", "by_shelf", ("year",))
        await store.fill_index("books", "by_shelf", [(write.id, ts, new.keys_of_json(library.now[write.id])[1])])
        await store.build_index("books", "by_shelf")
        before = store.snapshot()
        assert await titles(before, old, "by_shelf", "a") == ["Emma"]
        await store.finish_schema([new])
        after = store.snapshot()
        assert await titles(after, new, "by_shelf", 1815.0) == ["Emma"]
        assert await titles(before, old, "by_shelf", "a") == ["Emma"]
        with pytest.raises(StoreError):
            await titles(after, old, "by_shelf", "a")
        assert [index for index in store.tables()["books"].indexes if index.name == "by_shelf"] == [
            StoredIndex("by_shelf", ("year",), True)
        ]
        library.books = new
        await library.put(library.change(write.id, year=1816.0))
        await store.trim(log_before=Ts(0), requests_before=Ts(0))
        assert await titles(before, old, "by_shelf", "a") == ["Emma"]
        before.release()
        after.release()
        snapshot = store.snapshot()
        assert await titles(snapshot, new, "by_shelf", 1816.0) == ["Emma"]
        snapshot.release()

    async def test_an_index_that_is_not_ready_is_started_anew(self, store: Store) -> None:
        library = Library(store, await push(store, catalog_of(PlainBook)))
        write = library.add("Emma")
        ts = await library.put(write)
        await store.create_index("books", "by_title", ("year",))
        await store.fill_index("books", "by_title", [(write.id, ts, b"\x01stale")])
        await store.create_index("books", "by_title", ("title",))
        table = catalog_of(TitledBook).tables["books"]
        assert [index for index in store.tables()["books"].indexes if not index.ready] == [StoredIndex("by_title", ("title",), False)]
        await store.fill_index("books", "by_title", [(write.id, ts, table.keys_of_json(library.now[write.id])[1])])
        await store.build_index("books", "by_title")
        await store.finish_schema([table])
        snapshot = store.snapshot()
        assert await titles(snapshot, table, "by_title", "Emma") == ["Emma"]
        snapshot.release()

    async def test_an_index_that_left_the_schema_is_dropped_and_may_come_back(self, library: Library) -> None:
        store = library.store
        write = library.add("Emma")
        await library.put(write)
        for _ in range(3):
            await store.finish_schema([catalog_of(PlainBook).tables["books"]])
            assert [index.name for index in store.tables()["books"].indexes] == ["by_creation_time"]
            await store.trim(log_before=Ts(0), requests_before=Ts(0))
            table = catalog_of(TitledBook).tables["books"]
            await store.create_index("books", "by_title", ("title",))
            with pytest.raises(StoreError, match="has no key"):  # nothing is left over from the dropped one
                await store.finish_schema([table])
            await store.fill_index("books", "by_title", [(write.id, Ts(10), table.keys_of_json(library.now[write.id])[1])])
            await store.finish_schema([table])
        snapshot = store.snapshot()
        assert await titles(snapshot, table, "by_title", "Emma") == ["Emma"]
        snapshot.release()

    async def test_tables_that_left_the_schema_keep_data_and_indexes(self, library: Library) -> None:
        await library.put(library.add("Emma"))
        await library.store.finish_schema([catalog_of(Reader).tables["readers"]])
        snapshot = library.store.snapshot()
        assert await titles(snapshot, library.books, "by_title", "Emma") == ["Emma"]
        snapshot.release()

    async def test_operations_on_what_is_not_there_say_so(self, store: Store) -> None:
        with pytest.raises(StoreError, match="there is no table books"):
            await store.create_index("books", "by_title", ("title",))
        await store.create_table("books")
        with pytest.raises(StoreError, match=r"books\.by_title is not being built"):
            await store.build_index("books", "by_title")
        with pytest.raises(StoreError, match=r"books\.by_title is not being built"):
            await store.fill_index("books", "by_title", [])
        with pytest.raises(StoreError):
            await store.create_table("books")
        assert list(store.tables()) == ["books"]

    @pytest.mark.parametrize("name", ["select", "Order", "sqlite_master", "SQLITE_stat1", "index", "BOOKS", "Books", "x" * 64])
    async def test_any_identifier_is_a_table_name(self, library: Library, name: str) -> None:
        document = type("Any", (Document,), {"__annotations__": {"title": str}, "__module__": __name__}, table=name)
        catalog = await push(library.store, catalog_of(document, Book))
        table = catalog.tables[name]
        id = library.new_id(table)
        other = library.add("Emma")
        json = other.after.replace(other.id, id) if other.after else ""
        write = replace(other, table=table, id=id, after=json, after_keys=table.keys_of_json(json))
        await library.put(other, write)
        snapshot = library.store.snapshot()
        assert ids_of([write]) == [row.id for row in await snapshot.scan(table.by_id, b"", END, reverse=False, limit=9)]
        assert await titles(snapshot, table) == ["Emma"]
        snapshot.release()


class PlainBook(Document, table="books"):
    title: str
    shelf: str = ""
    year: float = 0.0


class TitledBook(Document, table="books"):
    title: str
    shelf: str = ""
    year: float = 0.0

    by_title = Index("title")


class TestClose:
    async def test_twice_is_once(self, place: Place) -> None:
        store = await place.open()
        await asyncio.gather(store.close(), store.close())
        await store.close()

    async def test_waits_for_the_group_that_is_being_written(self, place: Place) -> None:
        store = await place.open()
        library = Library(store, await push(store, catalog_of(Book)))
        writing = asyncio.create_task(library.put(library.add("Emma")))
        await asyncio.sleep(0)
        await store.close()
        await writing
        store = await place.open()
        snapshot = store.snapshot()
        assert await titles(snapshot, library.books) == ["Emma"]
        snapshot.release()
        await store.close()

    async def test_afterwards_every_operation_says_so(self, place: Place) -> None:
        store = await place.open()
        library = Library(store, await push(store, catalog_of(Book)))
        held = store.snapshot()
        await store.close()
        with pytest.raises(StoreError, match="closed"):
            store.snapshot()
        with pytest.raises(StoreError, match="closed"):
            await library.put(library.add("Emma"))
        with pytest.raises(StoreError, match="closed"):
            await store.log_after(Ts(0))
        with pytest.raises(StoreError, match="closed"):
            await store.create_table("more")
        with pytest.raises(StoreError, match="closed"):
            await held.get(library.books, "x")
        held.release()


async def test_keys_hold_any_bytes(library: Library) -> None:
    write = library.add("Emma")
    keys = tuple(bytes(range(256)) + key for key in write.after_keys)
    await library.put(replace(write, after_keys=keys))
    snapshot = library.store.snapshot()
    rows = await snapshot.scan(library.books.index("by_title"), b"\x00", encode_key(""), reverse=False, limit=9)
    assert [row.key for row in rows] == [keys[2]]
    snapshot.release()
