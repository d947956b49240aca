"""How many examples of what varies a test takes."""

from __future__ import annotations

import os

__all__ = ["LONG", "examples"]

#: ``REACTOR_TEST_LONG=1`` is for a machine with time: it finds what only a rare moment shows.
LONG = bool(os.environ.get("REACTOR_TEST_LONG"))


def examples(short: int, long: int = 2000) -> int:
    return long if LONG else short
