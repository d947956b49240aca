"""Live meetings: how many one server carries, each with a transcript that grows, a chat, and three who watch.

    make benchmark-meetings [ARGS="--meetings M --seconds 5 --json FILE --plot FILE"]

A meeting has ten appends a second to its transcript, a line of chat and a heartbeat of each watcher every five seconds: 10.8
mutations, each shown to three watchers, who watch the last 20 segments, the chat and who is present. Besides come 20 one-off
queries a second. A size holds when every mutation was acknowledged and shown to everyone, 95 % of the queries took at most 120 ms
and 95 % of the deliveries at most 150 ms, all counted from when they were due and not from when they could be sent. Without
`--meetings` the largest size that holds is sought, by doubling and then by bisection. At the end of each size every watcher's
results are compared with a fresh query's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from generator import most_sockets, raise_file_limit
from meetings_load import WATCHERS, Figures, Meetings, run
from report import Column, Report, Server, options_of, reactor_server

HERE = Path(__file__).resolve().parent
GOAL = 1000
SOCKETS = WATCHERS + 1  # of a meeting
SMALLEST = 25
#: The search ends when it knows the size within this share of it.
PRECISE = 0.1
QUERY_P95_MS = 120
DELIVERY_P95_MS = 150
#: By when the load itself is at fault for what is late.
LATE_MS = 20
COLUMNS = (
    Column("meetings", "meetings", ">8,"),
    Column("mutations/s", "offered", ">13,.0f"),
    Column("delivered/s", "delivered", ">13,.0f"),
    Column("query p95 ms", "query_p95_ms", ">14.1f"),
    Column("ack p95 ms", "ack_p95_ms", ">12.1f"),
    Column("delivery p50", "delivery_p50_ms", ">14.1f"),
    Column("p95 ms", "delivery_p95_ms", ">9.1f"),
    Column("CPU µs/mutation", "mutation_us", ">17.0f"),
    Column("server CPU", "server_cpu", ">12.0%"),
    Column("load CPU", "generator_cpu", ">10.0%"),
    Column("load late p99", "late_p99_ms", ">15.1f"),
    Column("", "verdict", "<2"),
)


def faults(figures: Figures) -> list[str]:
    """Why a size does not hold; none when it does."""
    unanswered = round(figures.offered - figures.acknowledged, 1)
    found = {
        f"{figures.wrong} results differ from a fresh query's": bool(figures.wrong),
        f"{figures.failed} mutations failed": figures.failed > 0,
        f"{unanswered:g} mutations/s were not acknowledged": unanswered > 0,
        f"{figures.missing} changes were not shown": figures.missing > 0,
        "queries are late": figures.query_p95_ms is None or figures.query_p95_ms > QUERY_P95_MS,
        "deliveries are late": figures.delivery_p95_ms is None or figures.delivery_p95_ms > DELIVERY_P95_MS,
    }
    return [fault for fault, is_so in found.items() if is_so]


def largest(holds: Callable[[int], bool], at_most: int) -> int:
    """The largest size that holds, to within a tenth; 0 when not even ``SMALLEST`` does."""
    good, bad = 0, SMALLEST
    while bad <= at_most and holds(bad):
        good, bad = bad, bad * 2
    bad = min(bad, at_most + 1)
    while good and bad - good > max(1, good * PRECISE):
        middle = (good + bad) // 2
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good


class Bench:
    """Measures sizes on one server."""

    def __init__(self, server: Server, seconds: float) -> None:
        self.server = server
        self.seconds = seconds
        self.report = Report("meetings", *COLUMNS)

    def holds(self, meetings: int) -> bool:
        figures = run(Meetings(self.server, meetings, self.seconds))
        found = faults(figures)
        if found and (figures.late_p99_ms or 0) > LATE_MS:
            found.append("the load itself was late")
        self.report.row(meetings=meetings, verdict=f"  {'; '.join(found) or 'holds'}", **asdict(figures))
        if figures.wrong:
            raise SystemExit("Watchers were left with wrong results: the figures do not count.")
        return not found


def main() -> None:
    parser = options_of(__doc__, seconds=5.0)
    parser.add_argument("--meetings", type=int, metavar="M", help="measure this size only")
    options = parser.parse_args()
    at_most = options.meetings or min(GOAL * 4, most_sockets() // SOCKETS)
    raise_file_limit(at_most * SOCKETS)
    # In the current folder and not in /tmp, which may be memory: a commit has to meet a disk.
    with TemporaryDirectory(prefix="meetings-", dir=".") as folder, reactor_server(HERE / "meetings_app", Path(folder) / "m.db") as server:
        bench = Bench(server, options.seconds)
        if options.meetings is None:
            most = largest(bench.holds, at_most)
        else:
            most = options.meetings if bench.holds(options.meetings) else 0
    bench.report.target("meetings at the same time", most, at_least=GOAL)
    if options.json is not None:
        bench.report.write_json(options.json)
    if options.plot is not None:
        bars = [(f"{row['meetings']} meetings", row["delivery_p95_ms"] or 0.0) for row in bench.report.rows]
        bench.report.write_plot(options.plot, "p95 from when a mutation was due until a watcher had it, ms", bars)


if __name__ == "__main__":
    main()
