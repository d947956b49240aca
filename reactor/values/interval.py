"""Key intervals: what a read covers."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["END", "FULL", "Interval"]

#: Above every index key: no key begins with this byte.
END = b"\xff"


class Interval(Struct, frozen=True, gc=False):
    """The half-open range ``[lo, hi)`` of the keys of one index.

    ``prefix`` is the longest equality prefix that the range is known to lie in: whole encoded fields, and every
    key in ``[lo, hi)`` begins with it. It is what read sets and subscriptions are hashed by, so that most
    overlap checks are one dictionary lookup.
    """

    lo: bytes
    hi: bytes
    prefix: bytes = b""

    @property
    def empty(self) -> bool:
        return self.lo >= self.hi


FULL = Interval(b"", END, b"")
