"""Running functions for callers outside: arguments in, an outcome out, whatever happens."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, TypeVar

from reactor.blobs.blob_store import BlobStore
from reactor.engine.committer import Answer, Committed
from reactor.engine.engine import Engine
from reactor.engine.runtime import Runtime
from reactor.engine.store import RequestKey, Ts
from reactor.engine.transaction import Transaction, Usage
from reactor.errors import ArgumentError, FunctionNotFound, FunctionTimeout, ReactorError
from reactor.functions.calls import ActionCalls, Invocation, check_depth
from reactor.functions.context import ActionCtx
from reactor.functions.cursors import Cursors
from reactor.functions.database import Reader, Writer, system
from reactor.functions.determinism import guard
from reactor.functions.environment import addresses_of
from reactor.functions.execute import execute, prepare_loop
from reactor.functions.files import Files
from reactor.functions.function import Function, Kind
from reactor.functions.identity import Caller
from reactor.functions.outcome import Outcome, RunRecord, report
from reactor.functions.pages import Pager
from reactor.functions.pending import Pending
from reactor.functions.registry import App, canonical_path
from reactor.functions.run import Run
from reactor.functions.run_counts import RunCounts
from reactor.functions.scheduling import system_limits
from reactor.limits import Limits

__all__ = ["Runner", "Superseded"]


class Superseded(Exception):
    """Raised by what surrounds a mutation in its transaction: the call is not to be made any more. It leaves no trace."""


T = TypeVar("T")


class Runner:
    """Runs the functions of one app on one engine.

    Args:
        secret: of the database; authenticates page cursors and upload URLs.
        blobs: where the content of files is.
        production: errors other than AppError are opaque to clients, and log lines do not reach them.
        on_run: told of every run from outside, for logs.

    Made where its event loop runs. A failed function is an outcome, not an exception. ``app`` is swapped in one step by a push.
    ``addresses``, set by the assembly, is where clients reach the server, as functions find it in their environment. ``refuses``, if
    set, tells of a function's path and arguments whether they made a node hang lately, and may not run. ``counts`` is what the runs
    came to.
    """

    def __init__(
        self,
        engine: Engine,
        app: App,
        *,
        secret: bytes,
        blobs: BlobStore,
        runtime: Runtime,
        limits: Limits,
        production: bool = False,
        on_run: Callable[[RunRecord], None] | None = None,
    ) -> None:
        guard()
        prepare_loop()
        self.engine = engine
        self.app = app
        self.runtime = runtime
        self.limits = limits
        self.production = production
        self.addresses = addresses_of("http://127.0.0.1:3210")
        self.refuses: Callable[[str, bytes], bool] | None = None
        self.cursors = Cursors(secret)
        self.system_limits = system_limits(limits)
        self.files = Files(self, blobs, secret)
        self.pending = Pending(engine, limits.functions_pending)
        self.counts = RunCounts()
        self._on_run = on_run

    # --- queries

    async def query(self, path: str, args: bytes, caller: Caller, *, at: Ts | None = None) -> Outcome:
        """Run a query once, on the newest commit or as of ``at``."""
        return await self._once(path, args, caller, at)

    def live_key(self, path: str, args: bytes, caller: Caller) -> Hashable:
        """What makes two subscriptions the same query, but for the identity. Admins see more, and share with admins."""
        return (_canonical(path), args, caller.admin, self.production)

    def live_run(self, path: str, args: bytes, caller: Caller) -> Callable[[Transaction, str | None], Any]:
        """What runs the subscription's query: for ``LiveQueries.subscribe``. It finds the function anew each time."""

        async def run(tx: Transaction, journal: str | None) -> Outcome:
            return await self._query_in(tx, path, args, caller, journal)

        return run

    async def _once(self, path: str, args: bytes, caller: Caller, at: Ts | None) -> Outcome:
        ran = False
        started = time.perf_counter()

        async def run(tx: Transaction, journal: str | None = None) -> Outcome:
            nonlocal ran
            ran = True
            return await self._query_in(tx, path, args, caller, None)

        try:
            if at is not None:
                past, ts = await self.engine.query(run, at=at)
                return past.at(ts)
            if not self.engine.alone:
                await self.engine.catch_up()
            pin = self.engine.pin()
            try:
                outcome: Outcome = await self.engine.live.once(self.live_key(path, args, caller), caller.identity, run, pin)
            finally:
                pin.release()
        except Exception as error:
            return self._failed(path, caller, error, "query")
        if not ran:
            self._record(path, "query", caller, started, outcome, None, None, cached=True)
        return outcome.at(pin.ts)

    async def _query_in(self, tx: Transaction, path: str, args: bytes, caller: Caller, journal: str | None) -> Outcome:
        started = time.perf_counter()
        invocation: Invocation | None = None
        try:
            function = self.app.registry.find(path, "query", internal=caller.admin)
            invocation = self.invocation(tx, function, args, caller, journal)
            value = await self._value(invocation, function, args)
            outcome = Outcome.success(value, self._lines(invocation.run, caller), invocation)
        except Exception as error:
            outcome = self._failure(error, caller, invocation)
        self._record(path, "query", caller, started, outcome, invocation.run if invocation else None, tx.usage)
        return outcome.at(tx.ts)

    # --- mutations

    async def mutation(
        self,
        path: str,
        args: bytes,
        caller: Caller,
        *,
        request: RequestKey | None = None,
        on_durable: Callable[[Outcome], None] | None = None,
        within: Callable[[Invocation, Callable[[], Awaitable[bytes]]], Awaitable[bytes]] | None = None,
    ) -> Outcome:
        """Run a mutation until it commits.

        Args:
            request: makes it happen once over all connections and nodes.
            on_durable: called with the outcome of a success in the turn of the loop that publishes it, before live queries
                learn of it.
            within: awaits the function's result with what else belongs into the same transaction.

        Raises:
            Superseded: by ``within``.
        """
        started = time.perf_counter()
        # Of the last attempt; no more than is logged, for it is kept until the commit is durable.
        last_run: Run | None = None
        usage: Usage | None = None
        attempts = 0

        async def run(tx: Transaction) -> Answer:
            nonlocal attempts, last_run, usage
            attempts += 1
            # Found anew each time: a push may have come between two attempts.
            function = self.app.registry.find(path, "mutation", internal=caller.admin)
            invocation = self.invocation(tx, function, args, caller, None)
            last_run, usage = invocation.run, tx.usage
            if within is None:
                value = await self._value(invocation, function, args)
            else:
                value = await within(invocation, functools.partial(self._value, invocation, function, args))
            return Answer(value, self._lines(invocation.run, caller))

        def outcome_of(committed: Committed) -> Outcome:
            # What is remembered of the first time may be of a server that was not in production.
            lines = committed.log_lines if not committed.replayed or self._tells(caller) else ()
            return Outcome(True, committed.value, None, lines, ts=committed.ts)

        told: Outcome | None = None

        def durable(committed: Committed) -> None:
            nonlocal told
            assert on_durable is not None
            told = outcome_of(committed)
            on_durable(told)

        try:
            committed = await self.engine.mutate(run, request=request, on_durable=durable if on_durable is not None else None)
            outcome = told or outcome_of(committed)
        except Superseded:
            raise
        except Exception as error:
            outcome = self._failure(error, caller, None, last_run)
        except asyncio.CancelledError:
            self._record_canceled(path, "mutation", caller, started, last_run)
            raise
        # Without an attempt it is the answer that was given the first time.
        self._record(path, "mutation", caller, started, outcome, last_run, usage, attempts, cached=outcome.ok and not attempts)
        return outcome

    # --- actions

    async def action(self, path: str, args: bytes, caller: Caller, *, depth: int = 0) -> Outcome:
        """Run an action, at most once.

        Args:
            depth: how many actions called one another before it.
        """
        started = time.perf_counter()
        run: Run | None = None
        try:
            function = self.app.registry.find(path, "action", internal=caller.admin)
            run = Run(function.path, args, "action", self.runtime.now_ns() / 1e6, self._seed, self.limits, depth=depth)
            check_depth(function, depth, self.limits)
            arguments = self.arguments(function, args)
            result = await execute(run, function.body(self._action_ctx(caller, run), **arguments))
            value = function.returns.encode(result, self.engine.catalog, self.limits.result_size_bytes)
            outcome = Outcome(True, value, None, self._lines(run, caller), ts=self.engine.head_ts)
        except Exception as error:
            outcome = self._failure(error, caller, None, run)
        except asyncio.CancelledError:
            self._record_canceled(path, "action", caller, started, run)
            raise
        self._record(path, "action", caller, started, outcome, run, None)
        return outcome

    async def http_action(self, name: str, url: bytes, body: Callable[[ActionCtx], Coroutine[Any, Any, None]], caller: Caller) -> Outcome:
        """Run an HTTP action, at most once: handler and answer are one run of an action.

        Args:
            name: of its route.
            url: tells one call from another, should it make the node hang.
            body: runs the handler and sends the answer.
        """
        started = time.perf_counter()
        run = Run(name, url, "action", self.runtime.now_ns() / 1e6, self._seed, self.limits)
        try:
            self._check_refused(name, url)
            await execute(run, body(self._action_ctx(caller, run)))
            outcome = Outcome(True, b"null", None, self._lines(run, caller), ts=self.engine.head_ts)
        except Exception as error:
            outcome = self._failure(error, caller, None, run)
        except asyncio.CancelledError:
            self._record_canceled(name, "action", caller, started, run)
            raise
        self._record(name, "action", caller, started, outcome, run, None)
        return outcome

    async def any_kind(self, path: str, args: bytes, caller: Caller) -> Outcome:
        """Run a function as what it is."""
        try:
            kind = self.app.registry.find(path, None, internal=caller.admin).kind
        except Exception as error:
            return self._failed(path, caller, error, "query")
        if kind == "query":
            return await self.query(path, args, caller)
        return await (self.mutation if kind == "mutation" else self.action)(path, args, caller)

    # --- the system's own

    async def transact(self, run: Callable[[Writer, float], Awaitable[T]]) -> T:
        """Run ``run`` as one mutation, with system documents in reach; its result.

        Args:
            run: called with the database and the time, ms since the epoch, for every attempt anew.

        Raises: what ``run`` raises; WriteConflict, StoreError.
        """

        async def attempt(tx: Transaction) -> Answer:
            return Answer(b"null", (), await run(self.system_writer(tx), tx.now_ms))

        result: T = (await self.engine.mutate(attempt)).result
        return result

    def system_writer(self, tx: Transaction) -> Writer:
        """What writes system documents in ``tx``."""
        pager = Pager(self.cursors, None)
        return system(Writer(tx, self.engine.catalog, self.limits, pager, self.runtime.random_bytes), self.system_limits)

    async def read(self, run: Callable[[Reader], Awaitable[T]]) -> T:
        """Run ``run`` on the newest commit, with system documents in reach; its result."""

        async def look(tx: Transaction) -> T:
            return await run(system(Reader(tx, self.engine.catalog, self.limits, Pager(self.cursors, None)), self.system_limits))

        return (await self.engine.query(look))[0]

    # --- for calls between functions

    def _seed(self) -> bytes:
        return self.runtime.random_bytes(16)

    def invocation(self, tx: Transaction, function: Function[..., Any], args: bytes, caller: Caller, journal: str | None) -> Invocation:
        """What one run of a query or mutation from outside shares with the functions it calls."""
        run = Run(function.path, args, function.kind, tx.now_ms, self._seed, self.limits)
        run.transaction = tx
        return Invocation(self, self.engine.catalog, tx, run, caller, Pager(self.cursors, journal))

    def _action_ctx(self, caller: Caller, run: Run) -> ActionCtx:
        return ActionCtx(ActionCalls(self, caller, run))

    def arguments(self, function: Function[..., Any], args: bytes) -> dict[str, Any]:
        """The validated keyword arguments of a call.

        Raises:
            ArgumentError: they do not fit, or are too large.
            FunctionTimeout: code ``CallRefused``.
        """
        if len(args) > self.limits.arguments_size_bytes:
            raise ArgumentError(
                f"{function.path} was called with {len(args)} bytes of arguments, at most {self.limits.arguments_size_bytes} fit. "
                "Send less, or in several calls.",
                code="ArgumentsTooLarge",
            )
        if self.refuses is not None:
            self._check_refused(function.path, args)
        return function.args.load(args, self.engine.catalog)

    def _check_refused(self, path: str, args: bytes) -> None:
        if self.refuses is not None and self.refuses(path, args):
            raise FunctionTimeout(
                f"{path} was called with arguments that made its node hang. It is refused for a while. "
                "Computations without an end, and regular expressions over long texts, are what does this.",
                code="CallRefused",
            )

    async def _value(self, invocation: Invocation, function: Function[..., Any], args: bytes) -> bytes:
        arguments = self.arguments(function, args)
        value = await execute(invocation.run, function.body(invocation.context(function), **arguments))
        return function.returns.encode(value, invocation.catalog, self.limits.result_size_bytes)

    # --- outcomes

    def _tells(self, caller: Caller) -> bool:
        """Whether the caller gets log lines, and errors in full."""
        return not self.production or caller.admin

    def _lines(self, run: Run, caller: Caller) -> tuple[str, ...]:
        return tuple(run.log_lines) if self._tells(caller) else ()

    def _failed(self, path: str, caller: Caller, error: Exception, kind: Kind) -> Outcome:
        """A failure before anything ran."""
        outcome = self._failure(error, caller, None)
        self._record(path, kind, caller, time.perf_counter(), outcome, None, None)
        return outcome

    def _failure(self, error: Exception, caller: Caller, invocation: Invocation | None, run: Run | None = None) -> Outcome:
        run = run or (invocation.run if invocation is not None else None)
        redact = not self._tells(caller)
        made = report(error, caller.request_id, self.app.folder, redact=redact, limit_chars=self.limits.error_message_chars)
        lines = () if run is None else self._lines(run, caller)
        return Outcome.failure(made, lines, invocation)

    def _record(
        self,
        path: str,
        kind: Kind,
        caller: Caller,
        started: float,
        outcome: Outcome,
        run: Run | None,
        usage: Usage | None,
        attempts: int = 1,
        *,
        cached: bool = False,
    ) -> None:
        """Count and log a run.

        Args:
            path: as the caller wrote it.
            run: None: nothing ran.
        """
        duration_s = time.perf_counter() - started
        error = outcome.error
        declared: str | None
        if run is not None:
            declared, kind = run.path, run.kind
        else:
            declared, kind = self._declared(path, kind)
        self.counts.add(declared, kind, duration_s, attempts, cached, None if error is None else error.code)
        if self._on_run is not None:
            self._on_run(
                # By position, which costs half.
                RunRecord(
                    self.runtime.now_ns(),
                    caller.request_id,
                    path[:200] if declared is None else declared,
                    kind,
                    outcome.ok,
                    duration_s,
                    error,
                    tuple(run.log_lines) if run is not None else (),
                    usage,
                    attempts,
                    caller.origin,
                    cached,
                )
            )

    def _record_canceled(self, path: str, kind: Kind, caller: Caller, started: float, run: Run | None) -> None:
        """A call that nobody waits for any more, as when the server stops. A mutation that was accepted commits all the same."""
        error = ReactorError(f"{path} was canceled: the server stops, or nobody waits for it any more.", code="Canceled")
        self._record(path, kind, caller, started, self._failure(error, caller, None, run), run, None)

    def _declared(self, path: str, kind: Kind) -> tuple[str | None, Kind]:
        """Path and kind of the function that a call meant of which nothing ran."""
        try:
            function = self.app.registry.find(path, None, internal=True)
        except FunctionNotFound:
            return None, kind
        return function.path, function.kind


def _canonical(path: str) -> str:
    try:
        return canonical_path(path)
    except FunctionNotFound:
        # The run says so. As a key it stands for itself.
        return path
