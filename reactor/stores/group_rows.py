"""A group of commits as rows, whatever the database that they go to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from reactor.engine.store import Commit, Ts, Write
from reactor.errors import StoreError

__all__ = ["Change", "GroupRows", "rows_of"]

#: The first and last write of a document in the group, and the last one's ts.
Change = tuple[Write, Write, Ts]


class GroupRows(NamedTuple):
    """What a group writes. The log gets every write, the tables only the last one of each document.

    Attributes:
        log: ts, position in the commit, table, id, text before and after.
        requests: session, number, ts, result, log lines as JSON.
        documents: what changes, by table and id.
        head: the last commit's ts.
    """

    log: list[tuple[Ts, int, str, str, str | None, str | None]]
    requests: list[tuple[str, int, Ts, str, str]]
    documents: dict[str, dict[str, Change]]
    head: Ts


def rows_of(commits: Sequence[Commit], head: Ts) -> GroupRows:
    """The rows of ``commits``, which have writes or a request each.

    Args:
        head: the ts that they must be above.

    Raises:
        StoreError: a ts does not grow.
    """
    rows = GroupRows([], [], {}, commits[-1].ts)
    log, requests, documents, _ = rows
    for commit in commits:
        ts = commit.ts
        if ts <= head:
            raise StoreError(f"commit {ts} does not come after {head}")
        head = ts
        for position, write in enumerate(commit.writes):
            id = write.id
            name = write.table.name
            log.append((ts, position, name, id, write.before, write.after))
            changed = documents.get(name)
            if changed is None:
                changed = documents[name] = {}
            seen = changed.get(id)
            changed[id] = (write if seen is None else seen[0], write, ts)
        if commit.request is not None:
            lines = json.dumps(commit.log_lines) if commit.log_lines else "[]"
            requests.append((*commit.request, ts, commit.result.decode(), lines))
    return rows
