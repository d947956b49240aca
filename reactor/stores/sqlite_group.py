"""A group of commits as the statements of one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apsw

from reactor.engine.store import Commit, Ts, Write
from reactor.errors import StoreError
from reactor.stores.sqlite_tables import RowWriter, SqlTable

__all__ = ["write_group", "write_rows"]

#: Rows written between two points where the event loop may run: some 0.3 ms.
STEP = 64

LOG = 'INSERT INTO _reactor_log (ts, position, "table", id, before, after) VALUES (?, ?, ?, ?, ?, ?)'
REQUEST = "INSERT INTO _reactor_requests (session, request, ts, result, log_lines) VALUES (?, ?, ?, ?, ?)"
HEAD = "UPDATE _reactor_meta SET head_ts = ?"

Batches = dict[str, list[tuple[Any, ...]]]


def write_group(connection: apsw.Connection, tables: Mapping[str, SqlTable], commits: Sequence[Commit], head: Ts) -> Iterator[None]:
    """Write ``commits``, yielding where the caller may do something else before it goes on.

    The log gets every write, the tables only the last one of each document.

    Args:
        commits: with writes or a request each.
        head: the ts that they must be above.

    Raises:
        StoreError: a ts does not grow, or a document is not there as the commit saw it. The caller rolls back.
    """
    batches: Batches = {LOG: [], REQUEST: []}
    for sql, rows in _batches(commits, tables, head, batches).items():
        yield from write_rows(connection, sql, rows)
    connection.execute(HEAD, (commits[-1].ts,))


def write_rows(connection: apsw.Connection, sql: str, rows: Sequence[tuple[Any, ...]], *, every: bool = True) -> Iterator[None]:
    """Run ``sql`` for each of ``rows``, yielding now and then.

    Args:
        every: each of them must change exactly one row.
    """
    for at in range(0, len(rows), STEP):
        step = rows[at : at + STEP]
        before = connection.total_changes()
        connection.executemany(sql, step)
        changed = connection.total_changes() - before
        if every and changed != len(step):
            raise StoreError(
                f"{changed} rows changed instead of {len(step)}: a document is not in the database as its commit saw it ({sql})"
            )
        yield


def _batches(commits: Sequence[Commit], tables: Mapping[str, SqlTable], head: Ts, batches: Batches) -> Batches:
    log, requests = batches[LOG], batches[REQUEST]
    #: First and last write of each document, and the last one's ts.
    documents: dict[tuple[str, str], tuple[Write, Write, Ts]] = {}
    for commit in commits:
        ts = commit.ts
        if ts <= head:
            raise StoreError(f"commit {ts} does not come after {head}")
        head = ts
        for position, write in enumerate(commit.writes):
            table, id, before, after, _, _, _ = write
            name = table.name
            document = (name, id)
            log.append((ts, position, name, id, before, after))
            seen = documents.get(document)
            documents[document] = (write if seen is None else seen[0], write, ts)
        if commit.request is not None:
            lines = json.dumps(commit.log_lines) if commit.log_lines else "[]"
            requests.append((*commit.request, ts, commit.result.decode(), lines))
    for (name, _), (first, last, ts) in documents.items():
        stored = tables.get(name)
        if stored is None:
            raise StoreError(f"table {name} is not in the database. Push the schema")
        _add_document(batches, stored.writer(last.table), first, last, ts)
    return batches


def _add_document(batches: Batches, statements: RowWriter, first: Write, last: Write, ts: Ts) -> None:
    """What brings the row from before ``first`` to after ``last``."""
    _, id, _, after, _, keys, _ = last
    row: tuple[Any, ...]
    if after is None:
        if first.before is None:
            return
        sql, row = statements.delete, (id,)
    else:
        if first.before is None:
            sql, picks = statements.insert, statements.picks
        else:
            sql, picks = statements.update(first.before_keys, keys)
        row = (id, ts, after, *[keys[at] for at in picks]) if picks else (id, ts, after)
    rows = batches.get(sql)
    if rows is None:
        batches[sql] = [row]
    else:
        rows.append(row)
