"""The fan-out benchmark in a short form. It fails by itself when a subscriber is not shown the last write."""

from __future__ import annotations

from pathlib import Path

from tests.support.benchmarks import run_benchmark


def test_every_subscriber_of_each_server_is_shown_the_last_write(tmp_path: Path) -> None:
    rows = run_benchmark("fanout", tmp_path, "--subscribers", "20", "--seconds", "0.4")["rows"]
    assert [(row["server"], row["queries"]) for row in rows] == [("reactor", 1), ("reactor", 10), ("broadcast", 1), ("socket.io", 1)]
    assert all(row["deliveries_per_second"] > 0 and row["p99_ms"] > 0 for row in rows)
    sizes = [row["size_bytes"] for row in rows]
    assert max(sizes) - min(sizes) < 20, "all deliver texts of about the same size"
