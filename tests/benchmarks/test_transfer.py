"""The transfer benchmark in a short form."""

from __future__ import annotations

from pathlib import Path

from tests.support.benchmarks import run_benchmark


def test_transfer_measures_each_server_and_finds_its_money_kept(tmp_path: Path) -> None:
    made = run_benchmark("transfer", tmp_path, "--seconds", "0.2", "--accounts", "500", "--plot", str(tmp_path / "plot.svg"))
    measured = {(row["server"], row["transport"], row["generator"], row["clients"], row["zipf"]) for row in made["rows"]}
    banks = {("reactor, SQLite", "http"), ("reactor, SQLite", "websocket"), ("Node, SQLite", "http"), ("Node, Postgres", "http")}
    loads = {(1, 0.0), (4, 0.0), (4, 1.5), (64, 0.0), (64, 1.5)}
    generators = ("Node", "lean")
    assert measured == {(*bank, generator, *load) for bank in banks for generator in generators for load in loads} | {
        ("does nothing", "http", generator, clients, 0.0) for generator in generators for clients in (1, 4, 64)
    }
    for row in made["rows"]:
        assert row["failed"] == 0, row
        assert row["per_second"] > 0 and row["server_cpu_us"] >= 0 and row["client_cpu_us"] > 0, row
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"], row
    assert made["machine"]["Node, SQLite"].items() >= {"journal_mode": "wal", "synchronous": 2}.items()
    assert made["machine"]["Node, Postgres"].items() >= {"fsync": "on", "synchronous_commit": "on"}.items()
    assert len({target["name"] for target in made["targets"]}) == 20
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
