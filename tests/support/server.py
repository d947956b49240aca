"""A real server in a process of its own: started, killed, and started again on the same port and database."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import httpx

from tests.support.ports import reserve_port
from tests.support.preloaded import Command
from tests.support.waiting import eventually

__all__ = ["CLIENTS_APP", "ROOT", "Server"]

ROOT = Path(__file__).resolve().parents[2]
CLIENTS_APP = ROOT / "tests" / "clients" / "app"
REACTOR = Path(sys.executable).with_name("reactor")


class Server:
    """One server over its life of several processes.

    Args:
        data: a folder for the database and the log of what the server prints.
        app: the folder with schema.py and app_functions/.
        command: "dev", or "start" for production.
        db: the database; None: a new one.
        options: further command line options.
    """

    #: Those that serve a database of the store that the tests run over now.
    of_store: ClassVar[set[Server]] = set()

    def __init__(
        self, data: Path, *, app: Path = CLIENTS_APP, command: str = "dev", db: str | None = None, options: tuple[str, ...] = ()
    ) -> None:
        self.app = app
        self.port = reserve_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data / f"server-{self.port}.log"
        self.db = db or new_database(data)
        self.arguments = [str(REACTOR), command, "--port", str(self.port), "--db", self.db, *options]
        self.process: Command | None = None

    def __enter__(self) -> Server:
        self.start()
        self.of_store.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.of_store.discard(self)
        self.stop()
        if error is not None:
            print(f"--- the server said:\n{self.output()}")

    def start(self) -> None:
        """Start a process and return when it answers."""
        self.process = Command(self.arguments, self.app, self.log)
        eventually(self.answers, f"{' '.join(self.arguments)} to answer", within_s=60)

    def answers(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        assert code is None, f"the server ended with {code}:\n{self.output()}"
        try:
            # To verify nothing loads no certificates, which would take 27 ms of the processor that the server starts on.
            return httpx.get(f"{self.url}/version", trust_env=False, verify=False, timeout=5).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """kill -9: nothing of the process gets to run again."""
        self.end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it: it keeps its sockets and answers nothing."""
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        self.end(signal.SIGTERM)

    def send(self, sign: signal.Signals) -> None:
        assert self.process is not None, "the server does not run"
        os.killpg(self.process.pid, sign)

    def end(self, sign: signal.Signals) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it has ended by now
            self.send(sign)
            self.resume()  # what was paused could not obey
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"the server did not end on {sign.name}:\n{self.output()}") from None
        finally:
            self.process = None

    def output(self) -> str:
        return self.log.read_text(errors="replace")[-10_000:]


def new_database(folder: Path) -> str:
    """The address of a new database. The fixture ``databases`` decides what it is."""
    return str(folder / "test.db")
