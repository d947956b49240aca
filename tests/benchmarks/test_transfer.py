"""The transfer benchmark in a short form. What it measures on a busy machine says nothing, and is not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.server import ROOT


def run(folder: Path, name: str, *options: str) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_transfer_loses_no_money(tmp_path: Path) -> None:
    run(tmp_path, "transfer.py", "--seconds", "0.2", "--accounts", "500", "--json", str(tmp_path / "figures.json"))
    rows = json.loads((tmp_path / "figures.json").read_text())
    assert {(row["server"], row["transport"]) for row in rows} == {
        ("does nothing", "http"),
        ("reactor, SQLite", "http"),
        ("reactor, SQLite", "websocket"),
    }
    assert all(row["per_second"] > 0 and row["failed"] == 0 for row in rows)
