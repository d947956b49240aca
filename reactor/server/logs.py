"""What the server prints: one line for each run of a function, and what else happens.

For people: time, kind, path, duration, what was read and written, outcome and request, with what the function printed and the
trace of its error below. In production: one JSON object a line. Lines are gathered for a moment and written by a thread, since a
terminal that is held up, or a pipe that nobody reads, must not hold up the event loop. Then lines are dropped, and counted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import orjson

from reactor.errors import AppError, ReactorError

if TYPE_CHECKING:
    from reactor.engine.transaction import Usage
    from reactor.functions.outcome import RunRecord

__all__ = ["Logs", "console_logging"]

GATHER_S = 0.05
GATHER_LINES = 100  # formatted in one turn of the event loop
WAITING_BYTES = 4 * 1024 * 1024  # that the stream has not taken; above it lines are dropped
CLOSE_TIMEOUT_S = 2.0

#: What a terminal would obey, and who calls may have written.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}

_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (0, "info"))


class Logs:
    """Where lines go.

    Args:
        stream: a text stream; colours are used when it is a terminal.
        machine: one JSON object a line, instead of lines for people.
        folder: of the app, whose files are named by their relative path.

    Call ``close`` at the end, so that nothing is lost. Used from the event loop's thread, but for ``say``.
    """

    def __init__(self, stream: TextIO, *, machine: bool, folder: Path | None = None) -> None:
        self._format, self._say = _json_run, _json_message
        if not machine:
            painter = _Painter(stream, folder)
            self._format, self._say = painter.run, painter.message
        self._records: list[RunRecord] = []
        self._flushing: asyncio.TimerHandle | None = None
        self._writer = _Writer(stream)

    def run(self, record: RunRecord) -> None:
        """Show a run. Costs next to nothing now; the line is written a moment later."""
        self._records.append(record)
        if len(self._records) >= GATHER_LINES:
            self.flush()
        elif self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(GATHER_S, self.flush)

    def say(self, text: str, level: str = "info") -> None:
        """Show a message of the server's own, of level ``info``, ``warning`` or ``error``. May be called from any thread."""
        self._writer.put(self._say(text, level))

    def flush(self) -> None:
        """Hand over what was gathered."""
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        if self._records:
            records, self._records = self._records, []
            self._writer.put("".join(map(self._format, records)), len(records))

    def close(self) -> None:
        """Write what is left, for a bounded time."""
        self.flush()
        self._writer.close()


