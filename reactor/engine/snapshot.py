"""Pinned snapshots: the database at one ts, shared by all that read there."""

from __future__ import annotations

from reactor.engine.committer import Committer
from reactor.engine.store import Store, StoreSnapshot, Ts
from reactor.engine.transaction import EMPTY, Base

__all__ = ["Pin", "Pins"]


class Pin:
    """A snapshot kept open until each holder has released it. Made by ``Pins.pin``."""

    __slots__ = ("_holders", "_pins", "base", "snapshot", "ts")

    def __init__(self, pins: Pins, snapshot: StoreSnapshot, committer: Committer) -> None:
        self._pins = pins
        self._holders = 1
        self.snapshot = snapshot
        self.ts: Ts = snapshot.ts
        #: What a query reads: the snapshot, which is at the newest commit that the committer has published.
        self.base = Base(snapshot, EMPTY, committer.flushed, committer.flushed, committer.cache_at(snapshot.ts))

    def retain(self) -> Pin:
        """One more holder, who releases it too."""
        assert self._holders, "the pin was released"
        self._holders += 1
        return self

    def release(self) -> None:
        """One holder fewer; the last one closes the snapshot."""
        assert self._holders, "the pin was released before"
        self._holders -= 1
        if not self._holders:
            self._pins._closed(self)


class Pins:
    """The snapshots in use, so that the commit log in memory reaches back to the oldest."""

    __slots__ = ("_committer", "_count", "_store")

    def __init__(self, store: Store, committer: Committer) -> None:
        self._store = store
        self._committer = committer
        self._count: dict[Ts, int] = {}  # ascending: a new pin is never older than one before it

    def pin(self) -> Pin:
        """Pin the newest published commit."""
        pin = Pin(self, self._store.snapshot(), self._committer)
        self._count[pin.ts] = self._count.get(pin.ts, 0) + 1
        return pin

    def oldest(self, head: Ts) -> Ts:
        """The oldest ts that is pinned, or ``head``."""
        return next(iter(self._count), head)

    def _closed(self, pin: Pin) -> None:
        pin.snapshot.release()
        self._count[pin.ts] -= 1
        if not self._count[pin.ts]:
            del self._count[pin.ts]
