"""The official command line, unchanged, against a live server of one's own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support.server import Server

pytestmark = pytest.mark.sqlite_only("how the command speaks; what it does is tests/server/test_environment.py, over both stores")

NODE_MODULES = Path(__file__).with_name("node_modules")
Convex: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def convex(tmp_path: Path) -> Iterator[Convex]:
    """Runs the command in a project that names the server."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "package.json").write_text(json.dumps({"name": "project", "dependencies": {"convex": "*"}}))
    (project / "node_modules").symlink_to(NODE_MODULES)
    with Server(tmp_path) as server:
        key = (tmp_path / "test.db-admin-key").read_text().strip()
        environment = {**os.environ, "CONVEX_SELF_HOSTED_URL": server.url, "CONVEX_SELF_HOSTED_ADMIN_KEY": key, "NO_COLOR": "1"}
        command = ["node", str(NODE_MODULES / "convex" / "bin" / "main.js")]

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*command, *arguments], cwd=project, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
            )

        yield run


def test_it_sets_lists_reads_and_removes_environment_variables(convex: Convex) -> None:
    assert convex("env", "set", "GREETING", "hej").returncode == 0
    assert convex("env", "set", "OTHER", "1").returncode == 0
    assert convex("env", "list").stdout == "GREETING=hej\nOTHER=1\n"
    assert convex("env", "get", "GREETING").stdout == "hej\n"
    assert convex("env", "remove", "GREETING").returncode == 0
    assert convex("env", "list").stdout == "OTHER=1\n"
    missing = convex("env", "get", "GREETING")
    assert "not found" in missing.stderr
    refused = convex("env", "set", "1A", "x")
    assert refused.returncode != 0 and "1A" in refused.stderr
