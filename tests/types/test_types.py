"""The typing is part of the contract: what mypy and pyright accept and reject."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import ROOT

HERE = Path(__file__).parent
GOOD, MISTAKES = HERE / "good.py", HERE / "mistakes.py"


def complaints(checker: str) -> set[tuple[str, int]]:
    """File and line of each error that the checker has in the two files."""
    commands = {
        "mypy": ["-m", "mypy", "--strict", str(GOOD), str(MISTAKES)],
        "basedpyright": ["-m", "basedpyright", str(GOOD), str(MISTAKES)],
    }
    done = subprocess.run([sys.executable, *commands[checker]], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(r"(\w+\.py):(\d+)(?::\d+)?(?: -)?:? error", done.stdout)
    assert found or done.returncode == 0, done.stdout + done.stderr
    return {(name, int(line)) for name, line in found}


@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_correct_code_is_accepted_and_each_of_the_mistakes_rejected(checker: str) -> None:
    marked = {("mistakes.py", number) for number, line in enumerate(MISTAKES.read_text().splitlines(), 1) if "# error" in line}
    assert len(marked) == 12
    assert complaints(checker) == marked
