"""The store's benchmark runs, and says what each operation costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "store.py"


def test_it_prints_what_commits_and_reads_cost_beside_their_bound(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--seconds", "0.2", "--documents", "200", "--folder", str(tmp_path)]
    head, *lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert head.split() == ["µs", "store", "bound", "ratio"]
    names = [re.split(r"\s{2,}", line)[0] for line in lines]
    commits = [f"commit, {group} in a group, synchronous={level}" for level in ("full", "normal") for group in (1, 16, 256)]
    assert names == [*commits, "point read", "read of 50 rows"]
    for line in lines:
        store, bound, ratio = map(float, line.split()[-3:])
        assert store > 0 and bound > 0 and abs(ratio - store / bound) < 0.1 * ratio + 0.1
    assert list(tmp_path.iterdir()) == []
