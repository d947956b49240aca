"""Opening a SQLite file as a database of reactor's: its lock, its checks, its format, its connections, its errors."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import apsw

from reactor.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreReadOnly, StoreTooNew

__all__ = ["MIGRATIONS", "DatabaseFile", "Synchronous", "damaged", "load_migrations", "store_error"]

#: When a commit waits for the disk. "off" is for databases that nobody keeps.
Synchronous = Literal["full", "normal", "off"]

#: Marks a SQLite file as ours, in its header ("Reac").
APPLICATION_ID = 0x52656163

MIGRATIONS = Path(__file__).parent / "migrations" / "sqlite"

#: SQLite takes a smaller file for an empty one, and would write over it.
SMALLEST_FILE_BYTES = 512

#: Statements kept prepared by a connection that reads, and by the writer: a table has three and two for each index, and two or three.
#: apsw looks through as many places for each row that is written.
READER_STATEMENTS = 512
WRITER_STATEMENTS = 128

#: No mmap: SQLite unmaps the whole file whenever another connection has committed, and the page faults that follow cost
#: three times what they save (a get 25 µs instead of 12 µs) as soon as groups of commits come between reads.
READER_CACHE_KIB = 16 * 1024
#: The writer's cache is never invalidated, as nobody else writes.
WRITER_CACHE_KIB = 64 * 1024

#: The WAL file is cut back to this when it begins anew after having grown large.
WAL_SIZE_LIMIT_BYTES = 256 * 1024 * 1024

READER_BUSY_TIMEOUT_MS = 1000


def store_error(error: apsw.Error, path: Path) -> StoreError:
    """What SQLite reports, as the error that says what to do about it."""
    match error:
        case apsw.FullError():
            return StoreFull(f"{path}: there is no space left on the disk. Nothing was written; free some space and it goes on by itself")
        case apsw.NotADBError() | apsw.CorruptError() | apsw.FormatError():
            return damaged(path, error)
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError() | apsw.AuthError():
            return StoreReadOnly(f"{path}: cannot be written to ({error}). Check the permissions of the file and its folder")
        case apsw.BusyError() | apsw.LockedError():
            return StoreLocked(f"{path}: another program holds a transaction in the database ({error}). Let it end or stop that program")
        case apsw.IOError():
            return StoreError(f"{path}: the disk failed ({error}). Check the disk and the system's log")
        case _:
            return StoreError(f"{path}: {error}")


def damaged(path: Path, why: object) -> StoreCorrupt:
    """The error of a file that is not what it should be."""
    return StoreCorrupt(f"{path}: not a database of reactor's, or damaged ({why}). Restore it from a backup, or move it away")


def load_migrations(folder: Path = MIGRATIONS) -> list[str]:
    """The scripts that lead from an empty file to the newest format, in order of their numbers."""
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.sql"))]


class DatabaseFile:
    """One database file, locked for this process, checked, and brought to the newest format.

    Args:
        path: made when it is not there, with its folder.

    Raises:
        StoreLocked: another process, or another store of this one, has it open.
        StoreReadOnly: it, or its folder, cannot be written to.
        StoreCorrupt: it is something else than a database of reactor's, or damaged.
        StoreTooNew: a later reactor wrote it.
    """

    def __init__(self, path: str | os.PathLike[str], synchronous: Synchronous, migrations: Sequence[str] | None = None) -> None:
        self.path = Path(os.path.realpath(path))
        self.synchronous: Synchronous = synchronous
        _make_folder(self.path)
        self._lock = _lock(self.path)
        try:
            _look_at(self.path)
            self.writer = self._connect(WRITER_CACHE_KIB, WRITER_STATEMENTS)
            try:
                self._prepare(load_migrations() if migrations is None else migrations)
            except BaseException:
                self.writer.close()
                raise
        except apsw.Error as error:
            self._unlock()
            raise store_error(error, self.path) from error
        except BaseException:
            self._unlock()
            raise

    def connect_reader(self) -> apsw.Connection:
        """One more connection, for reading only."""
        try:
            return self._connect(READER_CACHE_KIB, READER_STATEMENTS, reading=True)
        except apsw.Error as error:
            raise store_error(error, self.path) from error

    def close(self) -> None:
        """Close the writer, which brings the WAL into the file when no reader is left, and release the lock. May take long."""
        self.writer.close()
        self._unlock()

    @property
    def closed(self) -> bool:
        return self._lock < 0

    def _connect(self, cache_kib: int, statements: int, *, reading: bool = False) -> apsw.Connection:
        connection = apsw.Connection(str(self.path), statementcachesize=statements)
        try:
            # A name that is not a column is a mistake of ours, never a string.
            connection.config(apsw.SQLITE_DBCONFIG_DQS_DML, 0)
            connection.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
            connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
            # Else each scan is parsed and planned anew, for the number that its LIMIT has this time might call for another plan.
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
            connection.execute(f"PRAGMA cache_size = -{cache_kib}")
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.execute("PRAGMA mmap_size = 0").fetchall()
            if reading:
                connection.set_busy_timeout(READER_BUSY_TIMEOUT_MS)
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            # Not when it is collected: until then it keeps the log of a file that may be replaced meanwhile.
            connection.close()
            raise
        return connection

    def _prepare(self, migrations: Sequence[str]) -> None:
        writer = self.writer
        version = self._identify(len(migrations))
        mode = writer.pragma("journal_mode", "wal")
        if mode != "wal":
            raise StoreError(f"{self.path}: SQLite cannot keep a write-ahead log here (journal mode is {mode!r}). Put it on a local disk")
        # The store checkpoints itself: it knows when readers are out of the way.
        writer.pragma("wal_autocheckpoint", 0)
        writer.pragma("journal_size_limit", WAL_SIZE_LIMIT_BYTES)
        if version < len(migrations):
            self._migrate(version, migrations)
        self._check()

    def _identify(self, newest: int) -> int:
        """The version of the file's format, 0 for a new file."""
        writer = self.writer
        application = writer.pragma("application_id")
        version = writer.pragma("user_version")
        if application == APPLICATION_ID:
            if version > newest:
                raise StoreTooNew(
                    f"{self.path}: written by a later version of reactor (format {version}, this one knows up to {newest}). Upgrade reactor"
                )
            return int(version)
        if application or version or writer.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
            raise StoreCorrupt(f"{self.path}: a SQLite database, but not one of reactor's. Choose another file")
        return 0

    def _migrate(self, version: int, migrations: Sequence[str]) -> None:
        """Bring the file to the newest format, all steps or none."""
        writer = self.writer
        writer.execute("BEGIN IMMEDIATE")
        try:
            for script in migrations[version:]:
                # A script is many statements; apsw runs the next one when the one before is exhausted.
                writer.execute(script).fetchall()
            writer.execute(f"PRAGMA application_id = {APPLICATION_ID}").fetchall()
            writer.execute(f"PRAGMA user_version = {len(migrations)}").fetchall()
            if version == 0:
                writer.execute(
                    "INSERT INTO _reactor_meta (one, head_ts, instance_name, secret) VALUES (1, 0, ?, ?)",
                    (f"reactor-{secrets.token_hex(4)}", secrets.token_bytes(32)),
                )
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise

    def _check(self) -> None:
        """Look for damage where it costs the same however many documents there are: in the system tables, at the log's end."""
        writer = self.writer
        for name in ("_reactor_meta", "_reactor_tables", "_reactor_indexes"):
            found = writer.pragma("quick_check", name)
            if found != "ok":
                raise damaged(self.path, found)
        heads: list[Any] = writer.execute("SELECT head_ts, (SELECT max(ts) FROM _reactor_log) FROM _reactor_meta").fetchall()
        if len(heads) != 1 or (heads[0][1] or 0) > heads[0][0]:
            raise damaged(self.path, "the log goes on past its head")

    def _unlock(self) -> None:
        # The lock file stays: removing it would let two processes hold locks on two files of that name.
        if self._lock >= 0:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = -1


