"""Interrupting functions that compute past their limit.

A thread looks every few milliseconds at what each event loop's thread is doing. When one function has computed too long it
sets an exception in that thread. What keeps it from landing anywhere but in that function's code:

- ``Slot.lock`` is held while looking and firing, and at the end of each step of a function: after the step nothing can
  fire for it, and what fired and was not raised yet is taken back.
- It fires only while the innermost frame is not reactor's, nor the event loop's: code that holds half-updated structures.
- It fires again as long as the function goes on, whatever that catches.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from reactor.functions.run import Run

__all__ = ["Interrupt", "Slot", "slot_of_this_thread"]

POLL_S = 0.02
IDLE_S = 2.0  # without a step before the thread goes to sleep
_REACTOR = str(Path(__file__).parent.parent)
_ASYNCIO = str(Path(threading.__file__).parent / "asyncio")


class Interrupt(BaseException):
    """Raised inside a function that computes past its limit; never leaves ``execute``."""


class Slot:
    """What one event loop's thread is running. Written by that thread, read by the watchdog.

    Attributes:
        note: told of each change of the run whose code is executing, for whoever watches from outside of the process.
    """

    __slots__ = ("fired", "lock", "note", "run", "started", "steps", "thread_id")

    def __init__(self, thread_id: int) -> None:
        self.thread_id = thread_id
        self.lock = threading.Lock()
        self.run: Run | None = None
        self.started = 0.0  # of the step, in time.perf_counter() seconds
        self.steps = 0
        self.fired = False
        self.note: Callable[[Run | None], None] | None = None

    def begin(self, run: Run) -> None:
        """A step of ``run`` begins."""
        self.steps += 1
        self.started = time.perf_counter()
        self.run = run
        if self.note is not None:
            self.note(run)
        if _watchdog.asleep:
            _watchdog.wake()

    def end(self, run: Run, outer: Run | None, outer_started: float) -> None:
        """The step ended. Nothing fires for it after this, and nothing that fired is still to come."""
        while True:
            try:
                with self.lock:
                    run.computed_s += time.perf_counter() - self.started
                    self.run = outer
                    self.started = outer_started
                if self.fired:
                    self.fired = False
                    _set_exception(self.thread_id, None)
                if self.note is not None:
                    self.note(outer)
                return
            except Interrupt:
                continue


class _Watchdog:
    """The thread. One for the process, started when the first function runs."""

    def __init__(self) -> None:
        self.asleep = True
        self._wanted = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self.slots: dict[int, Slot] = {}

    def start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="reactor-watchdog", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        self.asleep = False
        self._wanted.set()

    def _watch(self) -> None:
        steps, busy_at = -1, time.perf_counter()
        while True:
            if self.asleep:
                self._wanted.wait()
                self._wanted.clear()
                busy_at = time.perf_counter()
            time.sleep(POLL_S)
            slots = list(self.slots.values())
            for slot in slots:
                if slot.run is not None:
                    self._look(slot)
            now = sum(slot.steps for slot in slots)
            if now != steps or any(slot.run is not None for slot in slots):
                steps, busy_at = now, time.perf_counter()
            elif time.perf_counter() - busy_at > IDLE_S:
                self.asleep = True

    def _look(self, slot: Slot) -> None:
        with slot.lock:
            run = slot.run
            if run is None or run.kind == "action":
                return
            if run.computed_s + time.perf_counter() - slot.started < run.limits.function_time_s:
                return
            frame = sys._current_frames().get(slot.thread_id)
            if frame is None:
                return
            file = frame.f_code.co_filename
            if file.startswith((_REACTOR, _ASYNCIO, "<frozen importlib")):
                return
            run.timed_out = True
            slot.fired = True
            _set_exception(slot.thread_id, Interrupt)


_watchdog = _Watchdog()


def slot_of_this_thread() -> Slot:
    """The slot of the calling thread, watched from now on."""
    thread_id = threading.get_ident()
    slot = _watchdog.slots.get(thread_id)
    if slot is None:
        slot = _watchdog.slots[thread_id] = Slot(thread_id)
        _watchdog.start()
    return slot


def _set_exception(thread_id: int, exception: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(exception) if exception else None)
