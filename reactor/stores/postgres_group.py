"""A group of commits as one statement, so that its round trips do not grow with it."""

# ruff: noqa: S608 (names are quoted where they become SQL, values are parameters)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from reactor.engine.store import Commit, RequestRepeated, Ts
from reactor.errors import StoreError
from reactor.stores.group_rows import Change, rows_of
from reactor.stores.postgres_connections import Connection
from reactor.stores.postgres_snapshots import session_key
from reactor.stores.postgres_tables import SqlTable, table_of

__all__ = ["CHANNEL", "write_group"]

#: Of the wake-up that tells other nodes of commits.
CHANNEL = "reactor_commits"


class _Statement:
    """One statement made of several that change data, each with arrays for parameters."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._counted: list[str] = []
        self._expected: list[int] = []
        self._args: list[Any] = []

    def add(self, sql: str, *args: Any, rows: int | None = None) -> None:
        """One more part; ``{}`` in ``sql`` stands for each of ``args`` in turn.

        Args:
            rows: how many must change.
        """
        numbers = range(len(self._args) + 1, len(self._args) + len(args) + 1)
        self._args += args
        text = sql.format(*(f"${number}" for number in numbers))
        name = f"part_{len(self._parts)}"
        if rows is not None:
            text += " RETURNING 1"
            self._counted.append(f"(SELECT count(*) FROM {name})")
            self._expected.append(rows)
        self._parts.append(f"{name} AS ({text})")

    async def run(self, connection: Connection) -> None:
        """Run it.

        Raises:
            StoreError: a document is not there as its commit saw it.
        """
        sql = f"WITH {', '.join(self._parts)} SELECT {', '.join(self._counted) or '1'}"
        found: Any = await connection.fetchrow(sql, *self._args)
        if self._counted and list(found) != self._expected:
            raise _not_as_seen(f"{list(found)} rows changed instead of {self._expected}")


def _not_as_seen(why: object) -> StoreError:
    return StoreError(f"a document is not in the database as its commit saw it ({why})")


async def write_group(
    connection: Connection, tables: Mapping[str, SqlTable], commits: Sequence[Commit], head: Ts, node: str, group: int
) -> None:
    """Write ``commits`` in the transaction that holds the head.

    Args:
        commits: with writes or a request each.
        head: the ts that they must be above.
        node, group: which group of which node it is, to be asked for if the connection is lost under the COMMIT.

    Raises:
        RequestRepeated: one of the requests was answered before.
        StoreError: a ts does not grow, or a document is not there as the commit saw it.
    """
    statement = _Statement()
    log, requests, documents, head = rows_of(commits, head)
    for name, changed in documents.items():
        _add_table(statement, table_of(tables, name), list(changed.values()))
    if log:
        statement.add(
            "INSERT INTO _reactor_log SELECT * FROM unnest({}::bigint[], {}::int[], {}::text[], {}::text[], {}::json[], {}::json[])",
            *_columns(log),
        )
    if requests:
        statement.add(
            "INSERT INTO _reactor_requests SELECT * FROM unnest({}::bytea[], {}::bigint[], {}::bigint[], {}::text[], {}::text[])",
            *_columns([(session_key(session), *rest) for session, *rest in requests]),
        )
    statement.add("UPDATE _reactor_head SET head_ts = {}::bigint", head)
    statement.add(
        "INSERT INTO _reactor_nodes VALUES ({}::text, {}::bigint, {}::bigint) "
        "ON CONFLICT (node) DO UPDATE SET last_group = excluded.last_group, ts = excluded.ts",
        node,
        group,
        head,
    )
    try:
        await statement.run(connection)
    except asyncpg.exceptions.UniqueViolationError as error:
        if error.constraint_name == "_reactor_requests_pkey":
            raise RequestRepeated(f"a request was answered before ({error.detail})") from error
        raise _not_as_seen(error) from error


def _add_table(statement: _Statement, stored: SqlTable, changed: Sequence[Change]) -> None:
    """What brings the rows of one table from before the first write to after the last."""
    picks, numbers = stored.columns(changed[0][1].table)
    inserted: list[tuple[Any, ...]] = []
    updated: list[tuple[Any, ...]] = []
    deleted: list[str] = []
    for first, last, ts in changed:
        if last.after is None:
            if first.before is not None:
                deleted.append(last.id)
        else:
            row = (last.id, ts, last.after, *[last.after_keys[at] for at in picks])
            (inserted if first.before is None else updated).append(row)
    keys = [f"key_{number}" for number in numbers]
    names = ", ".join(("id", "ts", "doc", *keys))
    arrays = ", ".join(("{}::text[]", "{}::bigint[]", "{}::json[]", *("{}::bytea[]" for _ in keys)))
    if inserted:
        statement.add(f"INSERT INTO {stored.sql} ({names}) SELECT * FROM unnest({arrays})", *_columns(inserted))
    if updated:
        sets = [f"{name} = new.{name}" for name in ("ts", "doc", *keys)]
        # A key that the backfill gave to an earlier version would be wrong for this one; none is seen to be missing.
        sets += [f"key_{index.column} = NULL" for index in stored.indexes if index.state == "building"]
        statement.add(
            f"UPDATE {stored.sql} AS old SET {', '.join(sets)} FROM unnest({arrays}) AS new({names}) WHERE old.id = new.id",
            *_columns(updated),
            rows=len(updated),
        )
    if deleted:
        statement.add(f"DELETE FROM {stored.sql} WHERE id = ANY({{}}::text[])", deleted, rows=len(deleted))


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
