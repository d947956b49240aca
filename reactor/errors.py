"""Every error reactor raises, in one tree.

::

    ReactorError
    ├── AppError                 raised by functions on purpose; its data reaches the client
    │   └── AccessDenied         a rule of the app forbids a write
    ├── ArgumentError            arguments that do not fit a function's signature
    ├── ReturnsError             a result that does not fit a function's return annotation
    ├── ValueFormatError         something that is not a value of the wire (semantics: values)
    ├── IdError                  a text that is not an id, or an id of another table
    ├── SchemaError              a schema that cannot be used, or a document that does not fit it
    ├── DocumentNotFound         patch, replace or delete of a document that is not there
    ├── IndexRangeError          an index called with bounds that are not a range of it
    ├── QueryError               a query used in a way that has no meaning (unique with two, a filter's non-bool, ...)
    ├── CursorError              a page cursor or journal that cannot be used (``InvalidCursor``)
    ├── LimitExceeded            a documented limit was met (``reactor.limits``)
    ├── FunctionNotFound         no such public function
    ├── WrongFunctionKind        a query called as a mutation, ...
    ├── FunctionTimeout          a query or mutation computed past its limit
    ├── NonDeterministicError    network, file or process access from a query or mutation
    ├── ScheduleError            a call of ctx.scheduler that cannot be
    ├── WriteConflict            other commits kept changing what a mutation read
    ├── AuthenticationError      no identity where one is required, or a credential that does not verify
    ├── ProtocolError            a peer broke the sync protocol
    ├── RemoteError              to a client: a function failed on the server, by anything but an AppError
    ├── ConnectionLost           to a client: the connection went away under a call that cannot be sent again
    ├── FileError                a file that is not there, or could not be stored as it came
    ├── EnvironmentVariableError one is not set, cannot be, or does not fit what the app declares
    ├── CodeError                the app's code does not load; names file and line
    └── StoreError               the database cannot be used
        ├── StoreLocked          another process has the database open
        ├── StoreCorrupt         the file is not a database, or damaged
        ├── StoreTooNew          written by a later reactor
        ├── StoreReadOnly        the place cannot be written to
        ├── StoreFull            no space left; nothing was written
        ├── StoreUnavailable     the database does not answer; it is tried again
        └── SchemaOutdated       another node has pushed another schema; this one writes no more

Each has a stable ``code``, which is what logs, metrics and HTTP answers carry. Messages say what was
found, what was expected and what to do; they are written once, here or where they are raised, and are
the same in the terminal and in the client (outside production, where only ``AppError`` data is shown).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

__all__ = [
    "AccessDenied",
    "AppError",
    "ArgumentError",
    "AuthenticationError",
    "CodeError",
    "ConnectionLost",
    "CursorError",
    "DocumentNotFound",
    "EnvironmentVariableError",
    "FileError",
    "FunctionNotFound",
    "FunctionTimeout",
    "IdError",
    "IndexRangeError",
    "LimitExceeded",
    "NonDeterministicError",
    "ProtocolError",
    "QueryError",
    "ReactorError",
    "RemoteError",
    "ReturnsError",
    "ScheduleError",
    "SchemaError",
    "SchemaOutdated",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreReadOnly",
    "StoreTooNew",
    "StoreUnavailable",
    "ValueFormatError",
    "WriteConflict",
    "WrongFunctionKind",
    "place",
]


class ReactorError(Exception):
    """Base of every error that reactor raises.

    Args:
        message: what was found, what was expected, what to do.
        code: a stable name more exact than the class's own, where there is one.
    """

    code: str = "InternalServerError"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    @property
    def message(self) -> str:
        return str(self.args[0])


class AppError(ReactorError):
    """An error of the application, meant for the caller.

    Args:
        data: any value of the wire; it reaches clients, calling functions and the HTTP API intact, in
            development and in production.
    """

    code = "AppError"

    def __init__(self, data: Any = None) -> None:
        super().__init__(data if isinstance(data, str) else repr(data))
        self.data = data


class AccessDenied(AppError):
    """A rule of the app does not allow a write. Nothing was written by it.

    Args:
        operation: ``insert`` or ``modify``.
        table: of the document.

    Its data is ``{"code": "AccessDenied", "operation", "table"}``.
    """

    code = "AccessDenied"

    def __init__(self, operation: str, table: str) -> None:
        super().__init__({"code": self.code, "operation": operation, "table": table})


class ArgumentError(ReactorError):
    """Arguments do not fit the signature of the function they were sent to. The function did not run."""

    code = "ArgumentValidationError"


class ReturnsError(ReactorError):
    """A function's result does not fit its return annotation. Nothing was written."""

    code = "ReturnsValidationError"


