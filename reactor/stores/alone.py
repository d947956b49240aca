"""What a store of one process says of other nodes: there are none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from reactor.engine.store import Head, News, StoreSnapshot, Ts, Write
from reactor.schema.catalog import Table

__all__ = ["Alone"]


class Alone:
    """Part of a store that only this process writes to."""

    exclusive = True
    behind_s = 0.0
    trouble: str | None = None
    standby = None

    def head(self) -> AbstractAsyncContextManager[Head]:
        """See ``Store.head``."""
        raise NotImplementedError

    def head_for_push(self) -> AbstractAsyncContextManager[Head]:
        return self.head()

    async def news(self, after: Ts) -> News:
        return News(after, [])

    def learn(self, ts: Ts, writes: Sequence[Write] = ()) -> None:
        raise AssertionError("nobody else commits")

    def skip(self) -> AbstractAsyncContextManager[StoreSnapshot]:
        raise AssertionError("nobody else commits")

    def on_news(self, wake: Callable[[], None]) -> None:
        pass

    async def newest(self) -> Ts:
        return Ts(0)

    def pushing(self, tables: Sequence[Table]) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()
