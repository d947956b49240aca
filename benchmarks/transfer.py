"""Transfers between accounts: what a durable mutation costs, beside a server that does nothing.

    .venv/bin/python benchmarks/transfer.py [--seconds 5] [--accounts 100000] [--json FILE]

Each transfer finds two accounts by an index, checks funds, and patches both. The server is `reactor start` as it comes, with
synchronous=full; the load comes from a process of its own with one request at a time on each connection. The bound answers
the same requests on the same stack with a fixed text. Balances are summed at the end: a benchmark that loses money does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from load import Load, Result, Transport, free_port, run

HERE = Path(__file__).resolve().parent
BALANCE = 1_000_000
FILLED_AT_ONCE = 4000
CONNECTIONS = (4, 64)
SKEWS = (0.0, 1.5)

NOTHING = """
import sys
import uvicorn

ANSWER = b'{"status":"success","value":null}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]

async def app(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})

uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off", loop="uvloop", http="httptools")
"""


class Server:
    """A server under measurement.

    Args:
        process: whose CPU is counted.
    """

    def __init__(self, port: int, process: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.process = process

    def cpu_seconds(self) -> float:
        """That its process has used so far."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(command: list[str], folder: Path, port: int, *, supervised: bool) -> Iterator[Server]:
    """A server in a process of its own, from when it answers."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:  # noqa: S603 - our own
        try:
            until_it_answers(f"http://127.0.0.1:{port}/version", process)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split() if supervised else []
            yield Server(port, int(children[0]) if children else process.pid)
        finally:
            process.terminate()


def until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(url, trust_env=False)
            return
        except httpx.TransportError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def call(server: Server, kind: str, path: str, **args: Any) -> Any:
    """The value of one call."""
    body = {"path": path, "args": args, "format": "json"}
    answer = httpx.post(f"{server.url}/api/{kind}", json=body, trust_env=False, timeout=60).json()
    if answer["status"] != "success":
        raise RuntimeError(answer["errorMessage"])
    return answer["value"]


def fill(server: Server, accounts: int) -> None:
    """Open the accounts."""
    for start in range(0, accounts, FILLED_AT_ONCE):
        call(server, "mutation", "accounts:fill", start=start, end=min(start + FILLED_AT_ONCE, accounts), balance=BALANCE)


def total(server: Server) -> float:
    """All money there is."""
    money, cursor, done = 0.0, None, False
    while not done:
        page, cursor, done = call(server, "query", "accounts:total", paginationOpts={"numItems": 5000, "cursor": cursor})
        money += page
    return money


def measure(server: Server, name: str, transport: Transport, seconds: float, accounts: int, rows: list[dict[str, Any]]) -> None:
    for connections in CONNECTIONS:
        for skew in SKEWS:
            load = Load(server.port, transport, connections, accounts, skew, seconds)
            result, cpu_us = run(load, server.cpu_seconds)
            rows.append(
                {"server": name, "transport": transport, "connections": connections, "zipf": skew, "cpu_us": cpu_us, **asdict(result)}
            )
            show(name, transport, connections, skew, result, cpu_us)


def show(name: str, transport: str, connections: int, skew: float, result: Result, cpu_us: float) -> None:
    failed = f"  {result.failed} FAILED" if result.failed else ""
    print(
        f"{name:<16}{transport:<11}{connections:>7}{skew:>6}{result.per_second:>10,.0f}{cpu_us:>9.0f}"
        f"{result.p50_ms:>9.2f}{result.p95_ms:>9.2f}{result.p99_ms:>9.2f}{failed}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'server':<16}{'transport':<11}{'clients':>7}{'zipf':>6}{'per s':>10}{'CPU µs':>9}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}")
    port = free_port()
    with serving([sys.executable, "-c", NOTHING, str(port)], HERE, port, supervised=False) as server:
        measure(server, "does nothing", "http", options.seconds, options.accounts, rows)
    reactor = Path(sys.executable).with_name("reactor")
    # In the current folder and not in /tmp, which may be memory: a commit has to meet a disk.
    with TemporaryDirectory(prefix="transfer-", dir=".") as folder:
        port = free_port()
        command = [str(reactor), "start", "--port", str(port), "--db", str(Path(folder).resolve() / "transfer.db")]
        with serving(command, HERE / "transfer_app", port, supervised=True) as server:
            fill(server, options.accounts)
            transports: tuple[Transport, ...] = ("http", "websocket")
            for transport in transports:
                measure(server, "reactor, SQLite", transport, options.seconds, options.accounts, rows)
            kept = total(server)
    if kept != options.accounts * BALANCE:
        raise SystemExit(f"There are {kept} after {options.accounts * BALANCE} were paid in: the figures above do not count.")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