class ValueFormatError(ReactorError):
    """Something is not a value that can be stored or sent.

    Args:
        message: the reason, without the path.
        path: where inside the value, such as ``.items[3].price``; empty for the value itself.
    """

    code = "InvalidValue"

    def __init__(self, message: str, *, path: str = "", code: str | None = None) -> None:
        super().__init__(f"{message} (at {path})" if path else message, code=code)
        self.reason = message
        self.path = path


class IdError(ReactorError):
    """A text is not an id, or is an id of another table than the one expected."""

    code = "InvalidArgument"


class SchemaError(ReactorError):
    """A schema that cannot be used, or a document that does not fit its table."""

    code = "SchemaEnforcementError"


class DocumentNotFound(ReactorError):
    """The document to change is not there (it never was, or was deleted)."""

    code = "NonexistentDocument"


class IndexRangeError(ReactorError):
    """An index was called with something that is not a range of it."""

    code = "InvalidIndexRange"


class QueryError(ReactorError):
    """A query was used in a way that has no meaning."""

    code = "InvalidQuery"


class CursorError(ReactorError):
    """A page cursor or journal cannot be read, or belongs to another query. Clients restart at page one."""

    code = "InvalidCursor"

    #: What clients that look at the error's data expect, also in production (wire: pagination).
    DATA: ClassVar[dict[str, Any]] = {"isConvexSystemError": True, "paginationError": "InvalidCursor"}


class LimitExceeded(ReactorError):
    """A documented limit was met. ``code`` names which; see ``reactor.limits``."""

    code = "LimitExceeded"


class FunctionNotFound(ReactorError):
    """No such public function. Internal functions give the same text, so that they are not disclosed."""

    code = "FunctionNotFound"


class WrongFunctionKind(ReactorError):
    """A function was called as a kind that it is not."""

    code = "InvalidFunctionCall"


class FunctionTimeout(ReactorError):
    """A query or mutation computed longer than its limit and was interrupted. Nothing was written."""

    code = "FunctionTimeout"


class NonDeterministicError(ReactorError):
    """A query or mutation reached for the network, a file or a process. Do that in an action."""

    code = "NonDeterministicError"


class ScheduleError(ReactorError):
    """A function cannot be scheduled for this time, or cannot cancel itself."""

    code = "InvalidScheduledFunction"


class WriteConflict(ReactorError):
    """Other commits changed what a mutation had read, at every one of its attempts. Nothing was written."""

    code = "OptimisticConcurrencyControlFailure"


class AuthenticationError(ReactorError):
    """There is no identity where one is required, or a credential does not verify."""

    code = "Unauthenticated"


class ProtocolError(ReactorError):
    """The peer broke the sync protocol; the connection cannot go on."""

    code = "ProtocolError"


class RemoteError(ReactorError):
    """A function failed on the server, by anything but an ``AppError``. In production the text names the request only."""

    code = "RemoteError"


class ConnectionLost(ReactorError):
    """The connection went away, or was closed, under a call. The call may have had its effect."""

    code = "ConnectionLost"


class FileError(ReactorError):
    """A file is not there, or its content was not what was announced. Nothing was stored."""

    code = "FileNotFound"


class EnvironmentVariableError(ReactorError):
    """An environment variable is not set, cannot be set so, or does not fit the settings that the app declares."""

    code = "InvalidEnvironmentVariable"


class CodeError(ReactorError):
    """The app's code does not load. The message names file and line."""

    code = "InvalidModules"


class StoreError(ReactorError):
    """The database cannot be used."""

    code = "StoreError"


class StoreLocked(StoreError):
    """Another process has the database open."""


class StoreCorrupt(StoreError):
    """The file is not a database of reactor's, or it is damaged."""


class StoreTooNew(StoreError):
    """The database was written by a later version of reactor."""


class StoreReadOnly(StoreError):
    """The database, or its folder, cannot be written to."""


class StoreFull(StoreError):
    """There is no space left on the disk. Nothing of the group of commits was written."""


class StoreUnavailable(StoreError):
    """The database does not answer. Unless the message says otherwise, nothing was written; the same may succeed when it is tried again."""

    code = "StoreUnavailable"


class SchemaOutdated(StoreError):
    """The database has another schema than this node, pushed by another node. Nothing was written."""

    code = "SchemaOutdated"


def place(file: str | None, line: int) -> str:
    """A place in code as messages name it: relative to the current folder if it is inside."""
    path = Path(file or "?")
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown}:{line}"