def _make_folder(path: Path) -> None:
    if path.is_dir():
        raise StoreReadOnly(f"{path}: a folder. Give the path of a file")
    missing = [folder for folder in path.parents if not os.path.lexists(folder)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite sees to it that the file survives a power failure; that its folders do is up to us.
        for folder in missing:
            above = os.open(folder.parent, os.O_RDONLY)
            try:
                os.fsync(above)
            finally:
                os.close(above)
    except OSError as error:
        raise _unusable(error, path.parent, "the folder cannot be made") from error


def _lock(path: Path) -> int:
    """Take the lock that keeps a second process out, and leave our process id in it."""
    name = path.with_name(path.name + "-lock")
    try:
        lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _unusable(error, name, "the file cannot be made") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).decode(errors="replace") or "unknown"
        os.close(lock)
        raise StoreLocked(f"{path}: in use by process {holder}. Stop that process, or choose another file") from error
    except OSError as error:
        os.close(lock)
        raise _unusable(error, name, "the file cannot be locked") from error
    return lock


def _look_at(path: Path) -> None:
    """Refuse a file that SQLite would do harm to."""
    if not path.exists():
        return
    if 0 < path.stat().st_size < SMALLEST_FILE_BYTES:
        raise damaged(path, "too small")
    # SQLite would leave files beside it that cannot be written to either, also when the permissions have been mended.
    if not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise StoreReadOnly(f"{path}: the file cannot be written to. Check its permissions")


def _unusable(error: OSError, path: Path, what: str) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"{path}: {what} ({error.strerror}). Free some space")
    return StoreReadOnly(f"{path}: {what} ({error.strerror}). Check the permissions, or choose another place on a local disk")
