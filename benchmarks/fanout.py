"""One write, many who watch: deliveries a second, and how long each takes, beside the bare broadcast of the same bytes.

    make benchmark-fanout [ARGS="--subscribers 100 1000 5000 --seconds 5 --json FILE --plot FILE"]

The server is `reactor start` as it comes. All subscribers watch one query; in a second measurement each watches ten, of which the
write touches one and the other nine are its own. The load comes from a process of its own, in two parts: one writer who writes
again as soon as he is answered, and then five writes a second. A subscriber who reads slowly may be shown fewer states than there
were writes: only what was delivered counts, and `skipped` is the share that was not. The bound hands texts of the same size to the
same sockets on the same stack (broadcast.py). Socket.IO is its npm package on Node.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from fanout_load import Fanout, Figures, Kind, run
from generator import other_cores, raise_file_limit
from report import Column, Report, Server, call, options_of, reactor_server, reserve_port, serving

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
SUBSCRIBERS = (100, 1000, 5000)
MANY_QUERIES = 10
FILLED_AT_ONCE = 4000
#: Deliveries a second on one machine, as others publish them of their own servers.
PARSE_LIVE_QUERY, TRIPLIT = 38_000, 8_800
#: Of a core.
BUSY = 0.9
COLUMNS = (
    Column("server", "server", "<12"),
    Column("subscribers", "subscribers", ">11,"),
    Column("queries", "queries", ">9"),
    Column("writes/s", "writes_per_second", ">10,.1f"),
    Column("delivered/s", "deliveries_per_second", ">13,.0f"),
    Column("skipped", "skipped", ">9.1%"),
    Column("CPU µs", "cpu_us", ">8.1f"),
    Column("server CPU", "server_cpu", ">12.0%"),
    Column("load CPU", "generator_cpu", ">10.0%"),
    Column("p50 ms", "p50_ms", ">9.2f"),
    Column("p95 ms", "p95_ms", ">9.2f"),
    Column("p99 ms", "p99_ms", ">9.2f"),
)
LABEL = "{server}, {subscribers} subscribers, {queries} queries each"


def broadcast() -> AbstractContextManager[Server]:
    port = reserve_port()
    return serving([sys.executable, str(HERE / "broadcast.py"), str(port)], HERE, port, cores=other_cores())


def socket_io() -> AbstractContextManager[Server]:
    port = reserve_port()
    return serving([shutil.which("node") or "node", "socketio.mjs", str(port)], PEERS, port, cores=other_cores())


class Bench:
    """Measures each server in turn."""

    def __init__(self, seconds: float, *, peers: bool) -> None:
        self.seconds = seconds
        self.peers = peers
        self.report = Report("fanout", *COLUMNS)

    def measure(self, kind: Kind, server: Server, subscribers: int, *, queries: int = 1, size_bytes: int = 0) -> Figures:
        figures = run(Fanout(kind, server, subscribers, queries, size_bytes, self.seconds))
        self.report.row(server=kind, subscribers=subscribers, queries=queries, **asdict(figures))
        if figures.generator_cpu > max(BUSY, figures.server_cpu):
            print("    Here the load was at its limit, not the server.")
        return figures

    def all(self, subscribers: int, folder: Path) -> None:
        """Every server with so many subscribers, one after another."""
        with reactor_server(HERE / "fanout_app", folder / "fanout.db", cores=other_cores()) as server:
            ours = self.measure("reactor", server, subscribers)
            own = subscribers * (MANY_QUERIES - 1)
            for start in range(0, own, FILLED_AT_ONCE):
                call(server, "mutation", "notes:fill", prefix="own", start=start, end=min(start + FILLED_AT_ONCE, own))
            self.measure("reactor", server, subscribers, queries=MANY_QUERIES)
        with broadcast() as server:
            bound = self.measure("broadcast", server, subscribers, size_bytes=ours.size_bytes)
        if self.peers:
            with socket_io() as server:
                self.measure("socket.io", server, subscribers, size_bytes=ours.size_bytes)
        if subscribers == 1000:
            self.targets(ours, bound)

    def targets(self, ours: Figures, bound: Figures) -> None:
        rate = ours.deliveries_per_second
        self.report.target("deliveries/s to 1,000, of the broadcast's", rate / bound.deliveries_per_second, at_least=0.7)
        # What does not depend on what else the machine did meanwhile.
        self.report.target("deliveries for the server's CPU, of the broadcast's", bound.cpu_us / ours.cpu_us, at_least=0.7)
        self.report.target("p50 ms at 5 writes/s to 1,000", ours.p50_ms, at_most=8)
        self.report.target("p95 ms at 5 writes/s to 1,000", ours.p95_ms, at_most=14)
        self.report.target("deliveries/s to 1,000, of Parse LiveQuery's (published)", rate / PARSE_LIVE_QUERY, at_least=2)
        self.report.target("deliveries/s to 1,000, of Triplit's (published)", rate / TRIPLIT, at_least=8)


def main() -> None:
    parser = options_of(__doc__, seconds=5.0)
    parser.add_argument("--subscribers", type=int, nargs="+", default=SUBSCRIBERS)
    parser.add_argument("--no-peers", action="store_true", help="leave Socket.IO out")
    options = parser.parse_args()
    if not options.no_peers and not (PEERS / "node_modules" / "socket.io").exists():
        raise SystemExit(f"Socket.IO is not installed: run `npm ci` in {PEERS}, or leave it out with --no-peers.")
    raise_file_limit(max(options.subscribers) + 1)
    bench = Bench(options.seconds, peers=not options.no_peers)
    for subscribers in options.subscribers:
        # In the current folder and not in /tmp, which may be memory: a commit has to meet a disk.
        with TemporaryDirectory(prefix="fanout-", dir=".") as folder:
            bench.all(subscribers, Path(folder))
    if options.json is not None:
        bench.report.write_json(options.json)
    if options.plot is not None:
        bars = [(LABEL.format(**row), row["deliveries_per_second"]) for row in bench.report.rows]
        bench.report.write_plot(options.plot, "Deliveries per second", bars)


if __name__ == "__main__":
    main()
