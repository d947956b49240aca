"""Measurements counted in buckets: plain numbers on the objects that measure, for whoever exports them as metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Histogram"]


class Histogram:
    """Counts values by size. One thread adds; others may read.

    Args:
        bounds: of the buckets, ascending, each the largest value that its bucket takes. The last bucket, after them, has none.

    Attributes:
        counts: by bucket, not cumulative.
        sum: of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def add(self, value: float) -> None:
        self.sum += value
        self.counts[bisect_left(self.bounds, value)] += 1
