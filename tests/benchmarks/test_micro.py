"""The benchmark of small things in a short form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.benchmarks import run_benchmark


def test_every_operation_is_measured_and_compared_with_earlier_figures(tmp_path: Path) -> None:
    short = ("--seconds", "0.01", "--queries", "1000")
    first = run_benchmark("micro", tmp_path, *short)
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(first))
    rows = run_benchmark("micro", tmp_path, *short, "--compare", str(earlier))["rows"]
    before = {row["operation"]: row["ns"] for row in first["rows"]}
    assert [row["operation"] for row in rows] == list(before)
    assert all(row["to_earlier"] == pytest.approx(row["ns"] / before[row["operation"]]) for row in rows)
