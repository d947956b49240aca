"""The ``reactor`` command in processes of their own that need not import it: forked from one that has, once for each worker of the tests.

Importing is most of what a short command costs, and half of a server's start. A forked process is a command's own in all else: arguments,
folder, environment, standard streams, session, signals, exit status. ``tests.cli.test_imports`` shows what a command imports by itself.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

__all__ = ["Command", "run_command"]

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    [f"reactor.cli.{name}" for name in ("main", "calling", "environment", "keys", "serving")] + ["reactor.stores.postgres", __name__]
)


class Command:
    """A command that runs, in a session of its own.

    Args:
        arguments: with the program's path as the first.
        out: what both standard output and standard error are appended to, unless ``err`` is given.

    Attributes:
        pid: of the process, which leads its session.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, out: Path, err: Path | None = None, input: Path | None = None) -> None:
        self._arguments = arguments
        for file in (out, err):
            if file is not None:
                file.touch()
        given = ([*arguments], folder, {**os.environ, "PYTHONUNBUFFERED": "1"}, out, err, input)
        self._process = _processes.Process(target=_command, args=given, daemon=True)
        self._process.start()
        self.pid = cast(int, self._process.pid)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within ``timeout`` seconds.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired([*self._arguments], timeout or 0.0)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()


def _command(arguments: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path | None, input: Path | None) -> None:
    """In the new process."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = arguments
    opened: list[BinaryIO] = [Path(input or os.devnull).open("rb"), out.open("ab")]
    opened.append(opened[1] if err is None else err.open("ab"))
    for number, file in enumerate(opened):
        os.dup2(file.fileno(), number)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")  # type: ignore[type-var]
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", write_through=True)  # type: ignore[type-var]
        for number in (1, 2)
    )
    from reactor.cli.main import main

    main()


def run_command(*arguments: str, cwd: Path, input: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """What ``subprocess.run`` would give.

    Args:
        arguments: with the program's path as the first.
        input: on standard input, which ends then.
    """
    with tempfile.TemporaryDirectory() as made:
        given, out, err = (Path(made) / name for name in ("in", "out", "err"))
        given.write_text(input, encoding="utf-8")
        command = Command(arguments, cwd, out, err, given)
        try:
            status = command.wait(timeout)
        finally:
            command.kill()
        return subprocess.CompletedProcess([*arguments], status, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))
