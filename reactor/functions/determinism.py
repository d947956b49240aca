"""What queries and mutations may not see: the clock, randomness, and the world outside the database.

They may run again at any time, so both have to give what the database gives. Two means:

- ``freeze_modules`` gives the modules of an app stand-ins for ``time``, ``datetime``, ``random``, ``uuid``, ``secrets``, ``os`` and
  ``asyncio``, and for what was imported from them, at the top or inside of a function. Inside a query or mutation these follow
  the run; elsewhere they are the real thing. No module but the app's is touched.
- ``guard`` installs one audit hook that refuses network, files, processes and threads there.
"""

from __future__ import annotations

import asyncio
import builtins
import datetime
import os
import random
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Self, TypeVar, cast

from reactor.errors import NonDeterministicError
from reactor.functions.run import Run, deterministic_run

__all__ = ["freeze_modules", "guard"]

T = TypeVar("T")


# --- the guard

_REFUSED = (
    "builtins.input",
    "builtins.breakpoint",
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.putenv",
    "os.unsetenv",
    "os.kill",
    "shutil.",
    "tempfile.",
    "urllib.",
    "http.client.",
    "ftplib.",
    "smtplib.",
    "poplib.",
    "imaplib.",
    "telnetlib.",
    "webbrowser.",
    "sqlite3.",
    "_thread.start_",
    "ctypes.dlopen",
    "pty.spawn",
)
_THREAD = "starting a thread"
_CODE = (".py", ".pyc", ".so", ".pyd")
_INSTALLED = tuple({sys.prefix, sys.base_prefix})
_installed = False


def guard() -> None:
    """Refuse the outside world to queries and mutations, from now on and for the life of the process. Idempotent."""
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_audit)
        if sys.version_info < (3, 12):
            # Starting a thread raises no audit event there; later on it does, and the name below is gone.
            start: Callable[..., Any] = threading._start_new_thread  # type: ignore[attr-defined]
            threading._start_new_thread = _refused(start, _THREAD)  # type: ignore[attr-defined]


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        run = deterministic_run()
        if run is not None and not _allowed_open(*args):
            raise _refusal(run, f"open({args[0]!r})")
    elif event.startswith(_REFUSED):
        run = deterministic_run()
        if run is not None:
            raise _refusal(run, _THREAD if event.startswith("_thread.") else event.removeprefix("builtins."))


def _allowed_open(path: Any, mode: str | None, flags: int) -> bool:
    """Python's own code and data may be read: an import inside a function, or a traceback, does."""
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND) or (mode and set(mode) & set("wax+")):
        return False
    text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
    return text.endswith(_CODE) or text.startswith(_INSTALLED)


def _refusal(run: Run, call: str) -> NonDeterministicError:
    return NonDeterministicError(
        f"{run.path}: {call} is not possible in a {run.kind}, which may run again at any time and sees only the database. Use an action."
    )


# --- stand-ins


#: In the globals of modules whose clocks and randomness are stood in for.
_FROZEN = "__reactor_frozen__"
_import = builtins.__import__
_imports_replaced = False


def freeze_modules(modules: Iterable[ModuleType]) -> None:
    """Replace, in the globals of ``modules``, clocks and randomness by stand-ins that follow the running function.

    What their functions import when they run is stood in for, too.
    """
    global _imports_replaced
    if not _imports_replaced:
        _imports_replaced = True  # once: whoever replaces it after us knows of ours
        builtins.__import__ = _import_stand_in
    for module in modules:
        namespace = vars(module)
        namespace[_FROZEN] = True
        for name, value in list(namespace.items()):
            try:
                stand_in = _STAND_INS.get(id(value))
            except TypeError:
                continue
            if stand_in is not None and stand_in[0] is value:
                namespace[name] = stand_in[1]


def _import_stand_in(
    name: str, globals: Mapping[str, object] | None = None, locals: Mapping[str, object] | None = None, fromlist: Any = (), level: int = 0
) -> ModuleType:
    module = _import(name, globals, locals, fromlist, level)
    if globals is not None and _FROZEN in globals:
        real, stand_in = _STAND_INS.get(id(module), (None, module))
        if real is module:
            return cast(ModuleType, stand_in)
    return module


class _StandIn(ModuleType):
    """A module with some of its functions replaced."""

    def __init__(self, real: ModuleType, replaced: dict[str, Any]) -> None:
        super().__init__(real.__name__, real.__doc__)
        self.__dict__.update(replaced)
        self.__dict__["_real"] = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_real"], name)


def _now_s() -> float:
    run = deterministic_run()
    return time.time() if run is None else run.now_ms / 1000


def _clock(real: Callable[[], Any], frozen: Callable[[Run], Any]) -> Callable[[], Any]:
    def read() -> Any:
        run = deterministic_run()
        return real() if run is None else frozen(run)

    read.__name__ = real.__name__
    return read


def _at_frozen(real: Callable[..., Any], arity: int) -> Callable[..., Any]:
    """A function of ``time`` that takes the current time when its last argument is left out."""

    def convert(*args: Any) -> Any:
        run = deterministic_run()
        if run is None or (len(args) > arity and args[arity] is not None):
            return real(*args)
        seconds = run.now_ms / 1000
        return real(*args[:arity], time.gmtime(seconds) if arity else seconds)

    convert.__name__ = real.__name__
    return convert


