"""Functions calling functions."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from reactor.engine.store import RequestKey
from reactor.engine.transaction import Transaction
from reactor.errors import LimitExceeded, WrongFunctionKind
from reactor.functions.context import MutationCtx, QueryCtx
from reactor.functions.database import Reader, Writer, system
from reactor.functions.environment import Environment
from reactor.functions.files import Files
from reactor.functions.function import Function, path_of
from reactor.functions.identity import Auth, Caller
from reactor.functions.outcome import Outcome
from reactor.functions.pages import Pager
from reactor.functions.run import Run
from reactor.functions.scheduling import Call, Scheduled, cancel, schedule
from reactor.limits import Limits
from reactor.schema.catalog import Catalog
from reactor.schema.system import ScheduledFunction
from reactor.values.ids import Id

if TYPE_CHECKING:
    from reactor.functions.runner import Runner

__all__ = ["ActionCalls", "Invocation"]

#: What an action calls may wait for nothing: after so long everybody else has a turn, or a loop of such calls would hold up the node.
TURN_S = 0.02


def check_depth(function: Function[..., Any], depth: int, limits: Limits) -> None:
    """Check that ``function`` may be called by the last of ``depth`` functions of which each called the next.

    Raises:
        LimitExceeded: code ``MaximumCallDepthExceeded``.
    """
    if depth > limits.call_depth:
        raise LimitExceeded(
            f"{function.path}: functions call each other more than {limits.call_depth} deep.", code="MaximumCallDepthExceeded"
        )


class Invocation(Struct, eq=False):
    """One run of a query or mutation, with all that it calls: one transaction, one clock, one identity.

    Attributes:
        catalog: the schema that was in force when it began.
        pager: the pages of the function that was called from outside; each nested call has its own.
        scheduled: how many functions it has scheduled.
    """

    _runner: Runner
    catalog: Catalog
    tx: Transaction
    run: Run
    caller: Caller
    pager: Pager
    depth: int = 0
    scheduled: Scheduled | None = None  # made by the first
    _auth: Auth | None = None
    _environment: Environment | None = None

    @property
    def auth(self) -> Auth:
        """The caller's identity, and whether it was asked for."""
        if self._auth is None:
            self._auth = Auth(self.caller.identity)
        return self._auth

    @property
    def identity_used(self) -> bool:
        """Whether a function has asked who calls."""
        return self._auth is not None and self._auth.used

    @property
    def environment(self) -> Environment:
        """The deployment's variables, those that were read remembered."""
        if self._environment is None:
            self._environment = Environment(self._runner.engine, self._runner.addresses, self.tx)
        return self._environment

    def context(self, function: Function[..., Any], pager: Pager | None = None) -> QueryCtx:
        """The ctx for one execution of ``function``."""
        runner, tx, catalog = self._runner, self.tx, self.catalog
        limits = runner.limits
        if function.kind == "query":
            reader = Reader(tx, catalog, limits, pager or self.pager)
            return QueryCtx(_Nested(self, function, reader), reader)
        writer = Writer(tx, catalog, limits, pager or self.pager, runner.runtime.random_bytes)
        return MutationCtx(_Nested(self, function, writer), writer)

    @property
    def files(self) -> Files:
        """The files of the database."""
        return self._runner.files

    async def nested(self, function: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run ``function`` in this transaction; its result, by value."""
        runner, tx = self._runner, self.tx
        check_depth(function, self.depth + 1, runner.limits)
        arguments = runner.arguments(function, function.args.to_json(function.by_name(args, kwargs)))
        savepoint = tx.savepoint() if function.kind == "mutation" else None
        scheduled = self.scheduled.count if self.scheduled is not None else 0
        context = self.context(function, Pager(runner.cursors, None))
        self.depth += 1
        try:
            value = await function.body(context, **arguments)
            text = function.returns.encode(value, self.catalog, runner.limits.result_size_bytes)
        except BaseException:
            if savepoint is not None:
                tx.rollback(savepoint)
                if self.scheduled is not None:
                    self.scheduled.count = scheduled
            raise
        finally:
            context.db.close()
            self.depth -= 1
        return function.returns.load(text, self.catalog)

    def resolve(self, kind: Any, function: Function[..., Any] | str) -> Function[..., Any]:
        """The function to call, by object or path."""
        path = path_of(function)
        return self._runner.app.registry.find(path, kind, internal=True)

    async def schedule(
        self, db: Writer, when: timedelta | datetime, function: Function[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Id[ScheduledFunction]:
        """Schedule ``function`` in this transaction."""
        runner = self._runner
        call = Call.of(self.resolve(None, function), args, kwargs, runner.limits)
        if self.scheduled is None:
            self.scheduled = Scheduled()
        self.scheduled.add(runner.limits)
        runner.pending.check(self.scheduled.count)
        own = system(db, runner.system_limits)
        return await schedule(own, self.tx.now_ms, when, call, self.caller.job, runner.limits)

    async def cancel(self, db: Writer, job: str) -> None:
        """Cancel a scheduled function in this transaction."""
        await cancel(system(db, self._runner.system_limits), self.tx.now_ms, job, self.caller.job)


class _Nested(Struct, eq=False):
    """The calls of one ctx of a query or mutation. Parallel ones run one after another: they share a transaction."""

    _invocation: Invocation
    _caller: Function[..., Any]
    _db: Reader

    async def call(self, kind: str, function: Function[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        invocation = self._invocation
        called = invocation.resolve(kind, function)
        if self._caller.kind == "query" and called.kind != "query":
            raise WrongFunctionKind(f"{self._caller.path} is a query, and cannot call the {called.kind} {called.path}.")
        if self._db.nested is None:
            self._db.nested = asyncio.Lock()
        async with self._db.nested:
            self._db.check_open()
            return await invocation.nested(called, args, kwargs)

    async def schedule(
        self, when: timedelta | datetime, function: Function[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Id[ScheduledFunction]:
        return await self._invocation.schedule(self._writer(), when, function, args, kwargs)

    async def cancel(self, job: str) -> None:
        await self._invocation.cancel(self._writer(), job)

    def _writer(self) -> Writer:
        assert isinstance(self._db, Writer), "a query's ctx has no scheduler"
        return self._db

    def random(self) -> random.Random:
        return self._invocation.run.random

    def now_ms(self) -> float:
        return self._invocation.run.now_ms

    def environment(self) -> Environment:
        return self._invocation.environment

    def files(self) -> Files:
        return self._invocation.files

    def auth(self) -> Auth:
        return self._invocation.auth


class ActionCalls:
    """The calls of an action: each query and mutation in a transaction of its own."""

    __slots__ = ("_auth", "_caller", "_run", "_runner", "_scheduled", "_until")

    def __init__(self, runner: Runner, caller: Caller, run: Run) -> None:
        self._runner = runner
        # An action's own calls may reach internal functions; errors come back as themselves, not as texts.
        self._caller = Caller(caller.identity, True, caller.request_id, "action", caller.job)
        self._auth = Auth(caller.identity)
        self._run = run
        self._scheduled = Scheduled()
        self._until = time.perf_counter() + TURN_S

    async def call(self, kind: str, function: Function[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        runner, caller = self._runner, self._caller
        while time.perf_counter() > (until := self._until):
            await asyncio.sleep(0)
            if self._until == until:
                self._until = time.perf_counter() + TURN_S
                break  # the first of parallel ones; they look again whether it has left them time
        called, text = self._called(kind, function, args, kwargs)
        if kind == "action":
            return self._result(called, await runner.action(called.path, text, caller, depth=self._run.depth + 1))
        run = runner.query if kind == "query" else runner.mutation
        return self._result(called, await run(called.path, text, caller))

    async def once(self, key: str, function: Function[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        called, text = self._called("mutation", function, args, kwargs)
        # A client's session is a UUID, so none can ask for this one. Hashed, a key may have any length and sign.
        name = hashlib.sha256(f"{called.path}\n{key}".encode(errors="surrogatepass")).hexdigest()
        request = RequestKey(f"once:{name}", 0)
        return self._result(called, await self._runner.mutation(called.path, text, self._caller, request=request))

    def _called(
        self, kind: str, function: Function[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Function[..., Any], bytes]:
        path = path_of(function)
        called = self._runner.app.registry.find(path, kind, internal=True)  # type: ignore[arg-type]
        return called, called.args.to_json(called.by_name(args, kwargs))

    def _result(self, called: Function[..., Any], outcome: Outcome) -> Any:
        if outcome.error is not None:
            raise outcome.error.exception
        return called.returns.load(outcome.value, self._runner.engine.catalog)

    async def schedule(
        self, when: timedelta | datetime, function: Function[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Id[ScheduledFunction]:
        runner = self._runner
        path = path_of(function)
        call = Call.of(runner.app.registry.find(path, None, internal=True), args, kwargs, runner.limits)
        self._scheduled.add(runner.limits)
        runner.pending.check(1)
        return await runner.transact(lambda db, now_ms: schedule(db, now_ms, when, call, self._caller.job, runner.limits))

    async def cancel(self, job: str) -> None:
        await self._runner.transact(lambda db, now_ms: cancel(db, now_ms, job, self._caller.job))

    def random(self) -> random.Random:
        return self._run.random

    def now_ms(self) -> float:
        return self._runner.runtime.now_ns() / 1e6

    def environment(self) -> Environment:
        return Environment(self._runner.engine, self._runner.addresses, None)

    def files(self) -> Files:
        return self._runner.files

    def auth(self) -> Auth:
        return self._auth