class _Writer:
    """The thread that waits for the stream."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: deque[str] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write, name="reactor-logs", daemon=True)
        self._thread.start()

    def put(self, text: str, lines: int = 1) -> None:
        with self._changed:
            if self._waiting_bytes + len(text) > WAITING_BYTES:
                self._dropped += lines
                return
            self._waiting.append(text)
            self._waiting_bytes += len(text)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _write(self) -> None:
        while (text := self._take()) is not None:
            try:
                self._stream.write(_printable(text, self._stream.encoding))
                self._stream.flush()
            except (OSError, ValueError):
                # Nobody is left to be told, and the server's work does not depend on it.
                with self._changed:
                    self._closed = True
                    self._waiting.clear()
                return

    def _take(self) -> str | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if not self._waiting:
                return None
            text = "".join(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
            if self._dropped:
                text += f"({self._dropped} lines were not shown: the output was not taken fast enough)\n"
                self._dropped = 0
            return text


class _Painter:
    """Lines for people."""

    def __init__(self, stream: TextIO, folder: Path | None) -> None:
        from rich.console import Console

        self._console = Console(file=stream)
        self._folder = folder
        self._dim = self._pen("bright_black")
        self._plain = self._pen("default")
        self._bad = self._pen("bold red")
        self._levels = {"info": self._dim, "warning": self._pen("yellow"), "error": self._bad}
        self._kinds = {"query": self._pen("cyan"), "mutation": self._pen("green"), "action": self._pen("magenta")}
        self._lines = {"[WARN] ": self._levels["warning"], "[ERROR]": self._bad}

    def run(self, record: RunRecord) -> str:
        dim = self._dim
        kind = self._kinds[record.kind]
        clock = time.strftime("%H:%M:%S", time.localtime(record.time_ns / 1e9))
        head = (
            f"{dim[0]}{clock}{dim[1]} {kind[0]}{record.kind:<8}{kind[1]} {_inert(record.path)} {dim[0]}{_duration(record.duration_s)}"
            f"{_usage(record.usage)}{f' after {record.attempts} attempts' if record.attempts > 1 else ''}"
            f"{' cached' if record.cached else ''}{dim[1]}{'' if record.ok else self._failure(record)}"
            f" {dim[0]}[{record.request_id}]{dim[1]}\n"
        )
        return f"{head}{''.join(self._printed(record))}" if record.log_lines or not record.ok else head

    def message(self, text: str, level: str) -> str:
        pen = self._levels[level]
        clock = f"{self._dim[0]}{time.strftime('%H:%M:%S')}{self._dim[1]}"
        return f"{clock} {pen[0]}{text.translate(_CONTROLS)}{pen[1]}\n"

    def _failure(self, record: RunRecord) -> str:
        assert record.error is not None
        exception = record.error.exception
        name = "AppError" if isinstance(exception, AppError) else type(exception).__name__
        return f" {self._bad[0]}{name}: {str(exception).translate(_CONTROLS)}{self._bad[1]}"

    def _printed(self, record: RunRecord) -> Iterator[str]:
        for line in record.log_lines:
            pen = self._lines.get(line[:7], self._plain)
            yield f"         {pen[0]}{line.translate(_CONTROLS)}{pen[1]}\n"
        if record.error is not None and not isinstance(record.error.exception, AppError):
            for line in _trace(record.error.exception, self._folder):
                yield f"         {self._dim[0]}{line}{self._dim[1]}\n"

    def _pen(self, style: str) -> tuple[str, str]:
        """What to write before and after a text."""
        if self._console.color_system is None or self._console.no_color:
            return ("", "")
        with self._console.capture() as captured:
            self._console.print("x", style=style, end="")
        before, _, after = captured.get().partition("x")
        return before, after


def _inert(path: str) -> str:
    """A path as one line."""
    return path if path.isprintable() else path.translate(_CONTROLS).replace("\n", "\\n")


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _usage(usage: Usage | None) -> str:
    if usage is None:
        return ""
    written = f", wrote {usage.documents_written} ({_size(usage.bytes_written)})" if usage.documents_written else ""
    return f" read {usage.documents_read} ({_size(usage.bytes_read)}){written}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes} B" if size_bytes < 1000 else f"{size_bytes / 1000:.1f} kB"


def _trace(exception: BaseException, folder: Path | None) -> Iterator[str]:
    """Where it was raised, innermost first. Of reactor's own frames those are shown that may tell something: an unexpected
    error's, where the app has none.
    """
    frames = traceback.extract_tb(exception.__traceback__)
    own = [frame for frame in frames if folder is not None and Path(frame.filename).is_relative_to(folder)]
    own = [frame for frame in own if "site-packages" not in frame.filename]
    for frame in reversed(own or ([] if isinstance(exception, ReactorError) else frames)):
        path = Path(frame.filename)
        shown = path.relative_to(folder) if folder is not None and path.is_relative_to(folder) else path
        yield f"at {frame.name} ({shown}:{frame.lineno})"


def _json_run(record: RunRecord) -> str:
    line: dict[str, Any] = {
        "time": record.time_ns / 1e9,
        "level": "info" if record.ok else "error",
        "message": "run",
        "request_id": record.request_id,
        "kind": record.kind,
        "path": record.path,
        "origin": record.origin,
        "ok": record.ok,
        "duration_ms": record.duration_s * 1000,
        "attempts": record.attempts,
        "cached": record.cached,
    }
    if record.log_lines:
        line["log_lines"] = record.log_lines
    if record.usage is not None:
        line["usage"] = {
            "documents_read": record.usage.documents_read,
            "bytes_read": record.usage.bytes_read,
            "documents_written": record.usage.documents_written,
            "bytes_written": record.usage.bytes_written,
        }
    if record.error is not None:
        exception = record.error.exception
        line["error"] = {
            "code": record.error.code,
            "text": f"{type(exception).__name__}: {exception}",
            "trace": [] if isinstance(exception, AppError) else list(_trace(exception, None)),
        }
    return _json(line)


def _json_message(text: str, level: str) -> str:
    return _json({"time": time.time(), "level": level, "message": text})


def _json(line: dict[str, Any]) -> str:
    try:
        return orjson.dumps(line).decode() + "\n"
    except orjson.JSONEncodeError:
        # Half a surrogate pair, in what a function printed or raised.
        return json.dumps(line) + "\n"


def _printable(text: str, encoding: str) -> str:
    """The text with what the stream cannot take written as escapes."""
    return text if text.isascii() else text.encode(encoding, "backslashreplace").decode(encoding)


class _Handler(logging.Handler):
    """Shows what libraries, reactor's own modules and the app's code outside of functions log."""

    def __init__(self, logs: Logs) -> None:
        super().__init__(logging.WARNING)
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        level = next(name for least, name in _LEVELS if record.levelno >= least)
        self._logs.say(f"{record.name}: {text}", level)


@contextmanager
def console_logging(logs: Logs) -> Iterator[None]:
    """Inside, warnings and errors of Python's ``logging`` are shown in ``logs``."""
    handler = _Handler(logs)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
