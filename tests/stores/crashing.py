"""A process that writes without end and says what was acknowledged; the test that starts it kills it.

Each group writes two documents and a request, and rewrites one document that all groups share.
"""

from __future__ import annotations

import asyncio
import sys

from reactor.engine.store import RequestKey
from reactor.stores import sqlite_checkpoints
from reactor.stores.sqlite import SqliteStore
from tests.stores.library import Book, Library, catalog_of, push


async def main(path: str) -> None:
    # Checkpoints often, so that kills hit them too.
    sqlite_checkpoints.CHECKPOINT_PAGES, sqlite_checkpoints.RETRY_PAGES = 60, 10
    store = SqliteStore.open(path)
    snapshot = store.snapshot()
    library = Library(store, await push(store, catalog_of(Book)), snapshot.ts)
    snapshot.release()
    shared = library.add("shared", year=float(library.ts))
    await library.put(shared)
    print(f"{library.ts}", flush=True)
    while True:
        held = store.snapshot() if library.ts % 3 else None
        number = library.ts + 20
        one = library.commit(library.add(f"{number}", shelf="one"), library.change(shared.id, year=float(number)))
        two = library.commit(library.add(f"{number}", shelf="two"), request=RequestKey("s", number), result=str(number).encode())
        assert two.ts == number
        await library.write(one, two)
        print(number, flush=True)
        if held is not None:
            held.release()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
