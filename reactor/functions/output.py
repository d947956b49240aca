"""What functions print and log, captured as their log lines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from reactor.functions.run import Run, current_run

__all__ = ["capture_output", "log"]

_LEVELS = ((logging.ERROR, "ERROR"), (logging.WARNING, "WARN"), (logging.INFO, "INFO"), (0, "DEBUG"))


def log(run: Run, level: str, text: str) -> None:
    """Add a line to the run's log, within its limits.

    Args:
        level: LOG, DEBUG, INFO, WARN or ERROR.
    """
    lines, limits = run.log_lines, run.limits
    if len(lines) >= limits.log_lines:
        return
    if len(lines) == limits.log_lines - 1:
        lines.append(f"[WARN] Log overflow: a function logs at most {limits.log_lines} lines; the rest was dropped.")
        return
    if len(text) > limits.log_line_chars:
        text = f"{text[: limits.log_line_chars]} (truncated due to length)"
    lines.append(f"[{level}] {text}")


class _Output:
    """Stands in for ``sys.stdout``: what a function writes becomes log lines, all else goes where it went."""

    def __init__(self, stream: TextIO, level: str) -> None:
        self._stream = stream
        self._level = level

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        run = current_run.get()
        if run is None:
            return self._stream.write(text)
        *lines, run.unfinished_line = (run.unfinished_line + text).split("\n")
        for line in lines:
            log(run, self._level, _quoted(line))
        # One that never ends its line cannot make it grow without bound.
        run.unfinished_line = run.unfinished_line[: run.limits.log_line_chars + 1]
        return len(text)


class _Records(logging.Handler):
    """Takes the log records of functions, with the traceback of what was caught."""

    def emit(self, record: logging.LogRecord) -> None:
        run = current_run.get()
        if run is not None:
            level = next(name for least, name in _LEVELS if record.levelno >= least)
            log(run, level, _quoted(self.format(record)))


class _OutsideRuns(logging.Filter):
    """Keeps functions' records from the handlers that were there before: they are in the run's log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return current_run.get() is None


def _quoted(text: str) -> str:
    return f"'{text}'"


@contextmanager
def capture_output() -> Iterator[None]:
    """Inside, ``print`` and ``logging`` of running functions go to their runs' logs.

    Python leaves out records below WARNING until a level is set. Here they begin at INFO, unless the app has set another.
    """
    stdout, stderr = sys.stdout, sys.stderr
    root = logging.getLogger()
    records = _Records()
    outside = _OutsideRuns()
    handlers = list(root.handlers)
    for handler in handlers:
        handler.addFilter(outside)
    root.addHandler(records)
    level = root.level
    if level == logging.WARNING:
        root.setLevel(logging.INFO)
    sys.stdout = _Output(stdout, "LOG")
    sys.stderr = _Output(stderr, "ERROR")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr
        root.setLevel(level)
        root.removeHandler(records)
        for handler in handlers:
            handler.removeFilter(outside)
