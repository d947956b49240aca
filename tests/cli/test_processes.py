"""Commands as a shell starts them: other tests fork theirs from a process that has imported everything (``tests.support.preloaded``).

What a command does not need it does not import: that is most of the time that it takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import REACTOR
from tests.support.waiting import eventually

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


def test_each_command_runs_by_itself(app: Path) -> None:
    def shell(*arguments: str) -> str:
        done = subprocess.run([str(REACTOR), *arguments], cwd=app, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commands(name: str, notes: list[str]) -> None:
        assert shell("env", "set", "NAME", name) == "Set NAME\n"
        assert shell("env", "list") == f"NAME={name}\n"
        assert shell("keys", "create", name).startswith(f"{name}|")
        assert shell("keys", "list").endswith(f"UTC  {name}\n")
        shell("run", "notes:add", json.dumps({"text": name}))
        assert json.loads(shell("run", "notes:texts")) == notes

    commands("alone", ["alone"])
    for served, notes in (("dev", ["alone", "dev"]), ("start", ["alone", "dev", "start"])):
        with (app / "log").open("wb") as log:
            serving = subprocess.Popen([str(REACTOR), served, "--port", "0"], cwd=app, stdout=log, stderr=subprocess.STDOUT)
        try:
            address = app / ".reactor" / "reactor.db-server"
            eventually(address.exists, "the server", within_s=60)
            commands(served, notes)
        finally:
            serving.terminate()
            assert serving.wait(20) == 0, (app / "log").read_text()
