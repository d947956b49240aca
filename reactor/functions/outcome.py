"""What a run gives: its value or its error, encoded once for all who get it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from reactor.engine.store import Ts
from reactor.engine.transaction import Usage
from reactor.errors import AppError, CursorError, ReactorError, ValueFormatError
from reactor.functions.function import Kind
from reactor.values import codec

if TYPE_CHECKING:
    from reactor.functions.calls import Invocation

__all__ = ["ErrorReport", "Outcome", "RunRecord", "report"]


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """A failure as its caller sees it.

    Attributes:
        message: the complete text, with the request's id.
        body: the text without it: what tells two failures apart.
        data: JSON text of an application error's data; None where there is none.
        code: the error's stable name.
        exception: what was raised, for callers in this process.
    """

    message: str
    body: str
    data: bytes | None
    code: str
    exception: Exception


class Outcome(Struct, frozen=True):
    """What one run gave, shared between all who watch the query.

    Attributes:
        value: JSON text of the result; ``null`` after a failure.
        log_lines: what the caller may see of them.
        journal, identity_used, joinable, lasting: see ``reactor.engine.live_query.Outcome``.
        ts: of the snapshot, or of the commit.
    """

    ok: bool
    value: bytes
    error: ErrorReport | None
    log_lines: tuple[str, ...] = ()
    journal: str | None = None
    identity_used: bool = False
    joinable: bool = True
    lasting: bool = True
    ts: Ts = Ts(0)

    @classmethod
    def success(cls, value: bytes, log_lines: tuple[str, ...], invocation: Invocation) -> Outcome:
        """A query's result."""
        pager = invocation.pager
        run = invocation.run
        small = len(value) + len(run.args) <= run.limits.result_cached_bytes
        lasting = small and pager.journal is None and not run.clock_read and not run.random_used
        return cls(True, value, None, log_lines, pager.journal, invocation.identity_used, pager.joinable, lasting)

    @classmethod
    def failure(cls, error: ErrorReport, log_lines: tuple[str, ...], invocation: Invocation | None) -> Outcome:
        """A failed run. It depends on what it looked at like a result does."""
        if invocation is None:
            return cls(False, b"null", error, log_lines, lasting=False)
        return cls(False, b"null", error, log_lines, invocation.pager.journal, invocation.identity_used, lasting=False)

    def at(self, ts: Ts) -> Outcome:
        """The same, as of ``ts``."""
        return self if self.ts == ts else structs.replace(self, ts=ts)

    def same_as(self, other: Outcome) -> bool:
        """Whether a client could not tell the two apart but by the request's id in an error's text."""
        if self.value != other.value or self.log_lines != other.log_lines:
            return False
        mine, theirs = self.error, other.error
        if mine is None or theirs is None:
            return mine is theirs
        return mine.body == theirs.body and mine.data == theirs.data


class RunRecord(Struct, frozen=True):
    """One run, with all that it called in its transaction, for logs."""

    time_ns: int  # when it ended
    request_id: str
    path: str
    kind: Kind
    ok: bool
    duration_s: float
    error: ErrorReport | None
    log_lines: tuple[str, ...]
    usage: Usage | None  # of the last attempt; None: it had no transaction of its own, as an action
    attempts: int  # more than one: it conflicted; 0: nothing ran
    origin: str
    cached: bool = False  # an earlier run's result that still held: nothing ran


def report(error: Exception, request_id: str, folder: Path, *, redact: bool, limit_chars: int) -> ErrorReport:
    """How a caller is told of ``error``.

    Args:
        folder: of the app: frames of its code are shown, others are not.
        redact: tell nothing but the data of application errors.
        limit_chars: of the message.
    """
    data: bytes | None = None
    if isinstance(error, CursorError):
        data = codec.to_json(CursorError.DATA)
    elif isinstance(error, AppError):
        try:
            data = codec.to_json(error.data)
        except ValueFormatError as reason:
            error = ReactorError(f"AppError was raised with data that is not a value: {reason}", code="InvalidErrorData")
    code = error.code if isinstance(error, ReactorError) else "FunctionError"
    body = "Server Error"
    if not redact:
        name = "AppError" if isinstance(error, AppError) else type(error).__name__
        body = f"Server Error\nUncaught {name}: {error}{_trace(error, folder)}"[:limit_chars]
    return ErrorReport(f"[Request ID: {request_id}] {body}", body, data, code, error)


def _trace(error: BaseException, folder: Path) -> str:
    """Where in the app's code it was raised, innermost first; of a group, its members too."""
    lines = []
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(folder) and not {"site-packages", ".venv"} & set(path.parts):
            lines.append(f"\n    at {frame.name} ({path.relative_to(folder)}:{frame.lineno})")
    if isinstance(error, BaseExceptionGroup):
        lines += [f"\n{type(member).__name__}: {member}{_trace(member, folder)}" for member in error.exceptions]
    return "".join(lines)
