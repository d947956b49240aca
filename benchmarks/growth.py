"""What a mutation and a one-off query cost while what surrounds them grows.

    .venv/bin/python benchmarks/growth.py [--quick | --full] [--seconds 3] [--json FILE] [--plot FILE]

Grown are the live queries (on the same index as what is written, under other keys), idle connections with 5 subscriptions of
their own, documents, and bytes. Calls come one after another over HTTP; the CPU is the server's, less what it spends on the same
crowd without any calls. `--full` goes to 10,000 connections, 10^7 documents and 1 GB: it takes long, and some 10 GB of disk.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import random
import secrets
import time
from contextlib import ExitStack
from html import escape
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from crowd import Crowd, gathered
from report import Column, Report, Server, options_of, reactor_server

from reactor.engine.store import Commit, Ts, Write
from reactor.functions.registry import load_app
from reactor.stores.sqlite import SqliteStore
from reactor.values.ids import new_id

APP = Path(__file__).resolve().parent / "growth_app"
ITEMS = 1000
SUBSCRIPTIONS = 5
QUERIES_PER_CONNECTION = 500
FILLED_AT_ONCE = 5000
SMALL, LARGE = 40, 10_000  # bytes of a body
CONNECTION_BYTES = 60 * 1024
UNRELATED_QUERIES = 1.2
PER_DECADE = 0.25  # of the cost at the smallest size: what a logarithm may add with each power of ten
COLUMNS = (
    Column("grown", "grown", "<14"),
    Column("size", "size", ">12,.0f"),
    Column("operation", "operation", ">11"),
    Column("CPU µs", "cpu_us", ">9.0f"),
    Column("p50 ms", "p50_ms", ">9.2f"),
    Column("calls", "calls", ">8"),
    Column("start s", "start_s", ">9.2f"),
    Column("B each", "bytes_each", ">9,.0f"),
)


class Sizes(NamedTuple):
    queries: tuple[int, ...]
    connections: tuple[int, ...]
    documents: tuple[int, ...]
    megabytes: tuple[float, ...]


QUICK = Sizes((0, 500), (2, 20), (100, 1000), (0.1, 1))
DEFAULT = Sizes((0, 1000, 10_000, 100_000), (10, 100, 1000), (1000, 10_000, 100_000), (1, 64))
FULL = Sizes((0, 1000, 10_000, 100_000), (10, 100, 1000, 10_000), (1000, 10_000, 100_000, 1_000_000, 10_000_000), (1, 32, 1024))


async def fill(db: Path, start: int, end: int, body_bytes: int) -> None:
    """Add items with these numbers, in commits of thousands."""
    catalog = load_app(APP).catalog
    store = SqliteStore.open(db, synchronous="normal")
    for name in catalog.tables.keys() - store.tables().keys():
        await store.create_table(name)
    catalog.bind({name: stored.number for name, stored in store.tables().items()})
    table = catalog.tables["items"]
    if not start:
        await store.create_index("items", "by_number", ("number",))
        await store.build_index("items", "by_number")
        await store.finish_schema([table])
    day = int(time.time() // 86_400)
    for first in range(start, end, FILLED_AT_ONCE):
        writes = []
        for number in range(first, min(first + FILLED_AT_ONCE, end)):
            id, created, body = new_id(table.number, secrets.token_bytes(14), day), float(number), "x" * body_bytes
            text = f'{{"_creationTime":{created},"_id":"{id}","body":"{body}","count":0.0,"number":{float(number)}}}'
            writes.append(Write(table, id, None, text, (), table.keys({"number": float(number)}, created, id)))
        async with store.head() as head:
            await head.write([Commit(writes, ts=Ts(max(head.ts + 1, time.time_ns())))])
    await store.close()


class Measure:
    """Calls of one server, reported under what has grown."""

    def __init__(self, report: Report, seconds: float, grown: str) -> None:
        self.report = report
        self.seconds = seconds
        self.grown = grown

    def __call__(self, server: Server, size: float, items: int, **figures: float) -> None:
        """One row for each operation."""
        idle = self._idle(server)
        for operation, kind, path in (("mutation", "mutation", "items:touch"), ("query", "query", "items:get")):
            cpu_us, p50_ms, calls = self._calls(server, kind, path, items, idle)
            row = {"grown": self.grown, "size": size, "operation": operation, "cpu_us": cpu_us, "p50_ms": p50_ms, "calls": calls}
            self.report.row(**row, idle_cpu=idle, **figures)

    def _idle(self, server: Server) -> float:
        """CPU seconds a second that the server takes when nobody calls."""
        before = server.cpu_seconds()
        time.sleep(self.seconds)
        return (server.cpu_seconds() - before) / self.seconds

    def _calls(self, server: Server, kind: str, path: str, items: int, idle: float) -> tuple[float, float, int]:
        rng = random.Random(1)  # noqa: S311 - repeatable on purpose
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

        def call() -> None:
            args = {"number": float(rng.randrange(items))} | ({"asked": rng.random()} if kind == "query" else {})
            body = json.dumps({"path": path, "args": args, "format": "json"})
            connection.request("POST", f"/api/{kind}", body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            if answer["status"] != "success":
                raise RuntimeError(answer["errorMessage"])

        for _ in range(50):
            call()
        latencies: list[float] = []
        before, began = server.cpu_seconds(), time.perf_counter()
        while (now := time.perf_counter()) < began + self.seconds:
            call()
            latencies.append(time.perf_counter() - now)
        took, spent = time.perf_counter() - began, server.cpu_seconds() - before
        connection.close()
        return max(0.0, spent - idle * took) / len(latencies) * 1e6, median(latencies) * 1000, len(latencies)


def crowds(report: Report, seconds: float, folder: Path, grown: str, sizes: tuple[int, ...]) -> None:
    """Grow live queries or connections on one server."""
    db = folder / f"{grown}.db".replace(" ", "-")
    asyncio.run(fill(db, 0, ITEMS, SMALL))
    measure = Measure(report, seconds, grown)
    with reactor_server(APP, db) as server, ExitStack() as stack:
        # What the first ones alone have a server load is no part of what each takes.
        with gathered(Crowd(server.port, 20, SUBSCRIPTIONS)):
            pass
        measured, there = server.rss_bytes(), 0
        for size in sizes:
            more = size - there
            if more and grown == "live queries":
                stack.enter_context(
                    gathered(Crowd(server.port, math.ceil(more / QUERIES_PER_CONNECTION), QUERIES_PER_CONNECTION, first=-there - 1))
                )
            elif more:
                stack.enter_context(gathered(Crowd(server.port, more, SUBSCRIPTIONS, first=-there * SUBSCRIPTIONS - 1)))
            there = size
            each = {"bytes_each": (server.rss_bytes() - measured) / size} if size else {}
            measure(server, size, ITEMS, **each)


def databases(report: Report, seconds: float, folder: Path, grown: str, sizes: tuple[float, ...], body_bytes: int) -> None:
    """Grow one database, and start a server on each of its sizes."""
    db, there, measure = folder / f"{grown}.db", 0, Measure(report, seconds, grown)
    for size in sizes:
        documents = int(size if grown == "documents" else size * 1e6 / body_bytes)
        asyncio.run(fill(db, there, documents, body_bytes))
        there = documents
        began = time.perf_counter()
        with reactor_server(APP, db) as server:
            measure(server, size, documents, start_s=time.perf_counter() - began)


def targets(report: Report, sizes: Sizes) -> None:
    """What the curves are to keep to."""

    def cost(grown: str, size: float, operation: str = "mutation", key: str = "cpu_us") -> float:
        found = {(row["grown"], row["size"], row["operation"]): row for row in report.rows}
        return float(found[grown, size, operation].get(key, 0.0))

    most = sizes.queries[-1]
    ratio = cost("live queries", most) / cost("live queries", 0)
    report.target(f"a mutation beside {most:,} unrelated live queries, to none", ratio, at_most=UNRELATED_QUERIES)
    each = cost("connections", sizes.connections[-1], key="bytes_each")
    report.target(f"B for an idle connection with {SUBSCRIPTIONS} subscriptions of its own", each, at_most=CONNECTION_BYTES)
    for grown, line in (("connections", sizes.connections), ("documents", sizes.documents), ("megabytes", sizes.megabytes)):
        for operation in ("mutation", "query"):
            ratio = cost(grown, line[-1], operation) / cost(grown, line[0], operation)
            bound = 1 + PER_DECADE * math.log10(line[-1] / line[0])
            report.target(f"a {operation} at {line[-1]:,} {grown}, to {line[0]:,}", ratio, at_most=bound)


def write_curves(path: Path, report: Report) -> None:
    """An SVG of CPU over size, both from 0 upwards, size by powers of ten: a straight line is a logarithm."""
    wide, high, left = 640, 220, 60
    lines: list[str] = []
    for number, grown in enumerate(dict.fromkeys(row["grown"] for row in report.rows)):
        rows = [row for row in report.rows if row["grown"] == grown]
        most = max(row["cpu_us"] for row in rows) or 1.0
        low, top = (change(math.log10(max(row["size"], 0.1)) for row in rows) for change in (min, max))
        bottom = (number + 1) * high - 30
        lines.append(f'<text x="8" y="{bottom - high + 50}" font-weight="bold">CPU µs by {escape(grown)}</text>')
        for operation, colour in (("mutation", "#4a7ebb"), ("query", "#bb6a4a")):
            points = []
            for row in rows:
                if row["operation"] == operation:
                    x = left + (math.log10(max(row["size"], 0.1)) - low) / ((top - low) or 1) * (wide - 2 * left)
                    y = bottom - row["cpu_us"] / most * (high - 90)
                    points.append(f"{x:.1f},{y:.1f}")
                    lines.append(f'<text x="{x:.1f}" y="{y - 5:.1f}" fill="{colour}" text-anchor="middle">{row["cpu_us"]:.0f}</text>')
                    lines.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{row["size"]:,}</text>')
            lines.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"/>')
    groups = len({row["grown"] for row in report.rows})
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{groups * high}" font-family="sans-serif" font-size="12">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(lines) + "\n</svg>\n"
    )


def main() -> None:
    parser = options_of(__doc__, seconds=3)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="tiny sizes: to see that it runs")
    length.add_argument("--full", action="store_true", help="up to 10,000 connections, 10^7 documents and 1 GB")
    options = parser.parse_args()
    sizes = QUICK if options.quick else FULL if options.full else DEFAULT
    report = Report("growth", *COLUMNS)
    # In the current folder and not in /tmp, which may be memory: a commit has to meet a disk.
    with TemporaryDirectory(prefix="growth-", dir=".") as name:
        folder = Path(name)
        crowds(report, options.seconds, folder, "live queries", sizes.queries)
        crowds(report, options.seconds, folder, "connections", sizes.connections)
        databases(report, options.seconds, folder, "documents", sizes.documents, SMALL)
        databases(report, options.seconds, folder, "megabytes", sizes.megabytes, LARGE)
    targets(report, sizes)
    if options.json:
        report.write_json(options.json)
    if options.plot:
        write_curves(options.plot, report)


if __name__ == "__main__":
    main()
