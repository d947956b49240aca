"""What clients saw of appends to lists, and whether one order of transactions explains all of it."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

__all__ = ["History", "Operation"]

Lists = Mapping[str, list[float]]


@dataclass(eq=False)
class Operation:
    """One transaction: it appended ``value`` (None: it only read) to lists that it then saw as ``saw``."""

    value: float | None
    keys: list[str]
    began: float
    ended: float | None = None  # None: nobody was told what became of it
    saw: Lists = field(default_factory=dict)


class History:
    """Transactions as their clients saw them."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def begin(self, value: float | None, keys: list[str]) -> Operation:
        operation = Operation(value, keys, time.monotonic())
        self.operations.append(operation)
        return operation

    def end(self, operation: Operation, saw: Lists) -> None:
        operation.ended = time.monotonic()
        operation.saw = saw

    def check(self, final: Lists) -> None:
        """Raise AssertionError unless the history is strictly serializable, and each acknowledged append is there once.

        The order of each list is the order of its appends. An operation comes after whatever it saw, before whatever it did
        not see of a list that it looked at, and after whatever had ended when it began. One order must satisfy all three.
        """
        appended = {operation.value: operation for operation in self.operations if operation.value is not None}
        for key, values in final.items():
            twice = {value for value, count in Counter(values).items() if count > 1}
            assert not twice, f"list {key} has {twice} twice"
        for operation in appended.values():
            if operation.ended is not None:
                for key in operation.keys:
                    assert operation.value in final[key], f"the append of {operation.value} to {key} was acknowledged and is lost"
        after: dict[Operation, set[Operation]] = {}
        for operation in self.operations:
            if operation.ended is None:
                continue
            for key in operation.keys:
                seen = operation.saw.get(key, [])
                values = final.get(key, [])
                assert seen == values[: len(seen)], f"{key} was seen as {seen[-5:]}, which is no beginning of what it became"
                before = seen[:-1] if operation.value is not None else seen
                if before:
                    after.setdefault(operation, set()).add(appended[before[-1]])
                if len(seen) < len(values):
                    after.setdefault(appended[values[len(seen)]], set()).add(operation)
        for values in final.values():
            for earlier, later in itertools.pairwise(values):
                after.setdefault(appended[later], set()).add(appended[earlier])
        self._add_real_time(after)
        try:
            TopologicalSorter(after).prepare()
        except CycleError as error:
            cycle = [(o.value, o.keys, {k: v[-3:] for k, v in o.saw.items()}, o.began, o.ended) for o in error.args[1]]
            raise AssertionError(f"no order explains {cycle}") from None

    def _add_real_time(self, after: dict[Operation, set[Operation]]) -> None:
        """Each operation after those that had ended when it began, but for what follows from others."""
        ended = sorted((operation for operation in self.operations if operation.ended is not None), key=lambda o: o.ended or 0.0)
        frontier: set[Operation] = set()
        at = 0
        for operation in sorted(self.operations, key=lambda o: o.began):
            while at < len(ended) and (ended[at].ended or 0.0) < operation.began:
                newest = ended[at]
                # What had ended before this one began is before it already.
                frontier = {other for other in frontier if (other.ended or 0.0) >= newest.began} | {newest}
                at += 1
            after.setdefault(operation, set()).update(frontier)
