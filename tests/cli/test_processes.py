"""What a command does not need it does not import: that is most of the time that it takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVING = {"reactor.server.app", "reactor.engine", "apsw", "starlette", "uvicorn", "websockets", "prometheus_client", "rich"}
BY_SETTINGS = {"asyncpg", "cryptography", "jwt", "obstore"}


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        pytest.param("settings environment calling keys", SERVING | BY_SETTINGS | {"httpx"}, id="what a running server answers"),
        pytest.param("settings starting", SERVING | BY_SETTINGS, id="the supervisor of a node"),
        pytest.param("database", {"reactor.server.app", "starlette", "uvicorn", "websockets"} | BY_SETTINGS, id="on the database itself"),
        pytest.param("serving", BY_SETTINGS, id="a server"),
    ],
)
def test_a_command_imports_what_it_needs(modules: str, without: set[str]) -> None:
    program = f"import sys; from reactor.cli import main, {', '.join(modules.split())}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not without & set(done.stdout.split())
