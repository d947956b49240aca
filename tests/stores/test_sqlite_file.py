"""Opening a SQLite file: new ones, ours, other programs', damaged ones, and places that cannot be written to."""

from __future__ import annotations

import asyncio
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import pytest

from reactor.errors import StoreCorrupt, StoreError, StoreLocked, StoreReadOnly, StoreTooNew
from reactor.stores.sqlite import SqliteStore
from reactor.stores.sqlite_file import MIGRATIONS, DatabaseFile, load_migrations
from tests.stores.library import Book, Library, catalog_of, push, titles

pytestmark = pytest.mark.sqlite_only("what is SQLite's own")

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reactor.db"


def fill(path: Path, books: int = 200) -> None:
    """A closed database with some books in it."""

    async def run() -> None:
        store = SqliteStore.open(path)
        library = Library(store, await push(store, catalog_of(Book)))
        await library.put(*(library.add(f"book {number}") for number in range(books)))
        await store.close()

    asyncio.run(run())


def use(path: Path) -> int:
    """Open it, read all there is, write something more. How many books there were."""

    async def run() -> int:
        store = SqliteStore.open(path)
        try:
            library = Library(store, await push(store, catalog_of(Book)), 10_000)
            snapshot = store.snapshot()
            found = await titles(snapshot, library.books, "by_title")
            assert sorted(found) == sorted(await titles(snapshot, library.books)) == sorted(f"book {n}" for n in range(len(found)))
            snapshot.release()
            await library.put(library.add(f"book {len(found)}"))
            return len(found)
        finally:
            await store.close()

    return asyncio.run(run())


class TestOpen:
    def test_makes_the_file_and_its_folders(self, tmp_path: Path) -> None:
        path = tmp_path / "some" / "where" / "reactor.db"
        store = SqliteStore.open(path)
        assert store.path == path
        asyncio.run(store.close())
        assert sorted(os.listdir(path.parent)) == ["reactor.db", "reactor.db-lock"]

    def test_keeps_the_name_and_the_secret_of_the_database(self, tmp_path: Path) -> None:
        seen = []
        for name in ("a.db", "a.db", "b.db"):
            store = SqliteStore.open(tmp_path / name)
            seen.append((store.instance_name, store.secret))
            asyncio.run(store.close())
        assert seen[0] == seen[1] != seen[2]
        assert len(seen[0][1]) == 32 and seen[0][0].startswith("reactor-")

    def test_marks_the_file_as_ours_in_the_newest_format(self, path: Path) -> None:
        fill(path)
        with apsw.Connection(str(path)) as connection:
            assert connection.pragma("application_id") == 0x52656163
            assert connection.pragma("user_version") == len(load_migrations())
            assert connection.pragma("integrity_check") == "ok"

    def test_lets_other_programs_read_beside_it(self, path: Path) -> None:
        fill(path, 3)
        store = SqliteStore.open(path)
        with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY) as connection:
            assert connection.execute("SELECT doc ->> '$.title' FROM books ORDER BY key_1").fetchall() == [
                ("book 0",),
                ("book 1",),
                ("book 2",),
            ]
        connection.close()
        asyncio.run(store.close())

    @pytest.mark.parametrize(("synchronous", "level"), [("full", 2), ("normal", 1)])
    def test_waits_for_the_disk_as_it_is_told(self, path: Path, synchronous: str, level: int) -> None:
        file = DatabaseFile(path, synchronous)  # type: ignore[arg-type]
        assert file.writer.pragma("synchronous") == level
        assert file.writer.pragma("journal_mode") == "wal"
        file.close()

    def test_takes_an_empty_file_as_new(self, path: Path) -> None:
        path.touch()
        assert use(path) == 0

    def test_a_temporary_database_is_deleted_when_it_is_closed(self) -> None:
        store = SqliteStore.temporary()
        assert store.path.exists()
        asyncio.run(store.close())
        assert not store.path.parent.exists()


