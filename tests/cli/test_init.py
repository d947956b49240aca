"""`reactor init`: an app that runs as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.checking import type_check
from tests.support.server import REACTOR


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*arguments], cwd=folder, capture_output=True, text=True, timeout=120)


def test_the_app_runs_passes_its_tests_and_type_checks(tmp_path: Path) -> None:
    made = command(tmp_path, str(REACTOR), "init", "todo")
    assert made.returncode == 0, made.stderr
    app = tmp_path / "todo"
    assert json.loads(command(app, str(REACTOR), "run", "tasks:add", '{"text": "Try it"}').stdout)
    assert command(app, str(REACTOR), "run", "tasks:count_open").stdout.strip() in ("1", "1.0")
    tests = command(app, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "2 passed" in tests.stdout, tests.stdout + tests.stderr
    type_check(app, "schema.py", "app_functions")


def test_nothing_that_exists_is_touched(tmp_path: Path) -> None:
    (tmp_path / "schema.py").write_text("mine")
    refused = command(tmp_path, str(REACTOR), "init", ".")
    assert refused.returncode == 1
    assert "schema.py exists" in refused.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["schema.py"]
    assert (tmp_path / "schema.py").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    refused = command(tmp_path, str(REACTOR), "init", "/proc/nowhere")
    assert refused.returncode == 1
    assert "/proc/nowhere" in refused.stderr
    assert "Traceback" not in refused.stderr
