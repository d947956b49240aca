"""The transfer benchmark in a short form."""

from __future__ import annotations

from pathlib import Path

from tests.support.benchmarks import run_benchmark


def test_transfer_loses_no_money(tmp_path: Path) -> None:
    rows = run_benchmark("transfer", tmp_path, "--seconds", "0.2", "--accounts", "500")["rows"]
    assert {(row["server"], row["transport"]) for row in rows} == {
        ("does nothing", "http"),
        ("reactor, SQLite", "http"),
        ("reactor, SQLite", "websocket"),
    }
    assert all(row["per_second"] > 0 and row["failed"] == 0 for row in rows)