class TestLock:
    def test_keeps_a_second_store_out_and_names_the_process(self, path: Path) -> None:
        store = SqliteStore.open(path)
        with pytest.raises(StoreLocked, match=f"reactor.db: in use by process {os.getpid()}. Stop that process"):
            SqliteStore.open(path)
        asyncio.run(store.close())
        asyncio.run(SqliteStore.open(path).close())

    def test_holds_under_another_name_of_the_same_file(self, path: Path) -> None:
        store = SqliteStore.open(path)
        link = path.with_name("link.db")
        link.symlink_to(path)
        with pytest.raises(StoreLocked):
            SqliteStore.open(link)
        asyncio.run(store.close())

    def test_keeps_a_second_process_out(self, path: Path) -> None:
        script = f"from reactor.stores.sqlite import SqliteStore; s = SqliteStore.open({str(path)!r}); print('open', flush=True); input()"
        with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "open\n"
            with pytest.raises(StoreLocked, match=f"in use by process {other.pid}"):
                SqliteStore.open(path)
            other.kill()
        asyncio.run(SqliteStore.open(path).close())

    def test_is_released_when_opening_fails(self, path: Path) -> None:
        path.write_bytes(b"not a database" * 1000)
        for _ in range(2):
            with pytest.raises(StoreCorrupt):
                SqliteStore.open(path)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of this user's, who is not root meanwhile: root may write everywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        with TemporaryDirectory() as folder:
            yield Path(folder)
            Path(folder).chmod(0o755)
    finally:
        if root:
            os.seteuid(0)


class TestReadOnlyPlaces:
    def test_below_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreReadOnly, match=r"the folder cannot be made.*Check the permissions, or choose another place"):
            SqliteStore.open(tmp_path / "file" / "reactor.db")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StoreReadOnly, match=r"a folder\. Give the path of a file"):
            SqliteStore.open(tmp_path)

    def test_where_no_file_can_be_made(self) -> None:
        with pytest.raises(StoreReadOnly, match="the file cannot be made"):
            SqliteStore.open("/proc/self/reactor.db")

    def test_a_folder_that_may_only_be_read(self, unprivileged: Path) -> None:
        unprivileged.chmod(0o555)
        with pytest.raises(StoreReadOnly, match=r"reactor\.db-lock: the file cannot be made \(Permission denied\)"):
            SqliteStore.open(unprivileged / "reactor.db")
        assert os.listdir(unprivileged) == []

    def test_a_file_that_may_only_be_read(self, unprivileged: Path) -> None:
        path = unprivileged / "reactor.db"
        fill(path, 1)
        path.chmod(0o444)
        with pytest.raises(StoreReadOnly, match=r"reactor\.db: .*cannot be written to"):
            SqliteStore.open(path)
        path.chmod(0o644)
        assert use(path) == 1

    def test_a_file_in_a_folder_that_may_only_be_read(self, unprivileged: Path) -> None:
        path = unprivileged / "reactor.db"
        fill(path, 1)
        unprivileged.chmod(0o555)
        with pytest.raises(StoreReadOnly, match=r"reactor\.db.*Check the permissions"):
            SqliteStore.open(path)
        unprivileged.chmod(0o755)
        assert use(path) == 1


