"""Functions to be called later, as documents that commit with the mutation: what ``ctx.scheduler`` does in the transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from reactor.engine.transaction import Transaction, Usage
from reactor.errors import LimitExceeded, ScheduleError, WrongFunctionKind
from reactor.functions.crons import proceed
from reactor.functions.database import Writer
from reactor.functions.function import Function
from reactor.limits import Limits
from reactor.schema.system import ScheduledFunction, ScheduledState
from reactor.values import codec
from reactor.values.ids import Id

__all__ = ["Call", "Scheduled", "cancel", "finish", "schedule", "system_limits", "uncounted"]

#: What the fields of a scheduled function take besides its arguments and its error.
_OWN_BYTES = 4096


@dataclass(slots=True)
class Scheduled:
    """How many functions one call from outside has scheduled."""

    count: int = 0

    def add(self, limits: Limits) -> None:
        """One more.

        Raises:
            LimitExceeded: that is too many.
        """
        if self.count >= limits.functions_scheduled:
            raise LimitExceeded(
                f"A function schedules at most {limits.functions_scheduled} functions. Schedule one that schedules the others.",
                code="TooManyFunctionsScheduled",
            )
        self.count += 1


@dataclass(slots=True, frozen=True)
class Call:
    """A function to be called with arguments: what is scheduled.

    Attributes:
        args: JSON text of the arguments.
    """

    function: Function[..., Any]
    args: bytes

    @classmethod
    def of(cls, function: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], limits: Limits) -> Call:
        """Check what can be checked before the function runs.

        Raises:
            WrongFunctionKind: a query.
            ArgumentError: an argument is not a value.
            LimitExceeded: they are too large.
        """
        if function.kind == "query":
            raise WrongFunctionKind(f"{function.path} is a query, and what is called later is a mutation or an action.")
        text = function.args.to_json(function.by_name(args, kwargs))
        if len(text) > limits.scheduled_arguments_size_bytes:
            raise LimitExceeded(
                f"{function.path} was scheduled with {len(text)} bytes of arguments, at most {limits.scheduled_arguments_size_bytes} fit. "
                "Put them into a document and schedule with its id.",
                code="ScheduledFunctionsArgumentsTooLarge",
            )
        return cls(function, text)


def system_limits(limits: Limits) -> Limits:
    """The limits of scheduled functions as documents."""
    size = limits.scheduled_arguments_size_bytes + 4 * limits.error_message_chars + _OWN_BYTES
    return replace(limits, document_size_bytes=size, document_depth=limits.value_depth)


async def schedule(
    db: Writer, now_ms: float, when: timedelta | datetime, call: Call, parent: str | None, limits: Limits
) -> Id[ScheduledFunction]:
    """Insert a scheduled function.

    Args:
        db: with system documents in reach, and their limits.
        parent: the scheduled function that does this; if it was canceled, so is what it schedules.
    """
    due_ms = now_ms + when / timedelta(milliseconds=1) if isinstance(when, timedelta) else _since_epoch_ms(when)
    horizon_s = limits.scheduling_horizon_s
    if abs(due_ms - now_ms) > horizon_s * 1000:
        raise ScheduleError(
            f"{call.function.path} cannot be scheduled more than {horizon_s / 86_400:g} days from now: "
            f"{'after ' if isinstance(when, timedelta) else 'for '}{when}.",
            code="InvalidScheduledFunctionDelay",
        )
    state = ScheduledState(kind="pending")
    if parent is not None:
        running = await db.get(ScheduledFunction, parent)
        if running is not None and running.state.kind == "canceled":
            state = ScheduledState(kind="canceled")
    args: Any = codec.from_json(call.args)
    ended = now_ms if state.kind == "canceled" else None
    return await db.insert(
        ScheduledFunction(name=call.function.path, args=[args], scheduled_time=due_ms, completed_time=ended, state=state)
    )


def _since_epoch_ms(time: datetime) -> float:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1)


async def cancel(db: Writer, now_ms: float, id: str, caller: str | None) -> None:
    """``Scheduler.cancel``.

    Args:
        db: with system documents in reach, and their limits.
        caller: the scheduled function that does this.
    """
    job = await db.get(ScheduledFunction, id)
    if job is None or job.state.kind not in ("pending", "inProgress"):
        return
    if id == caller and job.state.kind == "pending":
        raise ScheduleError("A scheduled mutation cannot cancel itself. Return, or raise.", code="ScheduledFunctionCancelingItself")
    await finish(db, now_ms, job, "canceled")


async def finish(
    db: Writer, now_ms: float, job: ScheduledFunction, kind: Literal["success", "failed", "canceled"], error: str | None = None
) -> None:
    """Note the end of a scheduled function, in the transaction that ends it. If it was a cron's run, the next one is scheduled.

    Args:
        db: with system documents in reach, and their limits.
    """
    await db.patch(job.id, state=ScheduledState(kind=kind, error=error), completed_time=now_ms)
    # An action that is canceled while it runs goes on: if it is a cron's, the next run waits for it.
    if not (kind == "canceled" and job.state.kind == "inProgress"):
        await proceed(db, now_ms, job)


@contextmanager
def uncounted(tx: Transaction) -> Iterator[None]:
    """What is read and written inside does not count towards the limits. No user code runs meanwhile."""
    usage, tx.usage = tx.usage, Usage()
    try:
        yield
    finally:
        tx.usage = usage
