"""``kill -9`` in the middle of commits and checkpoints: what was acknowledged is there, and groups are whole or not at all."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from reactor.engine.store import LogEntry, RequestKey, Ts
from reactor.stores.sqlite import SqliteStore
from tests.stores.library import Book, catalog_of, titles

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("what is SQLite's own")]


def write_until_killed(path: Path, groups: int) -> list[int]:
    """Start a writer, kill it after it has acknowledged so many groups. What it acknowledged."""
    command = [sys.executable, "-m", "tests.stores.crashing", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(groups)]
        writer.kill()
        # What it said between the last line read and its death was acknowledged too.
        acknowledged += [int(line) for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    return acknowledged


async def test_acknowledged_commits_survive_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "reactor.db"
    books = catalog_of(Book).tables["books"]
    acknowledged: list[int] = []
    rng = random.Random(7)
    for _ in range(3):
        acknowledged += write_until_killed(path, rng.randrange(20, 120))
        store = SqliteStore.open(path)
        snapshot = store.snapshot()
        entries: list[LogEntry] = []
        while batch := await store.log_after(entries[-1].ts if entries else Ts(0)):
            entries += batch
        logged = {entry.ts for entry in entries}
        assert set(acknowledged) <= logged
        assert snapshot.ts == max(logged)
        assert max(logged) - max(acknowledged) <= 20  # at most the one group that was not answered
        # Both commits of a group, or neither; rows, indexes, requests and log agree.
        ones, twos = await titles(snapshot, books, "by_shelf", "one"), await titles(snapshot, books, "by_shelf", "two")
        assert sorted(ones) == sorted(twos)
        assert {int(number) for number in twos} == {ts for ts in logged if await snapshot.find_request(RequestKey("s", ts))}
        now: dict[str, str] = {}
        for entry in entries:
            for write in entry.writes:
                assert now.get(write.id) == write.before
                now[write.id] = write.after or ""
        for index in (books.by_id, *books.indexes):
            rows = await snapshot.scan(index, b"", b"\xff", reverse=False, limit=100_000)
            assert {row.id: row.json for row in rows} == now
        snapshot.release()
        await store.close()
