"""ns of the small things that every message and every mutation is made of, beside a bound where there is one.

    .venv/bin/python benchmarks/micro.py [--seconds 0.5] [--queries 100000] [--json FILE] [--compare FILE]

The bound does the least that the same bytes need, mostly orjson alone. `--compare` prints each figure's ratio to an earlier file.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from statistics import median
from timeit import Timer
from typing import Any

import orjson
from report import Column, Report, options_of

from reactor.engine.read_set import ReadSet
from reactor.engine.store import Write
from reactor.engine.subscriptions import Subscriptions
from reactor.engine.write_set import Image, Overlay
from reactor.protocol import server_messages as wire
from reactor.protocol.client_messages import decode_client_message
from reactor.protocol.version import IdentityVersion, QueryId, QuerySetVersion, RequestId, StateVersion
from reactor.schema import Document, Index
from reactor.schema.catalog import Catalog
from reactor.schema.validators import ArgsValidator
from reactor.values.ids import new_id
from reactor.values.interval import Interval
from reactor.values.order import encode_key, prefix_end

ROUNDS = 5
COLUMNS = (
    Column("operation", "operation", "<44"),
    Column("ns", "ns", ">10,.0f"),
    Column("bound ns", "bound_ns", ">10,.0f"),
    Column("ratio", "ratio", ">8.2f"),
    Column("to earlier", "to_earlier", ">12.2f"),
)

Work = Callable[[], object]


class Message(Document, table="messages"):
    author: str
    body: str

    by_author = Index("author")


def cases(queries: int) -> list[tuple[str, Work, Work | None]]:
    """Name, work and bound of each."""
    catalog = Catalog.of({"Message": Message})
    catalog.bind({"messages": 10_001})
    table = catalog.tables["messages"]
    index = table.index("by_author")

    def row(number: int) -> Write:
        id = new_id(table.number, secrets.token_bytes(14), 20_000)
        text = json.dumps({"_creationTime": float(number), "_id": id, "author": f"author {number}", "body": "Good morning! " * 4})
        return Write(table, id, None, text, (), table.keys_of_json(text))

    def interval(number: int) -> Interval:
        prefix = encode_key(f"author {number}")
        return Interval(prefix, prefix_end(prefix), prefix)

    def read_set(number: int) -> ReadSet:
        read = ReadSet()
        read.add(index, interval(number).lo, interval(number).hi, interval(number).prefix)
        return read

    subscriptions: Subscriptions[int] = Subscriptions()
    for number in range(queries):
        subscriptions.replace(number, read_set(number))
    unrelated, related = [row(queries)], [row(0)]
    assert not subscriptions.overlapping(unrelated) and list(subscriptions.overlapping(related)) == [0]
    mine = read_set(0)

    overlay = Overlay()
    for position in range(1, 101):
        write = row(position)
        assert write.after is not None
        overlay.put(Image(position, table, write.id, write.after, write.after_keys))
    met = interval(50)
    assert len(overlay.rows(index, met.lo, met.hi, 0, 100)) == 1

    text = related[0].after
    assert text is not None
    args = b'{"author":"author 1","limit":20.0}'
    validator = ArgsValidator("messages:list", {"author": str, "limit": float}, frozenset({"author", "limit"}))
    mutation = b'{"type":"Mutation","requestId":3,"udfPath":"messages:send","args":[{"author":"author 1","body":"Good morning!"}]}'
    add = {"type": "Add", "queryId": 0, "udfPath": "messages:list", "args": [{"author": "author 1"}]}
    modify = orjson.dumps({"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [add] * 5})
    value = b"[" + b",".join([text.encode()] * 20) + b"]"
    start, end = (StateVersion(QuerySetVersion(1), IdentityVersion(0), ts) for ts in (10**18, 10**18 + 1))

    def transition() -> bytes:
        modification = wire.query_updated(QueryId(0), wire.updated_body(value, (), None))
        return wire.transition(start, end, [modification], 10**18) + wire.tail(None)

    decoded: dict[str, Any] = orjson.loads(transition())
    response = orjson.loads(wire.mutation_response(RequestId(3), value=b"null", ts=10**18, log_lines=()))
    return [
        ("key of a string", lambda: encode_key("author 1"), None),
        ("key of a float", lambda: encode_key(1.5), None),
        ("all keys of a stored document", lambda: table.keys_of_json(text), lambda: orjson.loads(text)),
        ("read set of one range, a write beside it", lambda: mine.overlaps(unrelated), None),
        ("read set of one range, a write inside", lambda: mine.overlaps(related), None),
        (f"{queries} live queries, a write beside them", lambda: subscriptions.overlapping(unrelated), None),
        (f"{queries} live queries, a write inside one", lambda: subscriptions.overlapping(related), None),
        ("overlay of 100, a scan that meets none", lambda: overlay.rows(index, b"\x01", b"\x02", 0, 100), None),
        ("overlay of 100, a scan that meets one", lambda: overlay.rows(index, met.lo, met.hi, 0, 100), None),
        ("decode a Mutation", lambda: decode_client_message(mutation), lambda: orjson.loads(mutation)),
        ("decode a ModifyQuerySet of 5", lambda: decode_client_message(modify), lambda: orjson.loads(modify)),
        ("encode a Transition with 20 documents", transition, lambda: orjson.dumps(decoded)),
        (
            "encode a MutationResponse",
            lambda: wire.mutation_response(RequestId(3), value=b"null", ts=10**18, log_lines=()),
            lambda: orjson.dumps(response),
        ),
        ("decode a document", lambda: Message.from_row(text, catalog), lambda: orjson.loads(text)),
        ("validate arguments", lambda: validator.load(args, catalog), lambda: orjson.loads(args)),
    ]


def ns(work: Work, seconds: float) -> float:
    """Of one call: the median of some rounds."""
    timer = Timer(work)
    number, took = 100, timer.timeit(100)
    number = max(1, int(number * seconds / ROUNDS / took))
    return median(timer.repeat(ROUNDS, number)) / number * 1e9


def main() -> None:
    parser = options_of(__doc__, seconds=0.5)
    parser.add_argument("--queries", type=int, default=100_000, help="live queries (default: 100000)")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="earlier figures, from --json")
    options = parser.parse_args()
    earlier = {row["operation"]: row["ns"] for row in json.loads(options.compare.read_text())["rows"]} if options.compare else {}
    report = Report("micro", *COLUMNS)
    for operation, work, bound in cases(options.queries):
        figures = {"ns": ns(work, options.seconds)}
        if bound is not None:
            figures["bound_ns"] = ns(bound, options.seconds)
            figures["ratio"] = figures["ns"] / figures["bound_ns"]
        if operation in earlier:
            figures["to_earlier"] = figures["ns"] / earlier[operation]
        report.row(operation=operation, **figures)
    if options.json:
        report.write_json(options.json)
    if options.plot:
        report.write_plot(options.plot, "ns", [(row["operation"], row["ns"]) for row in report.rows])


if __name__ == "__main__":
    main()
