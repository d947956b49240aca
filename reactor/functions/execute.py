"""Running a user's coroutine under its guards.

``execute`` drives the coroutine itself: around each step it tells the watchdog, the frozen clock, the guard against the outside
world and the captured output that this run's code is executing. That costs about a microsecond, and no task.
"""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from msgspec import Struct

from reactor.errors import FunctionTimeout, ReactorError
from reactor.functions.output import log
from reactor.functions.run import Run, current_run
from reactor.functions.watchdog import Interrupt, slot_of_this_thread

__all__ = ["execute", "prepare_loop"]

T = TypeVar("T")

#: How often a coroutine whose run is over may swallow its interruption.
_INSIST = 8


async def execute(run: Run, coro: Coroutine[Any, Any, T]) -> T:
    """Run ``coro`` to its end under ``run``. Tasks that it started and did not await are cancelled.

    Raises:
        FunctionTimeout: it computed, or waited, past its limits.
        NonDeterministicError: a query or mutation reached for the outside world.
        ReactorError: it raised what is no ``Exception`` and would end more than it, such as ``SystemExit``.
        Whatever the coroutine raises.

    Cancelling it cancels the coroutine.
    """
    try:
        if run.kind == "action":
            return await _limited(run, coro)
        result = await _steps(run, coro)
        if run.timed_out:
            raise _computed_too_long(run)
        return result
    except (Interrupt, asyncio.CancelledError) as error:
        if run.timed_out:
            raise _computed_too_long(run) from None
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and (task is None or not task.cancelling()):
            raise _escaped(run, error) from error  # something that it awaited was cancelled, and not the run
        raise
    finally:
        if run.unfinished_line:
            log(run, "LOG", f"'{run.unfinished_line}'")
            run.unfinished_line = ""
        if run.tasks:
            await _end_tasks(run, run.tasks)
        run.transaction = None  # the run is remembered until it is logged, which must not keep all that it read


def prepare_loop() -> None:
    """Have tasks that functions start on the running loop be steps of their runs."""
    asyncio.get_running_loop().set_task_factory(_factory)


def _escaped(run: Run, error: BaseException) -> ReactorError:
    """What the caller is told when a function raised what is no ``Exception``: let through, it would end the server, or nobody's wait."""
    text = f": {error}" if str(error) else ""
    return ReactorError(
        f"{run.path} raised {type(error).__name__}{text}, which ends a program or a task and not a function. Return, or raise AppError.",
        code="FunctionError",
    ).with_traceback(error.__traceback__)


async def _limited(run: Run, coro: Coroutine[Any, Any, T]) -> T:
    try:
        async with asyncio.timeout(run.limits.action_time_s) as timeout:
            return await _steps(run, coro)
    except TimeoutError:
        if timeout.expired():
            raise FunctionTimeout(
                f"Function execution timed out (maximum duration: {run.limits.action_time_s:g}s): {run.path}. Split it into several."
            ) from None
        raise


def _computed_too_long(run: Run) -> FunctionTimeout:
    limits = run.limits
    if run.computed_s >= limits.function_time_s or run.computed_s > limits.function_wait_s / 2:
        return FunctionTimeout(
            f"Function execution timed out (maximum duration: {limits.function_time_s:g}s): {run.path}. "
            "Read less, or move the computation to an action."
        )
    return FunctionTimeout(
        f"Function execution timed out (waited {limits.function_wait_s:g}s): {run.path} waits for something that does not come. "
        "Await only ctx calls in a query or mutation."
    )


@types.coroutine
def _steps(run: Run, coro: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Run ``coro`` step by step under ``run``."""
    slot = slot_of_this_thread()
    patience: _Patience | None = None  # needed from the first wait on
    sent: Any = None
    error: BaseException | None = None
    try:
        while True:
            outer, outer_started = slot.run, slot.started
            token = current_run.set(run)
            slot.begin(run)
            try:
                waited = coro.send(sent) if error is None else coro.throw(error)
            except StopIteration as stop:
                result: T = stop.value
                return result
            except (Exception, Interrupt, asyncio.CancelledError):
                raise
            except BaseException as left:
                raise _escaped(run, left) from left
            finally:
                slot.end(run, outer, outer_started)
                current_run.reset(token)
            sent = error = None
            if run.kind != "action":
                if patience is None:
                    patience = _Patience(run)
                if run.ended or run.over_limit:
                    patience.insist(coro)
                    error = Interrupt()
                    continue
                patience.wait(waited)
            try:
                sent = yield waited
            except GeneratorExit:
                coro.close()
                raise
            except BaseException as thrown:
                error = thrown
    finally:
        if patience is not None:
            patience.end()


class _Patience(Struct, eq=False):
    """With a query or mutation that waits: for what must come from the database, and soon."""

    _run: Run
    _waited: Any = None
    _insisted: int = 0
    _timer: asyncio.TimerHandle | None = None

    def insist(self, coro: Coroutine[Any, Any, Any]) -> None:
        """The run is over and the coroutine goes on to wait: it is to be interrupted, and given up if it swallows that again and again."""
        self._insisted += 1
        if self._insisted > _INSIST:
            _close(coro)
            raise Interrupt

    def wait(self, waited: Any) -> None:
        """It waits for something, or for something else."""
        self._waited = waited
        if self._timer is None:
            # In two halves: when the whole process was stopped for a while, both are over at once, and what it waits
            # for may have come meanwhile. The second begins only when that was looked for.
            self._timer = asyncio.get_running_loop().call_later(self._run.limits.function_wait_s / 2, self._lose_patience)

    def end(self) -> None:
        """It does not wait any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _lose_patience(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._run.limits.function_wait_s / 2, self._give_up)

    def _give_up(self) -> None:
        """The run neither computes nor ends. What it waits for is cancelled, since no task may be its own."""
        transaction = self._run.transaction
        if transaction is not None and transaction.waiting:
            # For the database. Whether that answers is not the function's fault, and the store's patience has an end of its own.
            self._lose_patience()
            return
        self._run.timed_out = True
        if isinstance(self._waited, asyncio.Future):
            self._waited.cancel()


async def _end_tasks(run: Run, tasks: set[asyncio.Task[object]]) -> None:
    """Cancel what the function started and left behind: nothing of it outlives the run."""
    left = [task for task in tasks if not task.done()]
    run.ended = True
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait([asyncio.gather(*left, return_exceptions=True)], timeout=run.limits.function_wait_s)


def _factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
    """Tasks that a function starts, by ``asyncio.gather`` for one, are steps of its run too."""
    run = current_run.get()
    if run is None:
        return asyncio.Task(coro, loop=loop, **kwargs)
    task: asyncio.Task[Any] = asyncio.Task(_part(run, coro), loop=loop, **kwargs)
    tasks = run.tasks = set() if run.tasks is None else run.tasks
    tasks.add(task)

    def ended(task: asyncio.Task[Any]) -> None:
        tasks.discard(task)
        _close(coro)  # it was never begun when the task was cancelled before its first step

    task.add_done_callback(ended)
    return task


def _close(coro: Coroutine[Any, Any, Any]) -> None:
    with contextlib.suppress(RuntimeError):  # it ignores even that
        coro.close()


async def _part(run: Run, coro: Coroutine[Any, Any, T]) -> T:
    try:
        result: T = await _steps(run, coro)
        return result
    except Interrupt:
        raise _computed_too_long(run) from None
