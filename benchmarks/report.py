"""What the benchmarks share: servers under measurement, and the table, files and targets of what was measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import httpx
import psutil

__all__ = ["Column", "Report", "Server", "Target", "call", "machine", "options_of", "reactor_server", "reserve_port", "serving"]

REACTOR = Path(sys.executable).with_name("reactor")
STARTS_WITHIN_S = 30


class Server:
    """A server under measurement. Pickled, it is the same server in another process.

    Args:
        processes: what they and their descendants use is the server's.
    """

    def __init__(self, port: int, *processes: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.processes = processes
        self._roots = [psutil.Process(process) for process in processes]

    def __reduce__(self) -> tuple[type[Server], tuple[int, ...]]:
        return Server, (self.port, *self.processes)

    def cpu_seconds(self) -> float:
        """That it has used so far, in user and in system mode."""
        # A descendant that has ended is counted by the parent that waited for it.
        return self._sum(lambda process: sum(process.cpu_times()[:4]))

    def rss_bytes(self) -> int:
        """Memory that is resident now."""
        return int(self._sum(lambda process: process.memory_info().rss))

    def _sum(self, figure: Callable[[psutil.Process], float]) -> float:
        total = 0.0
        for root in self._roots:
            total += figure(root)
            for process in root.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    total += figure(process)
        return total


@contextmanager
def serving(
    command: Sequence[str], folder: Path, port: int, *, also: Sequence[int] = (), cores: Collection[int] | None = None, **environment: str
) -> Iterator[Server]:
    """A server in a process of its own, from when it answers HTTP until it has ended.

    Args:
        folder: that the command runs in.
        also: further processes whose CPU and memory are the server's, such as its database's.
        cores: that it may use, if not all.
        environment: further variables.
    """
    with _only_on(cores):
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, env=os.environ | environment)  # noqa: S603 - our own
    with process:
        try:
            _until_it_answers(f"http://127.0.0.1:{port}/version", process)
            yield Server(port, process.pid, *also)
        finally:
            process.terminate()


@contextmanager
def reactor_server(
    app: Path, db: Path | str, *options: str, also: Sequence[int] = (), cores: Collection[int] | None = None
) -> Iterator[Server]:
    """`reactor start` of an app.

    Args:
        app: the folder with schema.py and app_functions/.
        db: a file, or the address of a database on a Postgres server.
        options: further ones of the command line.
        also: further processes whose CPU and memory are the server's, such as its database's.
        cores: that it may use, if not all.
    """
    port = reserve_port()
    db = db if isinstance(db, str) else str(db.resolve())
    with serving([str(REACTOR), "start", "--port", str(port), "--db", db, *options], app, port, also=also, cores=cores) as server:
        yield server


@contextmanager
def _only_on(cores: Collection[int] | None) -> Iterator[None]:
    """Processes that are started inside use no other cores."""
    if cores is None or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            httpx.get(url, trust_env=False)
            return
        except httpx.TransportError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


_reserved: list[socket.socket] = []


def reserve_port() -> int:
    """A port that only who is told of it gets until this process ends; see tests/support/ports.py."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _reserved.append(held)
    return int(held.getsockname()[1])


def call(server: Server, kind: str, path: str, **args: Any) -> Any:
    """The value of one call over HTTP.

    Args:
        kind: query, mutation or action.

    Raises:
        RuntimeError: when the call fails.
    """
    body = {"path": path, "args": args, "format": "json"}
    answer = httpx.post(f"{server.url}/api/{kind}", json=body, trust_env=False, timeout=60).json()
    if answer["status"] != "success":
        raise RuntimeError(answer["errorMessage"])
    return answer["value"]


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607
    return {
        "cores": len(psutil.Process().cpu_affinity() or ()) if sys.platform == "linux" else os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),  # of the minute before: above 0 somebody else takes part
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "node": node,
        "sqlite": apsw.sqlite_lib_version(),
        "reactor": version("reactor"),
        "coroutine_step_us": round(_coroutine_step_us(), 3),
        "sync_ms": round(_sync_ms(), 2),
    }


def _coroutine_step_us() -> float:
    """What the interpreter takes to go into a coroutine and out again, at best: builds of Python and machines differ by more than two, and
    all CPU of a server in Python with them.
    """

    class Turn:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def turns() -> None:
        while True:
            await Turn()

    endless = turns()
    number = 20_000
    took_s = min(timeit.repeat("send(None)", globals={"send": endless.send}, number=number, repeat=5))
    endless.close()
    return took_s / number * 1e6