class TestOtherFiles:
    @pytest.mark.parametrize("content", [b"x", b"not a database at all\n" * 500, bytes(4096), os.urandom(40_000)])
    def test_that_are_no_database_are_refused_and_left_alone(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(StoreCorrupt, match="not a database of reactor's"):
            SqliteStore.open(path)
        assert path.read_bytes() == content

    def test_that_are_another_programs_database_are_refused_and_left_alone(self, path: Path) -> None:
        with apsw.Connection(str(path)) as connection:
            connection.execute("CREATE TABLE notes (text)")
        connection.close()
        content = path.read_bytes()
        with pytest.raises(StoreCorrupt, match="a SQLite database, but not one of reactor's"):
            SqliteStore.open(path)
        assert path.read_bytes() == content

    def test_of_a_later_version_are_refused_and_left_alone(self, path: Path) -> None:
        fill(path, 1)
        with apsw.Connection(str(path)) as connection:
            connection.pragma("user_version", 99)
        connection.close()
        content = path.read_bytes()
        with pytest.raises(StoreTooNew, match=r"written by a later version of reactor \(format 99, .*Upgrade reactor"):
            SqliteStore.open(path)
        assert path.read_bytes() == content


class TestDamage:
    @pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
    def test_a_truncated_file_is_refused(self, path: Path, part: float) -> None:
        fill(path)
        os.truncate(path, int(path.stat().st_size * part) // 512 * 512)
        with pytest.raises(StoreCorrupt, match="Restore it from a backup"):
            SqliteStore.open(path)

    @pytest.mark.parametrize("seed", range(8))
    def test_flipped_bytes_in_the_header_are_refused_or_do_no_harm(self, path: Path, seed: int) -> None:
        fill(path)
        sound = path.read_bytes()
        rng = random.Random(seed)
        refusals: list[StoreError] = []  # kept, and with them whatever an opening that failed did not close
        for at in range(seed, 100, 8):
            damaged = bytearray(sound)
            damaged[at] ^= rng.randrange(1, 256)
            path.write_bytes(damaged)
            try:
                assert use(path) == 200
            except StoreError as error:
                assert str(path) in str(error)
                refusals.append(error)

    def test_a_lost_system_table_is_found(self, path: Path) -> None:
        fill(path)
        with apsw.Connection(str(path)) as connection:
            connection.execute("DROP TABLE _reactor_requests")
            connection.execute("DELETE FROM _reactor_meta")
        connection.close()
        with pytest.raises(StoreCorrupt):
            SqliteStore.open(path)

    @pytest.mark.parametrize("statement", ["DROP TABLE books", 'DROP INDEX "books.by_title.3"', "ALTER TABLE books RENAME doc TO text"])
    def test_a_table_that_is_not_as_it_was_left_is_found(self, path: Path, statement: str) -> None:
        fill(path)
        with apsw.Connection(str(path)) as connection:
            connection.execute(statement)
        connection.close()
        with pytest.raises(StoreCorrupt, match="damaged"):
            SqliteStore.open(path)

    def test_a_log_that_goes_on_past_its_head_is_found(self, path: Path) -> None:
        fill(path)
        with apsw.Connection(str(path)) as connection:
            connection.execute("UPDATE _reactor_meta SET head_ts = 5")
        connection.close()
        with pytest.raises(StoreCorrupt, match="past its head"):
            SqliteStore.open(path)

    def test_an_overwritten_page_of_the_schema_is_found(self, path: Path) -> None:
        fill(path)
        with path.open("r+b") as file:
            file.seek(100)
            file.write(os.urandom(2000))
        with pytest.raises(StoreCorrupt):
            SqliteStore.open(path)

    def test_a_write_ahead_log_of_garbage_is_ignored(self, path: Path) -> None:
        fill(path)
        path.with_name("reactor.db-wal").write_bytes(struct.pack(">I", 0x377F0682) + os.urandom(100_000))
        assert use(path) == 200


class TestMigrations:
    def test_are_numbered_without_gaps(self) -> None:
        names = sorted(script.name for script in MIGRATIONS.glob("*.sql"))
        assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))

    def test_bring_an_older_database_to_the_newest_format(self, path: Path) -> None:
        fill(path, 3)
        row = "INSERT INTO _reactor_more VALUES"
        steps = ["CREATE TABLE _reactor_more (x TEXT)", f"{row} ('a'); {row} ('b')"]
        file = DatabaseFile(path, "full", [*load_migrations(), *steps])
        assert file.writer.execute("SELECT x FROM _reactor_more").fetchall() == [("a",), ("b",)]
        assert file.writer.pragma("user_version") == len(load_migrations()) + 2
        file.close()
        with pytest.raises(StoreTooNew):
            SqliteStore.open(path)

    def test_that_fail_leave_the_database_as_it_was(self, path: Path) -> None:
        fill(path, 3)
        with pytest.raises(StoreError, match="nowhere"):
            DatabaseFile(path, "full", [*load_migrations(), "CREATE TABLE _reactor_more (x TEXT)", "INSERT INTO nowhere VALUES (1)"])
        assert use(path) == 3
        with apsw.Connection(str(path)) as connection:
            assert connection.pragma("user_version") == len(load_migrations())
            assert not connection.table_exists(None, "_reactor_more")
        connection.close()
