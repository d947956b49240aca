"""A small schema, mutations over it at the level of transactions, and a plain-Python model that replays them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from reactor.engine.store import Row
from reactor.engine.transaction import Transaction
from reactor.schema import Document, Index
from reactor.schema.catalog import Catalog, IndexDef, Table
from reactor.values import ids, order
from reactor.values.interval import END, Interval


class Account(Document, table="accounts"):
    name: str
    balance: float

    by_name = Index("name")
    by_balance = Index("balance")


class Entry(Document, table="entries"):
    account: str

    by_account = Index("account")


def catalog() -> Catalog:
    made = Catalog.of({"Account": Account, "Entry": Entry})
    made.bind({"accounts": 10001, "entries": 10002})
    return made


def document_id(table: Table, number: int) -> str:
    """A real id that is the same for the same number."""
    return ids.encode_id(table.number, number.to_bytes(16, "big"))


async def put(tx: Transaction, table: Table, id: str, before: Row | None, **fields: Any) -> None:
    """Write a document with these fields; its creation time is fixed, so that equal documents are equal texts."""
    json = orjson.dumps({"_creationTime": 1.0, "_id": id, **fields}, option=orjson.OPT_SORT_KEYS).decode()
    tx.write(table, id, before, json, table.keys_of_json(json), len(json))


def equal(index: IndexDef, value: Any) -> Interval:
    """The interval of the documents whose first indexed field is ``value``."""
    prefix = order.encode_key(value)
    return Interval(prefix, order.prefix_end(prefix), prefix)


def between(lo: float, hi: float) -> Interval:
    return Interval(order.encode_key(lo), order.encode_key(hi), b"")


WHOLE = Interval(b"", END, b"")


@dataclass
class Model:
    """The same database as dictionaries."""

    tables: dict[str, dict[str, str]] = field(default_factory=dict)

    def get(self, table: Table, id: str) -> str | None:
        return self.tables.get(table.name, {}).get(id)

    def scan(self, table: Table, index: IndexDef, interval: Interval, reverse: bool, limit: int) -> list[str]:
        found = []
        for id, json in self.tables.get(table.name, {}).items():
            key = id.encode() if index.position < 0 else table.keys_of_json(json)[index.position]
            if interval.lo <= key < interval.hi:
                found.append((key, json))
        return [json for _, json in sorted(found, reverse=reverse)][:limit]

    def write(self, table: Table, id: str, json: str | None) -> None:
        rows = self.tables.setdefault(table.name, {})
        if json is None:
            rows.pop(id, None)
        else:
            rows[id] = json


@dataclass
class Step:
    """One read or write that a transaction did, with what it saw."""

    kind: str
    arguments: tuple[Any, ...]
    saw: Any = None


@dataclass
class Recorder:
    """Performs reads and writes on a transaction and writes down what it saw."""

    tx: Transaction
    steps: list[Step] = field(default_factory=list)

    async def get(self, table: Table, id: str) -> Row | None:
        row = await self.tx.get(table, id)
        self.steps.append(Step("get", (table, id), None if row is None else row.json))
        return row

    async def scan(self, table: Table, index: IndexDef, interval: Interval, reverse: bool, limit: int) -> list[Row]:
        known = self.tx.known(table, index, interval, limit, reverse)
        rows = known if known is not None else await self.tx.scan(index, interval, reverse=reverse).next(limit)
        self.steps.append(Step("scan", (table, index, interval, reverse, limit), [row.json for row in rows]))
        return rows

    async def write(self, table: Table, id: str, before: Row | None, **fields: Any) -> None:
        if fields:
            await put(self.tx, table, id, before, **fields)
            json = orjson.dumps({"_creationTime": 1.0, "_id": id, **fields}, option=orjson.OPT_SORT_KEYS).decode()
        else:
            self.tx.write(table, id, before, None, (), 0)
            json = None
        self.steps.append(Step("write", (table, id, json)))


def replay(model: Model, steps: list[Step]) -> None:
    """Do ``steps`` on the model, which must see what the transaction saw."""
    for step in steps:
        if step.kind == "get":
            assert model.get(*step.arguments) == step.saw, f"a get saw another document than the serial run: {step}"
        elif step.kind == "scan":
            assert model.scan(*step.arguments) == step.saw, f"a scan saw other documents than the serial run: {step}"
        else:
            model.write(*step.arguments)


async def random_steps(
    recorder: Recorder, catalog: Catalog, rng: random.Random, suspend: Callable[[], Awaitable[None]], *, writes: bool
) -> None:
    """A few reads, and writes that depend on them, on few documents so that transactions get in each other's way."""
    accounts = catalog.tables["accounts"]
    for _ in range(rng.randint(1, 4)):
        await suspend()
        id = document_id(accounts, rng.randrange(6))
        choice = rng.random()
        if choice < 0.3:
            row = await recorder.get(accounts, id)
            if writes:
                balance = 0.0 if row is None else orjson.loads(row.json)["balance"]
                if row is not None and rng.random() < 0.25:
                    await recorder.write(accounts, id, row)
                else:
                    await recorder.write(accounts, id, row, name=rng.choice("abc"), balance=balance + rng.randint(1, 3))
        elif choice < 0.6:
            index = accounts.index("by_name")
            rows = await recorder.scan(accounts, index, equal(index, rng.choice("abc")), rng.random() < 0.5, rng.randint(1, 4))
            if writes and rows:
                row = rng.choice(rows)
                await recorder.write(accounts, row.id, row, name=rng.choice("abc"), balance=float(len(rows)))
        elif choice < 0.85:
            index = accounts.index("by_balance")
            rows = await recorder.scan(accounts, index, between(0.0, float(rng.randint(1, 9))), rng.random() < 0.5, rng.randint(1, 4))
            if writes:
                fresh = document_id(catalog.tables["entries"], rng.randrange(1 << 60))
                await recorder.write(catalog.tables["entries"], fresh, None, account=f"{len(rows)}")
        else:
            await recorder.scan(accounts, accounts.by_id, WHOLE, rng.random() < 0.5, rng.randint(1, 10))
