"""The read sets of all live queries in one index: which of them a commit overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from reactor.engine.read_set import ReadSet, Span, touched
from reactor.engine.store import Write

__all__ = ["Subscriptions"]

S = TypeVar("S")


class Subscriptions(Generic[S]):
    """Subscribers by what they read.

    Costs: ``replace`` and ``remove`` are linear in the read set; ``overlapping`` is linear in the written keys' prefixes
    and in the subscribers that share one of them, not in the number of subscribers.

    Invariant: a subscriber is in a bucket exactly when the read set it was last given has spans there.
    """

    __slots__ = ("_buckets", "_read_sets")

    def __init__(self) -> None:
        self._buckets: dict[str, dict[bytes, dict[S, list[Span]]]] = {}
        self._read_sets: dict[S, ReadSet] = {}

    def __len__(self) -> int:
        return len(self._read_sets)

    def replace(self, subscriber: S, read_set: ReadSet) -> None:
        """Register ``subscriber`` for ``read_set`` instead of what it had. The read set must not change any more."""
        known = self._read_sets.get(subscriber)
        if known is not None and not _same_places(known, read_set):
            self.remove(subscriber)
        self._read_sets[subscriber] = read_set
        for ref, by_prefix in read_set.spans.items():
            buckets = self._buckets.get(ref)
            if buckets is None:
                buckets = self._buckets[ref] = {}
            for prefix, spans in by_prefix.items():
                bucket = buckets.get(prefix)
                if bucket is None:
                    buckets[prefix] = {subscriber: spans}
                else:
                    bucket[subscriber] = spans

    def remove(self, subscriber: S) -> None:
        """Forget ``subscriber``; nothing happens when it is not there."""
        read_set = self._read_sets.pop(subscriber, None)
        if read_set is None:
            return
        for ref, by_prefix in read_set.spans.items():
            buckets = self._buckets[ref]
            for prefix in by_prefix:
                bucket = buckets[prefix]
                del bucket[subscriber]
                if not bucket:
                    del buckets[prefix]
            if not buckets:
                del self._buckets[ref]

    def overlapping(self, writes: Sequence[Write]) -> dict[S, None]:
        """The subscribers whose read set ``writes`` touches, in a stable order."""
        found: dict[S, None] = {}
        if not self._buckets:
            return found
        for bucket, key in touched(self._buckets, writes):
            for subscriber, spans in bucket.items():
                for lo, hi in spans:
                    if lo <= key < hi:
                        found[subscriber] = None
                        break
        return found

    def check_invariants(self) -> None:
        """Raise AssertionError when buckets and read sets disagree. For simulations."""
        seen = {
            (subscriber, ref, prefix)
            for ref, buckets in self._buckets.items()
            for prefix, bucket in buckets.items()
            for subscriber in bucket
        }
        expected = {(s, ref, prefix) for s, reads in self._read_sets.items() for ref, by in reads.spans.items() for prefix in by}
        assert seen == expected, "buckets and read sets disagree"


def _same_places(one: ReadSet, other: ReadSet) -> bool:
    """Whether two read sets have spans under the same prefixes, as those of two runs of a query mostly have."""
    if one.spans.keys() != other.spans.keys():
        return False
    return all(by_prefix.keys() == other.spans[ref].keys() for ref, by_prefix in one.spans.items())
