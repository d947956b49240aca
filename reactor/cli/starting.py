"""``reactor start``. Of its two processes only the node imports a server: see ``reactor.server.supervisor``."""

from __future__ import annotations

import socket
import sys
import time

from reactor.cli.loop import run_loop
from reactor.errors import ReactorError
from reactor.server.listening import bind_all
from reactor.server.logs import Logs
from reactor.server.settings import Settings, is_postgres
from reactor.server.supervisor import supervise, supervised

__all__ = ["start"]

#: How long a port that is in use is waited for. A supervisor that is killed leaves a node that has it until it notices, or has ended.
PATIENCE_S = 5.0
AGAIN_S = 0.05


def start(settings: Settings) -> None:
    """Serve in production until asked to stop, under a supervisor.

    Raises:
        ReactorError: it cannot be started. A port that is in use is waited for a little.
    """
    node = supervised()
    if node is not None:
        from reactor.cli.serving import serve_node

        run_loop(serve_node(node, settings))
        return
    if settings.workers > 1 and settings.postgres is None:
        raise ReactorError(
            f"A SQLite file is for one process, so it cannot have {settings.workers} workers. Use Postgres: --db postgres://…",
            code="BadSetting",
        )
    if settings.read_db is not None and (settings.postgres is None or not is_postgres(settings.read_db)):
        raise ReactorError("Reads can go to a standby of a Postgres database: --db postgres://… --read-db postgres://…", code="BadSetting")
    logs = Logs(sys.stdout, machine=True)
    sys.exit(supervise(_bind(settings, logs), logs, settings.workers))


def _bind(settings: Settings, logs: Logs) -> list[socket.socket]:
    deadline = time.monotonic() + PATIENCE_S
    told = False
    while True:
        try:
            return bind_all(settings)
        except ReactorError as error:
            if error.code != "PortInUse" or time.monotonic() > deadline:
                raise
            if not told:
                logs.say(f"{error.message} It is waited for until {PATIENCE_S:g} s have passed", "warning")
                told = True
        time.sleep(AGAIN_S)