def _refused(real: Callable[..., Any], call: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        run = deterministic_run()
        if run is not None:
            raise _refusal(run, call)
        return real(*args, **kwargs)

    refuse.__name__ = real.__name__
    return refuse


class _RealInstances(type):
    """``isinstance`` and ``issubclass`` see the class that is stood in for."""

    _real: type

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls._real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls._real)


class _Date(datetime.date, metaclass=_RealInstances):
    _real = datetime.date

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return datetime.date(*args, **kwargs)

    @classmethod
    def today(cls) -> Any:
        return datetime.date.fromtimestamp(_now_s())


class _Datetime(datetime.datetime, metaclass=_RealInstances):
    _real = datetime.datetime

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return datetime.datetime(*args, **kwargs)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return datetime.datetime.fromtimestamp(_now_s(), tz)

    @classmethod
    def today(cls) -> Any:
        return datetime.datetime.fromtimestamp(_now_s())

    @classmethod
    def utcnow(cls) -> Any:
        return datetime.datetime.fromtimestamp(_now_s(), datetime.UTC).replace(tzinfo=None)


def _seeded(real: Callable[..., Any], method: str) -> Callable[..., Any]:
    def draw(*args: Any, **kwargs: Any) -> Any:
        run = deterministic_run()
        return real(*args, **kwargs) if run is None else getattr(run.random, method)(*args, **kwargs)

    draw.__name__ = method
    return draw


def _uuid(real: Callable[..., uuid.UUID]) -> Callable[..., uuid.UUID]:
    def make(*args: Any, **kwargs: Any) -> uuid.UUID:
        run = deterministic_run()
        return real(*args, **kwargs) if run is None else uuid.UUID(int=run.random.getrandbits(128), version=4)

    make.__name__ = real.__name__
    return make


def _urandom(size: int) -> bytes:
    run = deterministic_run()
    return os.urandom(size) if run is None else run.random.randbytes(size)


async def _sleep(delay: float, result: Any = None) -> Any:
    run = deterministic_run()
    if run is not None and delay > 0:
        raise _refusal(run, "asyncio.sleep")
    return await asyncio.sleep(delay, result)


async def _own_task() -> None:
    """Let a query or mutation go on in a task of its own: its first step runs in none, or in its caller's (``reactor.engine.eager``), which
    is what a scope that is entered there would cancel.
    """
    if deterministic_run() is not None:
        await asyncio.sleep(0)


class _TaskGroup(asyncio.TaskGroup, metaclass=_RealInstances):
    _real = asyncio.TaskGroup

    async def __aenter__(self) -> Self:
        await _own_task()
        return await super().__aenter__()


class _Timeout(asyncio.Timeout, metaclass=_RealInstances):  # type: ignore[misc]
    _real = asyncio.Timeout

    async def __aenter__(self) -> asyncio.Timeout:
        await _own_task()
        return await super().__aenter__()


def _timeout(delay: float | None) -> _Timeout:
    return _Timeout(None if delay is None else asyncio.get_running_loop().time() + delay)


async def _wait_for(fut: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109 - as asyncio has it
    await _own_task()
    return await asyncio.wait_for(fut, timeout)


_TIME = {
    "time": _clock(time.time, lambda run: run.now_ms / 1000),
    "time_ns": _clock(time.time_ns, lambda run: int(run.now_ms * 1e6)),
    "monotonic": _clock(time.monotonic, lambda run: run.now_ms / 1000),
    "monotonic_ns": _clock(time.monotonic_ns, lambda run: int(run.now_ms * 1e6)),
    "perf_counter": _clock(time.perf_counter, lambda run: run.now_ms / 1000),
    "perf_counter_ns": _clock(time.perf_counter_ns, lambda run: int(run.now_ms * 1e6)),
    "gmtime": _at_frozen(time.gmtime, 0),
    "localtime": _at_frozen(time.localtime, 0),
    "ctime": _at_frozen(time.ctime, 0),
    "strftime": _at_frozen(time.strftime, 1),
    "sleep": _refused(time.sleep, "time.sleep"),
}
_DATETIME = {"datetime": _Datetime, "date": _Date}
_RANDOM = {
    name: _seeded(getattr(random, name), name)
    for name in vars(random)
    if not name.startswith("_") and getattr(getattr(random, name), "__self__", None).__class__ is random.Random
}
_UUID = {"uuid1": _uuid(uuid.uuid1), "uuid4": _uuid(uuid.uuid4)}
_SECRETS = {
    name: _refused(getattr(secrets, name), f"secrets.{name}")
    for name in ("choice", "randbelow", "randbits", "token_bytes", "token_hex", "token_urlsafe")
}
_OS = {"urandom": _urandom}
_ASYNCIO = {
    "sleep": _sleep,
    "TaskGroup": _TaskGroup,
    "Timeout": _Timeout,
    "timeout": _timeout,
    "timeout_at": _Timeout,
    "wait_for": _wait_for,
}

#: What is stood in for, by identity: module or function, and its stand-in.
_STAND_INS: dict[int, tuple[Any, Any]] = {}
for _module, _replaced in (
    (time, _TIME),
    (datetime, _DATETIME),
    (random, _RANDOM),
    (uuid, _UUID),
    (secrets, _SECRETS),
    (os, _OS),
    (asyncio, _ASYNCIO),
):
    _STAND_INS[id(_module)] = (_module, _StandIn(_module, _replaced))
    for _name, _new in _replaced.items():
        _old = getattr(_module, _name)
        _STAND_INS[id(_old)] = (_old, _new)
