"""How late scheduled functions begin."""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["BOUNDS_S", "Lateness"]

#: Upper bounds of the buckets, seconds; the last bucket has none.
BOUNDS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 600.0)


class Lateness:
    """Counts beginnings by how long after their time they came. For metrics.

    Attributes:
        counts: by bucket, not cumulative.
        sum_s: of all of them.
        newest_s: of the last one.
    """

    __slots__ = ("counts", "newest_s", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0
        self.newest_s = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def add(self, late_s: float) -> None:
        """One that began ``late_s`` seconds after its time; by a clock that went back, before it."""
        self.newest_s = late_s = max(0.0, late_s)
        self.sum_s += late_s
        self.counts[bisect_left(BOUNDS_S, late_s)] += 1
