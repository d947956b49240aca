"""``ctx.scheduler``, as functions see it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, overload

from reactor.errors import ScheduleError

if TYPE_CHECKING:
    from reactor.functions.context import Calls
    from reactor.functions.function import Action, Mutation
    from reactor.schema.system import ScheduledFunction
    from reactor.values.ids import Id

__all__ = ["Scheduler"]

P = ParamSpec("P")


class Scheduler:
    """Has functions called later: mutations exactly once, actions at most once, over restarts and nodes.

    They run with nobody's identity, as the code is when they run. Each is a ``ScheduledFunction``, which tells how far it has
    come; it is kept for 7 days after its end.
    """

    __slots__ = ("_calls",)

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @overload
    async def run_after(
        self, delay: timedelta, function: Mutation[P, Any] | Action[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Id[ScheduledFunction]: ...
    @overload
    async def run_after(self, delay: timedelta, function: str, /, **kwargs: Any) -> Id[ScheduledFunction]: ...
    async def run_after(self, delay: timedelta, function: Any, /, *args: Any, **kwargs: Any) -> Id[ScheduledFunction]:
        """Have ``function``, a mutation or action, called once ``delay`` has passed. In a mutation: if that commits.

        Args:
            delay: from now on; zero means as soon as possible, never before this function has ended.

        Raises:
            ScheduleError: ``delay`` is not a duration of up to five years.
            FunctionNotFound, WrongFunctionKind: there is no such mutation or action.
            ArgumentError: an argument is not a value. Whether they fit is found when the function runs.
            LimitExceeded: too many were scheduled, or the arguments are too large.
        """
        if not isinstance(delay, timedelta):
            raise ScheduleError(
                f"run_after takes a timedelta, not {type(delay).__name__}. Write: timedelta(seconds=…).",
                code="InvalidScheduledFunctionDelay",
            )
        if delay < timedelta(0):
            raise ScheduleError(f"run_after takes a delay that is not negative, not {delay!r}.", code="InvalidScheduledFunctionDelay")
        return await self._calls.schedule(delay, function, args, kwargs)

    @overload
    async def run_at(
        self, time: datetime, function: Mutation[P, Any] | Action[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Id[ScheduledFunction]: ...
    @overload
    async def run_at(self, time: datetime, function: str, /, **kwargs: Any) -> Id[ScheduledFunction]: ...
    async def run_at(self, time: datetime, function: Any, /, *args: Any, **kwargs: Any) -> Id[ScheduledFunction]:
        """Have ``function``, a mutation or action, called at ``time``. In a mutation: if that commits.

        Args:
            time: with its time zone. One that has passed means as soon as possible.

        Raises: as ``run_after``.
        """
        if not isinstance(time, datetime):
            raise ScheduleError(f"run_at takes a datetime, not {type(time).__name__}.", code="InvalidScheduledFunctionDelay")
        if time.utcoffset() is None:
            raise ScheduleError(
                f"run_at takes a datetime with a time zone; {time!r} has none. Write: datetime(…, tzinfo=UTC).",
                code="InvalidScheduledFunctionDelay",
            )
        return await self._calls.schedule(time, function, args, kwargs)

    async def cancel(self, id: Id[ScheduledFunction], /) -> None:
        """See to it that a scheduled function does not run. One that runs goes on, but what it schedules from now on never runs.

        Nothing happens when it has ended, or was canceled, before.

        Raises:
            IdError: not an id, or one of another table.
            ScheduleError: a scheduled mutation cancels itself.
        """
        await self._calls.cancel(id)
