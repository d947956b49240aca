"""Runs a benchmark in a short form and keeps its figures as an artefact. Figures of a busy machine say nothing: no test compares them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.server import ROOT

__all__ = ["keep_figures", "run_benchmark"]


def run_benchmark(name: str, folder: Path, *options: str, within_s: float = 180.0) -> dict[str, Any]:
    """What ``benchmarks/NAME.py`` wrote with ``--json``.

    The file stays in the folder that the variable REACTOR_BENCHMARKS names, by default `.benchmarks` of the repository.

    Args:
        folder: that it runs in; its databases go there.
        options: that make it short.
    """
    figures = figures_file(name)
    figures.parent.mkdir(parents=True, exist_ok=True)
    figures.unlink(missing_ok=True)
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *options, "--json", str(figures)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=within_s)
    assert done.returncode == 0, done.stdout + done.stderr
    made: dict[str, Any] = json.loads(figures.read_text())
    assert made["benchmark"] == name
    assert made["machine"]["cores"] > 0
    return made


def keep_figures(name: str, figures: dict[str, Any]) -> None:
    """Keep what tests measured beside what benchmarks do."""
    path = figures_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    path.write_text(json.dumps({"benchmark": name, "machine": machine, "figures": figures}, indent=1))


def figures_file(name: str) -> Path:
    return Path(os.environ.get("REACTOR_BENCHMARKS") or ROOT / ".benchmarks").resolve() / f"{name}.json"