def _sync_ms() -> float:
    """What the disk takes to have a page, where the databases are made."""
    took_s = []
    with tempfile.TemporaryFile(dir=".") as file:
        for _ in range(20):
            file.write(bytes(4096))
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            took_s.append(time.perf_counter() - started)
    return statistics.median(took_s) * 1000


class Column(NamedTuple):
    """Of the printed table.

    Attributes:
        key: of the figure in a row.
        format: with the width, such as ``<16`` or ``>10,.0f``.
    """

    title: str
    key: str
    format: str


@dataclass(frozen=True)
class Target:
    """A figure that is to reach a bound.

    Attributes:
        want: such as ``>= 0.8``.
    """

    name: str
    figure: float
    want: str
    reached: bool


class Report:
    """The figures of one benchmark. A row is printed as soon as it is there; targets follow.

    Args:
        benchmark: its name.
        columns: what is printed of a row. A file gets all of it.
    """

    def __init__(self, benchmark: str, *columns: Column) -> None:
        self.benchmark = benchmark
        self.columns = columns
        self.rows: list[dict[str, Any]] = []
        self.targets: list[Target] = []
        self.machine = machine()  # a benchmark may add what else its figures depend on

    def head(self) -> None:
        """Print the machine and the titles of the columns."""
        print(", ".join(f"{name} {value}" for name, value in self.machine.items()))
        print("".join(f"{column.title:{_width(column)}}" for column in self.columns), flush=True)

    def row(self, **figures: Any) -> Mapping[str, Any]:
        """Add a row, and print it. A figure that it lacks is shown as a dash."""
        if not self.rows:
            self.head()
        self.rows.append(figures)
        print("".join(_cell(column, figures.get(column.key)) for column in self.columns), flush=True)
        return figures

    def target(self, name: str, figure: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        """Say whether a figure reaches what is wanted of it. Give one bound."""
        if at_least is not None:
            want, reached = f">= {at_least:g}", figure >= at_least
        else:
            assert at_most is not None
            want, reached = f"<= {at_most:g}", figure <= at_most
        if not self.targets:
            print(f"\n{'target':<64}{'figure':>10}{'wanted':>12}")
        self.targets.append(Target(name, figure, want, reached))
        print(f"{name:<64}{_short(figure):>10}{want:>12}  {'reached' if reached else 'MISSED'}", flush=True)

    def write_json(self, path: Path) -> None:
        """All rows and targets, with the facts of the machine."""
        made = {
            "benchmark": self.benchmark,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": self.machine,
            "rows": self.rows,
            "targets": [asdict(target) for target in self.targets],
        }
        path.write_text(json.dumps(made, indent=1) + "\n")

    def write_plot(self, path: Path, title: str, bars: Sequence[tuple[str, float]]) -> None:
        """An SVG of horizontal bars.

        Args:
            title: with the unit.
            bars: each with its label.
        """
        most = max(value for _, value in bars)
        line, label, full = 22, 320, 400  # px
        lines = [f'<text x="8" y="{line - 6}" font-weight="bold">{escape(title)}</text>']
        for number, (name, value) in enumerate(bars, 1):
            y, width = number * line, value / most * full
            lines.append(f'<text x="{label}" y="{y + line - 6}" text-anchor="end">{escape(name)}</text>')
            lines.append(f'<rect x="{label + 8}" y="{y + 4}" width="{width:.1f}" height="{line - 8}" fill="#4a7ebb"/>')
            lines.append(f'<text x="{label + 14 + width:.1f}" y="{y + line - 6}">{_short(value)}</text>')
        size = f'width="{label + full + 90}" height="{(len(bars) + 1) * line + 8}"'
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">\n'
            '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(lines) + "\n</svg>\n"
        )


def _width(column: Column) -> str:
    return column.format.partition(",")[0].partition(".")[0].rstrip("bcdeEfFgGnosxX%")


def _cell(column: Column, value: Any) -> str:
    return f"{'—':{_width(column)}}" if value is None else f"{value:{column.format}}"


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def options_of(description: str | None, *, seconds: float) -> argparse.ArgumentParser:
    """The options that every benchmark takes: ``--seconds``, ``--json`` and ``--plot``.

    Args:
        description: the docstring of its module.
        seconds: the default.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=seconds, help=f"of each measurement (default: {seconds:g})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="for the figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="for an SVG of them")
    return parser
