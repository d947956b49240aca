"""Crons: functions that are called again and again, declared in ``crons.py``."""

from __future__ import annotations

import logging
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, overload
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from reactor.errors import CodeError, ReactorError
from reactor.functions.function import Action, Function, Mutation
from reactor.schema.system import CronJob, ScheduledFunction, ScheduledState

if TYPE_CHECKING:
    from reactor.functions.database import Writer

__all__ = ["Clock", "Cron", "Crons", "Interval", "Spec", "parse_spec", "proceed"]

P = ParamSpec("P")

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9 _'\-]{1,64}\Z")
_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
#: Runs that have ended of which the documents are kept, of each cron.
_KEPT_RUNS = 5


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so many seconds, exact multiples from the first run."""

    seconds: int

    def __str__(self) -> str:
        return f"every {self.seconds} s"

    def first(self, now_ms: float) -> float:
        """When it runs first, if it was declared now: at once."""
        return now_ms

    def next(self, after_ms: float, first_ms: float) -> float:
        """When it runs next, after ``after_ms``."""
        step_ms = self.seconds * 1000.0
        return first_ms + (math.floor((after_ms - first_ms) / step_ms) + 1) * step_ms


@dataclass(frozen=True, slots=True)
class Clock:
    """By a clock on the wall: the five fields of cron, in a time zone.

    Where clocks go forward, a time that does not exist is the first one that does; where they go back, a time that exists twice
    is its first. Specs with ``*`` as their hour or minute follow the time that passes instead.
    """

    expression: str
    timezone: str = "UTC"

    def __str__(self) -> str:
        return f"{self.expression} {self.timezone}"

    def first(self, now_ms: float) -> float:
        """When it runs first, if it was declared now."""
        return self.next(now_ms, now_ms)

    def next(self, after_ms: float, first_ms: float) -> float:
        """When it runs next, after ``after_ms``."""
        zone = UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)
        after = datetime.fromtimestamp(math.floor(after_ms / 1000), zone)
        for time in CronSim(self.expression, after):
            time_ms = time.timestamp() * 1000
            # In an hour that the clock shows twice the next time may be one of its first showing, which has passed.
            if time_ms > after_ms:
                return time_ms
        raise CodeError(f"{self} never comes.", code="InvalidCron")


Spec: TypeAlias = Interval | Clock


@lru_cache(maxsize=1024)
def parse_spec(text: str) -> Spec:
    """The spec with this text."""
    if text.startswith("every "):
        return Interval(int(text.split()[1]))
    expression, _, timezone = text.rpartition(" ")
    return Clock(expression, timezone)


@dataclass(frozen=True, slots=True)
class Cron:
    """One cron as it was declared.

    Attributes:
        path: of its function; once the app is loaded its canonical one.
        args: JSON text of the arguments; empty before.
    """

    name: str
    spec: Spec
    function: Function[..., Any] | str
    positional: tuple[Any, ...]
    keywords: Mapping[str, Any]
    path: str = ""
    args: bytes = b""

    def found(self, find: Callable[[str], Function[..., Any]]) -> Cron:
        """The same, with its function found and its arguments checked.

        Args:
            find: gives the function at a path.

        Raises:
            CodeError: it cannot be called so; names the cron.
        """
        try:
            function = find(self.function if isinstance(self.function, str) else self.function.path)
            if function.kind == "query":
                raise CodeError(f"{function.path} is a query; a cron calls a mutation or an action.")
            text = function.args.to_json(function.by_name(self.positional, self.keywords))
            function.args.load(text, None)  # ids are of tables that may not have their numbers yet
        except ReactorError as error:
            raise CodeError(f"Cron {self.name!r}: {error}", code=error.code) from None
        return replace(self, path=function.path, args=text)


class Crons:
    """The crons of an app: ``crons = Crons()`` in ``app_functions/crons.py``.

    A cron calls a mutation or action with nobody's identity: mutations exactly once for each time, actions at most once. It never
    overlaps itself: times that come while it runs, or while no server does, are skipped, but for one run that was due.
    Saving the file changes what runs: a cron whose times stay the same keeps its next run.

    Raises, on each declaration:
        CodeError: the name is taken or none, or the times are none.
    """

    def __init__(self) -> None:
        self._crons: dict[str, Cron] = {}

    def __iter__(self) -> Iterator[Cron]:
        return iter(self._crons.values())

    @overload
    def interval(
        self, name: str, every: timedelta, function: Mutation[P, Any] | Action[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    def interval(self, name: str, every: timedelta, function: str, /, **kwargs: Any) -> None: ...
    def interval(self, name: str, every: timedelta, function: Any, /, *args: Any, **kwargs: Any) -> None:
        """Call ``function`` at once when this is first served, and then again and again.

        Args:
            every: whole seconds.
        """
        if not isinstance(every, timedelta):
            raise _wrong(name, f"takes a timedelta, not {type(every).__name__}. Write: timedelta(minutes=…)")
        if every < timedelta(seconds=1) or every % timedelta(seconds=1):
            raise _wrong(name, f"takes a whole number of seconds from 1 up, not {every}")
        self._add(name, Interval(every // timedelta(seconds=1)), function, args, kwargs)

    @overload
    def cron(self, name: str, spec: str, function: Mutation[P, Any] | Action[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def cron(
        self, name: str, spec: str, function: Mutation[..., Any] | Action[..., Any] | str, /, *, timezone: str = "UTC", **kwargs: Any
    ) -> None: ...
    def cron(self, name: str, spec: str, function: Any, /, *args: Any, **kwargs: Any) -> None:
        """Call ``function`` by a cron spec.

        Args:
            spec: minute, hour, day of the month, month, day of the week, with names, lists, ranges and steps: ``"0 8 * * MON-FRI"``.
            timezone: a name such as ``"Europe/Berlin"``; an argument of the function's that has this name is given by position.
        """
        timezone = kwargs.pop("timezone", "UTC")
        self._add(name, _clock(name, spec, timezone), function, args, kwargs)

    def hourly(
        self,
        name: str,
        function: Mutation[..., Any] | Action[..., Any] | str,
        /,
        *args: Any,
        minute_utc: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Call ``function`` every hour.

        Args:
            minute_utc: 0–59; None for one that follows from the name, so that crons spread over the hour.
        """
        self._add(name, _clock(name, f"{_minute(name, minute_utc)} * * * *"), function, args, kwargs)

    def daily(
        self,
        name: str,
        function: Mutation[..., Any] | Action[..., Any] | str,
        /,
        *args: Any,
        hour_utc: int,
        minute_utc: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Call ``function`` every day.

        Args:
            hour_utc: 0–23.
            minute_utc: as of ``hourly``.
        """
        self._add(name, _clock(name, f"{_minute(name, minute_utc)} {_hour(name, hour_utc)} * * *"), function, args, kwargs)

    def weekly(
        self,
        name: str,
        function: Mutation[..., Any] | Action[..., Any] | str,
        /,
        *args: Any,
        day_of_week: str,
        hour_utc: int,
        minute_utc: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Call ``function`` every week.

        Args:
            day_of_week: ``"monday"`` and so on.
            hour_utc, minute_utc: as of ``daily``.
        """
        day = day_of_week.lower() if isinstance(day_of_week, str) else day_of_week
        if day not in _DAYS:
            raise _wrong(name, f"takes as day_of_week one of {', '.join(_DAYS)}, not {day_of_week!r}")
        expression = f"{_minute(name, minute_utc)} {_hour(name, hour_utc)} * * {_DAYS.index(day)}"
        self._add(name, _clock(name, expression), function, args, kwargs)

    def monthly(
        self,
        name: str,
        function: Mutation[..., Any] | Action[..., Any] | str,
        /,
        *args: Any,
        day: int,
        hour_utc: int,
        minute_utc: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Call ``function`` every month that has this day.

        Args:
            day: 1–31.
            hour_utc, minute_utc: as of ``daily``.
        """
        expression = f"{_minute(name, minute_utc)} {_hour(name, hour_utc)} {_number(name, 'day', day, 1, 31)} * *"
        self._add(name, _clock(name, expression), function, args, kwargs)

    def _add(self, name: str, spec: Spec, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        if not isinstance(name, str) or not _NAME.match(name):
            raise CodeError(f"The name of a cron is 1 to 64 of A-Z a-z 0-9 _ - ' and spaces, not {name!r}.", code="InvalidCron")
        if name in self._crons:
            raise CodeError(f"There are two crons named {name!r}. Rename one.", code="InvalidCron")
        if not isinstance(function, Mutation | Action | str):
            raise _wrong(name, f"takes a mutation, an action or a path, not {function!r}")
        self._crons[name] = Cron(name, spec, function, args, kwargs)


def _wrong(name: str, why: str) -> CodeError:
    return CodeError(f"Cron {name!r} {why}.", code="InvalidCron")


def _clock(name: str, spec: str, timezone: str = "UTC") -> Clock:
    if not isinstance(spec, str) or len(spec.split()) != 5:
        raise _wrong(name, f"takes five fields (minute, hour, day of the month, month, day of the week), not {spec!r}")
    try:
        ZoneInfo(timezone)
    except (OSError, ValueError, TypeError, KeyError):
        raise _wrong(name, f'takes a time zone such as "Europe/Berlin", not {timezone!r}') from None
    clock = Clock(" ".join(spec.split()), timezone)
    try:
        clock.first(0.0)
    except CronSimError as error:
        raise _wrong(name, f"has the spec {spec!r}, which is none ({error})") from None
    except CodeError:
        raise _wrong(name, f"has the spec {spec!r}, which never comes") from None
    return clock


def _minute(name: str, minute: int | None) -> int:
    return zlib.crc32(str(name).encode()) % 60 if minute is None else _number(name, "minute_utc", minute, 0, 59)


def _hour(name: str, hour: int) -> int:
    return _number(name, "hour_utc", hour, 0, 23)


def _number(name: str, what: str, value: int, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _wrong(name, f"takes as {what} a number from {low} to {high}, not {value!r}")
    return value


async def proceed(db: Writer, now_ms: float, job: ScheduledFunction) -> None:
    """Schedule the next run of a cron, if ``job`` was a run of one, in the transaction that ends it.

    That there is a next run only once this one has ended is why a cron never overlaps itself, on however many nodes.
    """
    cron = await db.query(CronJob.by_job(job=job.id)).first()
    if cron is None:
        return
    spec = parse_spec(cron.spec)
    following_ms = spec.next(job.scheduled_time, cron.first_run)
    # One that is due this very moment is not missed.
    next_ms = max(following_ms, spec.next(now_ms - 1, cron.first_run))
    if next_ms > following_ms:
        _log.warning("Cron %r skips its runs from %s to %s", cron.name, _shown(following_ms), _shown(next_ms))
    next_job = await db.insert(
        ScheduledFunction(name=cron.function, args=cron.args, scheduled_time=next_ms, state=ScheduledState(kind="pending"))
    )
    runs = [*cron.runs, job.id]
    for id in runs[:-_KEPT_RUNS]:
        if await db.get(ScheduledFunction, id) is not None:
            await db.delete(id)
    await db.patch(cron.id, job=next_job, next_run=next_ms, last_run=job.scheduled_time, runs=runs[-_KEPT_RUNS:])


def _shown(time_ms: float) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(" ", "seconds")
