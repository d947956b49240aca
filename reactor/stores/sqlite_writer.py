"""Writing on SQLite: one transaction after another, on one connection.

**Statements run on the event loop.** They do not wait for the disk (8 µs for a document and its log row), and each of them
gives Python's lock away: a thread that runs some hundred of them beside a busy event loop waits up to 5 ms for the lock every
time. A group of 64 commits took 1.2 s that way; it takes 2 ms this way. Statements that are long in themselves (building an
index, trimming) are few, and do run in a thread.

**COMMIT waits for the disk: on the loop where that answers at once, in a thread where it does not.** A thread costs more than
the wait for a good disk: some 400 µs until it has run, has the lock again and has woken the loop. It is the disk that decides:
see ``ON_LOOP_S`` and ``BLOCKED``. One that stalls holds the loop up once, as it does when a page is read from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import apsw

from reactor.engine.store import DURATION_S
from reactor.histogram import Histogram
from reactor.stores.sqlite_file import DatabaseFile, store_error
from reactor.stores.turns import Turn

__all__ = ["Writer"]

T = TypeVar("T")

#: Statements of one transaction run this long between two turns of the event loop, each of which may take twice that under load.
BREATH_S = 0.01

#: COMMIT waits on the event loop as long as it takes no longer than this, and so much longer for each mutation of the group: with a
#: large one much of the load waits for it, with a small one the loop may have a thousand clients to tell of the one before.
ON_LOOP_S = 0.001
ON_LOOP_MUTATION_S = 0.0001
#: The part of the time for which slower ones may hold the loop up, to find out whether the disk has become fast.
BLOCKED = 0.01

#: How long to wait for another program's transaction; ours never meet.
BUSY_TIMEOUT_S = 5.0
BUSY_RETRY_S = 0.02


class Writer:
    """Runs transactions on the file's writing connection. The caller has the turn.

    Each either commits, or leaves nothing behind and raises a StoreError.

    Attributes:
        wal_pages: in the write-ahead log after the last commit.
        groups: how long transactions of ``run`` took, from their beginning to the return to the loop; seconds.
        commits: how long COMMIT took, with the wait for the disk; seconds.
    """

    def __init__(self, file: DatabaseFile) -> None:
        self._file = file
        self.connection = file.writer
        # One thread for the transaction whose turn it is, one for a checkpoint beside it.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="reactor-sqlite")
        self.wal_pages = 0
        self.groups = Histogram(DURATION_S)
        self.commits = Histogram(DURATION_S)
        self._in_threads_until = 0.0  # monotonic
        self.connection.set_wal_hook(self._committed)

    async def run(self, turn: Turn, work: Callable[[apsw.Connection], Iterator[None]], *, mutations: int = 0, synced: bool = True) -> None:
        """Run ``work`` on the event loop, in pieces between which it yields, and commit.

        Args:
            mutations: how many are in it.
            synced: whether to wait for the disk. Without it a power failure may undo the transaction, until the next
                synced one returns; never a part of it, nor one before it.
        """
        connection = self.connection
        synced = synced or self._file.synchronous != "full"
        try:
            if not synced:
                connection.execute("PRAGMA synchronous = NORMAL")
            started = time.perf_counter()
            await self._begin(turn)
            until = time.perf_counter() + BREATH_S
            for _ in work(connection):
                if time.perf_counter() > until:
                    await turn.breathe()
                    until = time.perf_counter() + BREATH_S
            if time.monotonic() < self._in_threads_until:
                await self.in_thread(turn, self._commit)
            else:
                self._commit_on_loop(ON_LOOP_S + mutations * ON_LOOP_MUTATION_S)
            self.groups.add(time.perf_counter() - started)
        except BaseException as error:
            self._abandon(error)
            raise
        finally:
            if not synced:
                connection.execute("PRAGMA synchronous = FULL")

    async def run_in_thread(self, turn: Turn, work: Callable[[apsw.Connection], T]) -> T:
        """Run ``work``, few statements that may take long, and commit, in a thread. What it returns."""
        await self._begin(turn)

        def transaction() -> T:
            result = work(self.connection)
            self._commit()
            return result

        try:
            return await self.in_thread(turn, transaction)
        except BaseException as error:
            self._abandon(error)
            raise

    async def in_thread(self, turn: Turn, job: Callable[[], T]) -> T:
        return await turn.wait(self.submit(job))

    def submit(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``job`` in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._threads, job)

    def close(self) -> None:
        """End the threads, which must have nothing to do."""
        self._threads.shutdown()

    async def _begin(self, turn: Turn) -> None:
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                return
            except apsw.BusyError as error:
                if time.monotonic() > deadline:
                    raise store_error(error, self._file.path) from error
            except apsw.Error as error:
                raise store_error(error, self._file.path) from error
            await turn.wait(asyncio.ensure_future(asyncio.sleep(BUSY_RETRY_S)))

    def _commit_on_loop(self, within_s: float) -> None:
        """The next ones run in threads if the disk does not answer in time."""
        started = time.monotonic()
        try:
            self._commit()
        finally:
            ended = time.monotonic()
            if ended - started > within_s:
                self._in_threads_until = ended + (ended - started) / BLOCKED

    def _commit(self) -> None:
        connection = self.connection
        started = time.perf_counter()
        try:
            connection.execute("COMMIT")
            self.commits.add(time.perf_counter() - started)
        except apsw.IOError:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            # The WAL may hold the whole transaction, its commit mark included, which only a restart would find and take for
            # good. Writing over it makes that impossible. Where that fails too, the next transaction that succeeds does it.
            with contextlib.suppress(apsw.Error):
                connection.execute("UPDATE _reactor_meta SET io_failures = io_failures + 1")
            raise

    def _abandon(self, error: BaseException) -> None:
        """Undo the transaction; an error of SQLite becomes one of the store's."""
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            if isinstance(error, apsw.Error):
                raise error
        except apsw.Error as failure:
            raise store_error(failure, self._file.path) from error

    def _committed(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self.wal_pages = pages
        return apsw.SQLITE_OK
