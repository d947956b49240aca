"""The transfer benchmark in a short form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.benchmarks import run_benchmark
from tests.support.server import ROOT


def test_transfer_measures_each_server_and_finds_its_money_kept(tmp_path: Path) -> None:
    made = run_benchmark(
        "transfer", tmp_path, "--quick", "--seconds", "0.2", "--accounts", "500", "--plot", str(tmp_path / "plot.svg"), within_s=400
    )
    measured = {
        (row["server"], row["transport"], row["generator"], row["clients"], row["zipf"])
        for row in made["rows"]
        if row["function"] == "accounts:transfer"
    }
    banks = {("reactor, SQLite", "http"), ("reactor, SQLite", "websocket"), ("Node, SQLite", "http"), ("Node, Postgres", "http")}
    loads = {(1, 0.0), (64, 0.0), (64, 1.5)}
    generators = ("Node", "lean")
    nodes = {("reactor, Postgres", "http"), ("reactor, Postgres", "websocket")}
    nodes |= {(f"{name}, 2 nodes", transport) for name, transport in nodes}
    assert measured == {(*bank, generator, *load) for bank in banks for generator in generators for load in loads} | {
        (*node, "lean", *load) for node in nodes for load in loads
    } | {("does nothing", "http", generator, clients, 0.0) for generator in generators for clients in (1, 64)}
    for row in made["rows"]:
        assert row["failed"] == 0, row
        assert row["per_second"] > 0 and row["server_cpu_us"] >= 0 and row["client_cpu_us"] > 0, row
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"], row
    assert made["machine"]["Node, SQLite"].items() >= {"journal_mode": "wal", "synchronous": 2}.items()
    assert made["machine"]["Node, Postgres"].items() >= {"fsync": "on", "synchronous_commit": "on"}.items()
    assert len({target["name"] for target in made["targets"]}) == 29
    assert [row["server"] for row in made["rows"] if row["function"] == "accounts:balance"] == ["reactor, SQLite"]
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.mark.usefixtures("importable")
def test_figures_of_a_server_that_made_money_do_not_count(tmp_path: Path) -> None:
    from transfer import Benchmark, fill, node_sqlite

    with node_sqlite(tmp_path) as server:
        fill(server, 10)
        with pytest.raises(SystemExit, match=r"Node, SQLite: there are 20,000,000 after 10,000,000 were paid in"):
            Benchmark(seconds=0.1, accounts=10).measure_bank("Node, SQLite", server, [])


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("generator", ["Node", "lean"])
def test_a_refused_transfer_is_counted_as_failed(tmp_path: Path, generator: Any) -> None:
    from load import Load, run
    from transfer import fill, node_sqlite

    with node_sqlite(tmp_path) as server:
        fill(server, 10)
        for accounts, some_fail in ((10, False), (20, True)):
            load = Load(server.port, generator, "http", 2, accounts, skew=0, seconds=0.2, warmup_s=0.1)
            result, _ = run(load, server.cpu_seconds)
            assert (result.failed > 0) == some_fail
