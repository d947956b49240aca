"""Runs a script of the official JavaScript client against a server that the script may kill and start again."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.server import Server

__all__ = ["run_scenarios"]

COMMAND = "@@"  # a line that begins so is meant for us; all others are what the client logs


def run_scenarios(script: Path, server: Server, *, within_s: float = 60.0, **settings: str) -> dict[str, Any]:
    """Run every scenario in the script. Returns what they reported; raises when one failed, with all that was printed."""
    process = subprocess.Popen(
        ["node", str(script), server.url, json.dumps(settings)],
        cwd=script.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = threading.Timer(within_s, process.kill)
    deadline.start()
    commands: dict[str, Callable[[], None]] = {"kill": server.kill, "stop": server.stop, "start": server.start}
    printed: list[str] = []
    report: dict[str, Any] = {"passed": [], "failed": None}
    assert process.stdin and process.stdout
    try:
        for line in process.stdout:
            if not line.startswith(COMMAND):
                printed.append(line)
                continue
            message = json.loads(line.removeprefix(COMMAND))
            if "do" in message:
                commands[message["do"]]()
                process.stdin.write("done\n")
                process.stdin.flush()
            else:
                report = message
        code = process.wait()
    finally:
        deadline.cancel()
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    log = "".join(printed)[-10_000:]
    story = f"{report['failed']}\n--- it printed:\n{log}\n--- the server said:\n{server.output()}"
    assert code == 0, f"{script.name} ended with {code} after {report['passed']}\n{story}"
    assert report["passed"], f"{script.name} ran no scenario:\n{log}"
    return report
