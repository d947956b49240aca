"""Type checks of the apps that tests write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.server import ROOT

__all__ = ["type_check"]

#: mypy's, kept from one app to the next, whose libraries are the same; workers do not share it.
_CACHE = ROOT / ".mypy_cache" / f"apps-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"


def type_check(app: Path, *what: str) -> None:
    """Check files and folders of ``app`` as strictly as mypy does; an AssertionError with what it says unless they are right."""
    options = ("--strict", "--explicit-package-bases", "--cache-dir", str(_CACHE))
    done = subprocess.run([sys.executable, "-m", "mypy", *options, *what], cwd=app, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
