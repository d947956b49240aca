"""What the runs of each function come to, in plain numbers: how long, how often failed, how often again. For metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reactor.functions.function import Kind
from reactor.histogram import Histogram

__all__ = ["DURATION_S", "OTHER", "UNKNOWN", "FunctionCounts", "RunCounts"]

#: Upper bounds of the buckets, seconds: from what a mutation takes to the longest that an action may.
DURATION_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)

#: Stands for all paths that no function has: what a client makes up must not become a name that is kept.
UNKNOWN = "unknown"

#: Stands for the codes above so many of one function, and for those that are none: an app may raise errors with codes of its own.
OTHER = "other"
CODES = 32
_CODE = re.compile(r"\w{1,64}", re.ASCII)


class FunctionCounts:
    """Of one function.

    Attributes:
        durations: of its runs, in seconds, all attempts of a mutation together.
        errors: how many failed, by the error's code.
        retries: attempts beyond the first.
        cached: how often an earlier run's result was given, and nothing ran.
    """

    __slots__ = ("cached", "durations", "errors", "kind", "retries")

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.durations = Histogram(DURATION_S)
        self.errors: dict[str, int] = {}
        self.retries = 0
        self.cached = 0

    def failed(self, code: str) -> None:
        if code not in self.errors and (len(self.errors) >= CODES or not _CODE.fullmatch(code)):
            code = OTHER
        self.errors[code] = self.errors.get(code, 0) + 1


class RunCounts:
    """Of all functions that ran since the start. As many as the app declares, whatever clients call."""

    __slots__ = ("_declared", "_unknown")

    def __init__(self) -> None:
        self._declared: dict[str, FunctionCounts] = {}
        self._unknown: dict[Kind, FunctionCounts] = {}

    def __iter__(self) -> Iterator[tuple[str, FunctionCounts]]:
        """Path and counts of each function; of all that were called and are not there, ``UNKNOWN``."""
        yield from self._declared.items()
        for counts in self._unknown.values():
            yield UNKNOWN, counts

    def add(self, path: str | None, kind: Kind, duration_s: float, attempts: int, cached: bool, code: str | None) -> None:
        """One run. In one call, since each mutation pays for it.

        Args:
            path: of a declared function; None: there is none.
            code: of its failure.
        """
        counts = self._declared.get(path) if path is not None else self._unknown.get(kind)
        if counts is None:
            counts = FunctionCounts(kind)
            if path is None:
                self._unknown[kind] = counts
            else:
                self._declared[path] = counts
        if cached:
            counts.cached += 1
        else:
            counts.durations.add(duration_s)
        if attempts > 1:
            counts.retries += attempts - 1
        if code is not None:
            counts.failed(code)
