"""Transfers between accounts: what a durable mutation costs, beside a server that does nothing.

    .venv/bin/python benchmarks/transfer.py [--seconds 5] [--accounts 100000] [--json FILE] [--plot FILE]

Each transfer finds two accounts by an index, checks funds, and patches both. The server is `reactor start` as it comes, with
synchronous=full; the load comes from a process of its own with one request at a time on each connection. The bound answers
the same requests on the same stack with a fixed text. Balances are summed at the end: a benchmark that loses money does not count.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from load import Load, Transport, run
from report import Column, Report, Server, call, free_port, options_of, reactor_server, serving

HERE = Path(__file__).resolve().parent
BALANCE = 1_000_000
FILLED_AT_ONCE = 4000
CONNECTIONS = (4, 64)
SKEWS = (0.0, 1.5)
COLUMNS = (
    Column("server", "server", "<16"),
    Column("transport", "transport", "<11"),
    Column("clients", "connections", ">7"),
    Column("zipf", "zipf", ">6"),
    Column("per s", "per_second", ">10,.0f"),
    Column("CPU µs", "cpu_us", ">9.0f"),
    Column("p50 ms", "p50_ms", ">9.2f"),
    Column("p95 ms", "p95_ms", ">9.2f"),
    Column("p99 ms", "p99_ms", ">9.2f"),
    Column("failed", "failed", ">8"),
)
LABEL = "{server}, {transport}, {connections} clients, Zipf {zipf}"

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


def measure(report: Report, server: Server, name: str, transport: Transport, seconds: float, accounts: int) -> None:
    for connections in CONNECTIONS:
        for skew in SKEWS:
            load = Load(server.port, transport, connections, accounts, skew, seconds)
            result, cpu_us = run(load, server.cpu_seconds)
            report.row(server=name, transport=transport, connections=connections, zipf=skew, cpu_us=cpu_us, **asdict(result))


def main() -> None:
    parser = options_of(__doc__, seconds=5)
    parser.add_argument("--accounts", type=int, default=100_000)
    options = parser.parse_args()
    report = Report("transfer", *COLUMNS)
    port = free_port()
    with serving([sys.executable, "-c", NOTHING, str(port)], HERE, port) as server:
        measure(report, server, "does nothing", "http", options.seconds, options.accounts)
    # In the current folder and not in /tmp, which may be memory: a commit has to meet a disk.
    with (
        TemporaryDirectory(prefix="transfer-", dir=".") as folder,
        reactor_server(HERE / "transfer_app", Path(folder) / "transfer.db") as server,
    ):
        fill(server, options.accounts)
        transports: tuple[Transport, ...] = ("http", "websocket")
        for transport in transports:
            measure(report, server, "reactor, SQLite", transport, options.seconds, options.accounts)
        kept = total(server)
    if kept != options.accounts * BALANCE:
        raise SystemExit(f"There are {kept} after {options.accounts * BALANCE} were paid in: the figures above do not count.")
    if options.json:
        report.write_json(options.json)
    if options.plot:
        report.write_plot(options.plot, "transfers per second", [(LABEL.format(**row), row["per_second"]) for row in report.rows])


if __name__ == "__main__":
    main()
