"""What a newcomer does first: clone, and `make dev`.

In the short form the clone's virtual environment finds the packages of the one that runs the tests, which CI has just made in the same way
from a fresh clone: only reactor itself is installed. The long form installs everything.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx

from tests.support.examples import LONG
from tests.support.ports import reserve_port
from tests.support.server import ROOT
from tests.support.waiting import eventually


def test_make_dev_in_a_fresh_clone_ends_in_a_running_server(tmp_path: Path) -> None:
    clone, log = tmp_path / "reactor", tmp_path / "make.log"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    if not LONG:
        subprocess.run([sys.executable, "-m", "venv", str(clone / ".venv")], check=True)
        (packages,) = clone.glob(".venv/lib/python*/site-packages")
        (packages / "those_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    port = reserve_port()
    url = f"http://127.0.0.1:{port}"
    # What the running make and virtual environment say of themselves is not a newcomer's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "VIRTUAL_ENV", "PYTEST"))}
    with log.open("wb") as output:
        make = subprocess.Popen(
            ["make", "dev", f"ARGS=--port {port}"],
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def page() -> str:
        assert make.poll() is None, log.read_text()
        try:
            return httpx.get(url, trust_env=False, verify=False).raise_for_status().text
        except httpx.HTTPError:
            return ""

    try:
        assert "<title>Reactor chat</title>" in eventually(page, "the page", within_s=600)
        assert httpx.get(f"{url}/main.js", trust_env=False, verify=False).is_success
        call = {"path": "users:join", "args": {"session": "newcomer" * 4, "name": "Newcomer"}, "format": "json"}
        answer = httpx.post(f"{url}/api/mutation", json=call, trust_env=False, verify=False).json()
        assert answer["status"] == "success", answer
    finally:
        os.killpg(make.pid, signal.SIGINT)
        make.wait(30)
    assert "Traceback" not in log.read_text()
