"""The benchmark of meetings in a short form, and how it finds the largest size that holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.benchmarks import run_benchmark
from tests.support.server import ROOT


def test_every_mutation_is_acknowledged_and_shown_to_every_watcher(tmp_path: Path) -> None:
    (row,) = run_benchmark("meetings", tmp_path, "--meetings", "2", "--seconds", "1")["rows"]
    assert row["offered"] == row["acknowledged"] > 20
    assert (row["failed"], row["missing"], row["wrong"]) == (0, 0, 0)
    assert row["query_p95_ms"] > 0 and row["delivery_p95_ms"] > 0


@pytest.mark.parametrize("limit", [0, 24, 25, 60, 99, 100, 730, 1000, 5000])
def test_the_largest_size_that_holds_is_found_to_within_a_tenth(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from meetings import SMALLEST, largest

    measured: list[int] = []

    def holds(size: int) -> bool:
        measured.append(size)
        return size <= limit

    found = largest(holds, at_most=2000)
    true = min(limit, 2000)
    assert true * 0.9 - 1 <= found <= true if limit >= SMALLEST else found == 0
    assert max(measured) <= 2000
    assert len(measured) == len(set(measured)) < 15
