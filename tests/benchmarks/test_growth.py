"""The growth benchmark in a short form."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from tests.support.benchmarks import run_benchmark


def test_everything_that_grows_has_a_curve(tmp_path: Path) -> None:
    plot = tmp_path / "growth.svg"
    figures = run_benchmark("growth", tmp_path, "--quick", "--seconds", "0.3", "--plot", str(plot))
    seen = {(row["grown"], row["operation"]) for row in figures["rows"]}
    grown = ("live queries", "connections", "documents", "megabytes")
    assert seen == {(name, operation) for name in grown for operation in ("mutation", "query")}
    assert all(row["calls"] > 0 and row["p50_ms"] > 0 for row in figures["rows"])
    assert all(row["start_s"] > 0 for row in figures["rows"] if row["grown"] in ("documents", "megabytes"))
    assert len(ElementTree.parse(plot).findall("{*}polyline")) == len(seen)
