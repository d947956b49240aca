"""``reactor start``. Of its two processes only the node imports a server: see ``reactor.server.supervisor``."""

from __future__ import annotations

import sys

from reactor.cli.loop import run_loop
from reactor.errors import ReactorError
from reactor.server.listening import bind_all
from reactor.server.logs import Logs
from reactor.server.settings import Settings, is_postgres
from reactor.server.supervisor import supervise, supervised

__all__ = ["start"]


def start(settings: Settings) -> None:
    """Serve in production until asked to stop, under a supervisor.

    Raises:
        ReactorError: it cannot be started.
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
    sys.exit(supervise(bind_all(settings), Logs(sys.stdout, machine=True), settings.workers))
