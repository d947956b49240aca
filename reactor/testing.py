"""Testing an app: the real engine over a private SQLite database and a clock that the test moves."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

import httpx

from reactor.blobs.disk import DiskBlobs
from reactor.engine.committer import Answer
from reactor.engine.engine import Engine
from reactor.engine.live_query import Subscription
from reactor.engine.runtime import SystemRuntime
from reactor.engine.transaction import Transaction
from reactor.errors import ReactorError
from reactor.functions.context import MutationCtx
from reactor.functions.environment import addresses_of, change_variables
from reactor.functions.execute import execute
from reactor.functions.function import Action, Function, Mutation, Query, path_of
from reactor.functions.identity import STANDARD_CLAIMS, Caller, Identity
from reactor.functions.outcome import Outcome
from reactor.functions.output import capture_output
from reactor.functions.registry import imported_app
from reactor.functions.runner import Runner
from reactor.limits import DEFAULT_LIMITS, Limits
from reactor.server.admin import Authenticator, Credentials
from reactor.server.app import Backend
from reactor.server.storing import files_folder
from reactor.services.crons import reconcile
from reactor.services.scheduler import ScheduledRuns
from reactor.stores.sqlite import SqliteStore
from reactor.values import codec

__all__ = ["TestBackend", "VirtualRuntime"]

#: Where functions find themselves served.
URL = "http://test.invalid"

P = ParamSpec("P")
R = TypeVar("R")


class VirtualRuntime(SystemRuntime):
    """A clock that stands still until it is moved. Waiting takes a turn of the loop and no time."""

    def __init__(self, now_ns: int) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic_s(self) -> float:
        return self._now_ns / 1e9

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def advance(self, by: timedelta) -> None:
        """Move the clock."""
        self._now_ns += by // timedelta(microseconds=1) * 1000

    def advance_to(self, now_ns: int) -> None:
        """Move the clock to this moment, if that is not back."""
        self._now_ns = max(self._now_ns, now_ns)


class TestBackend:
    """An app on a database of its own, in this process: ``async with TestBackend() as t: await t.query(…)``.

    Args:
        path: the app's folder. Its modules are the ones that the test imports.
        now: what the clock shows at first: a datetime, or ms since the epoch.
        limits: to be met sooner than the real ones.
        env: environment variables that are set at first.

    Functions are called by function object, typed by its signature, or by path. Errors arrive as they were raised.
    """

    __test__ = False  # to pytest, it is no test class

    # Set when it is entered.
    _engine: Engine
    _runner: Runner
    _server: Backend
    _scheduled: ScheduledRuns
    _tokens: _Tokens

    def __init__(
        self,
        path: str | Path = ".",
        *,
        now: datetime | float | None = None,
        limits: Limits = DEFAULT_LIMITS,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        moment = now if now is not None else datetime(2026, 1, 1, tzinfo=UTC)
        milliseconds = moment.timestamp() * 1000 if isinstance(moment, datetime) else moment
        self._path = Path(path)
        self._limits = limits
        self._env = env
        self._identity: Identity | None = None
        self._requests = itertools.count(1)
        self.runtime = VirtualRuntime(int(milliseconds * 1_000_000))
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        app = imported_app(self._path)
        async with AsyncExitStack() as stack:
            store = await self._open_store()
            stack.push_async_callback(store.close)
            engine = Engine(store, app.catalog, self.runtime, self._limits)
            await engine.start()
            stack.push_async_callback(engine.stop)
            await engine.push(app.catalog)
            stack.enter_context(capture_output())
            self._engine = engine
            self._runner = Runner(
                engine, app, secret=store.secret, blobs=DiskBlobs(files_folder(store.path)), runtime=self.runtime, limits=self._limits
            )
            self._runner.addresses = addresses_of(URL)
            await self.set_env(self._env)
            await self._runner.pending.load()
            self._tokens = _Tokens(f"test|{self.runtime.random_bytes(16).hex()}", self._runner)
            stack.push_async_callback(self._tokens.close)
            await reconcile(self._runner)
            self._scheduled = ScheduledRuns(self._runner, alone=True)
            self._server = Backend(self._runner, self._tokens, instance_name="test")
            self._stack = stack.pop_all()
        return self

    async def _open_store(self) -> SqliteStore:
        return SqliteStore.temporary()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in TestBackend.__annotations__:
                raise ReactorError("This TestBackend was not entered. Write: async with TestBackend() as t, or take the fixture backend.")
            raise AttributeError(f"TestBackend has no {name!r}", name=name, obj=self)

    def with_identity(self, subject: str, **attributes: Any) -> TestBackend:
        """The same backend as seen by somebody who is signed in. Unknown attributes are claims."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        known = {name: value for name, value in attributes.items() if name in STANDARD_CLAIMS}
        claims = {name: value for name, value in attributes.items() if name not in STANDARD_CLAIMS}
        view._identity = Identity(subject, **{"issuer": "https://test.invalid", **known}, claims=claims)
        return view

    @overload
    async def query(self, function: Query[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def query(self, function: str, /, **kwargs: Any) -> Any: ...
    async def query(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a query, an internal one too. Raises what it raises."""
        called, text = self._call(function, args, kwargs)
        return self._result(called, await self._runner.query(self._name(function), text, self._caller()))

    @overload
    async def mutation(self, function: Mutation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def mutation(self, function: str, /, **kwargs: Any) -> Any: ...
    async def mutation(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a mutation, an internal one too. It is committed when this returns. Raises what it raises."""
        called, text = self._call(function, args, kwargs)
        return self._result(called, await self._runner.mutation(self._name(function), text, self._caller()))

    @overload
    async def action(self, function: Action[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def action(self, function: str, /, **kwargs: Any) -> Any: ...
    async def action(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run an action, an internal one too. Raises what it raises."""
        called, text = self._call(function, args, kwargs)
        return self._result(called, await self._runner.action(self._name(function), text, self._caller()))

    @overload
    def subscribe(self, function: Query[P, R], /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]: ...
    @overload
    def subscribe(self, function: str, /, **kwargs: Any) -> AsyncIterator[Any]: ...
    def subscribe(self, function: Any, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """The query's result, and each further one that differs from it. Raises what the query raises."""
        called, text = self._call(function, args, kwargs)
        return self._watch(called, self._name(function), text)

    async def run(self, function: Callable[[MutationCtx], Awaitable[R]]) -> R:
        """Run ``function`` as one mutation, to prepare or look at the database."""

        async def body(ctx: MutationCtx) -> R:
            return await function(ctx)

        declared: Mutation[[], R] = Mutation(body, internal=True, name="run")
        declared.compile("run", {})
        runner = self._runner

        async def attempt(tx: Transaction) -> Answer:
            invocation = runner.invocation(tx, declared, b"{}", self._caller(), None)
            context = invocation.context(declared)
            return Answer(b"null", (), await execute(invocation.run, body(context)))  # type: ignore[arg-type]

        try:
            result: R = (await self._engine.mutate(attempt)).result
        except ReactorError as error:
            cause = error.__cause__
            if cause is not None and not isinstance(cause, Exception | asyncio.CancelledError):
                raise cause from None  # the test's own: a test that is skipped or failed from within, or Ctrl-C
            raise
        return result

    async def fetch(
        self, path: str, *, method: str = "GET", headers: dict[str, str] | None = None, content: bytes | str | None = None
    ) -> httpx.Response:
        """Send an HTTP request to the backend, by whoever is signed in unless ``headers`` have an Authorization of their own."""
        headers = dict(headers or {})
        if self._identity is not None and "authorization" not in map(str.lower, headers):
            headers["authorization"] = f"Bearer {self._tokens.issue(self._identity)}"
        transport = httpx.ASGITransport(app=self._server)
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            return await client.request(method, path, headers=headers, content=content)

    async def set_env(self, changes: Mapping[str, str | None]) -> None:
        """Set environment variables, and remove those whose value is None, in one commit.

        Raises:
            EnvironmentVariableError: the settings that the app declares would not fit, or a limit was met; nothing has changed.
        """
        runner = self._runner
        await change_variables(self._engine, changes, check=runner.app.check_environment, built_in=runner.addresses, limits=self._limits)

    async def advance(self, **duration: float) -> None:
        """Move the clock: ``advance(hours=1)``, with the arguments of ``timedelta``.

        Scheduled functions that fall due on the way run, each at its own time, and so does what they schedule. When this returns
        they have ended. ``advance()`` runs what is due now. Deleted files are collected.
        """
        runtime, scheduled = self.runtime, self._scheduled
        until_ns = runtime.now_ns() + timedelta(**duration) // timedelta(microseconds=1) * 1000
        while True:
            await scheduled.run_due()
            due_ms = await scheduled.next_due_ms()
            if due_ms is None or due_ms > until_ns / 1e6:
                break
            runtime.advance_to(_not_before(due_ms))
        runtime.advance_to(until_ns)
        await scheduled.run_due()
        await self._runner.files.collect()

    async def _watch(self, called: Function[..., Any] | None, path: str, text: bytes) -> AsyncIterator[Any]:
        runner, engine = self._runner, self._engine
        caller = self._caller()
        watcher = _Watcher()
        subscription = engine.live.subscribe(
            runner.live_key(path, text, caller), caller.identity, runner.live_run(path, text, caller), watcher
        )
        known: Outcome | None = None
        try:
            while True:
                watcher.stale.clear()
                pin = engine.pin()
                try:
                    result = subscription.at(pin)
                    outcome: Outcome = await result if isinstance(result, asyncio.Future) else result
                finally:
                    pin.release()
                if known is None or not outcome.same_as(known):
                    known = outcome
                    yield self._result(called, outcome)
                await watcher.stale.wait()
        finally:
            subscription.close()

    def _caller(self) -> Caller:
        return Caller(self._identity, True, f"{next(self._requests):016x}", "test")

    def _name(self, function: Function[..., Any] | str) -> str:
        return function if isinstance(function, str) else function.path

    def _call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Function[..., Any] | None, bytes]:
        """The function, when it is given as an object, and the arguments' text."""
        if isinstance(function, str):
            return None, codec.to_json(kwargs)
        path_of(function)
        return function, function.args.to_json(function.by_name(args, kwargs))

    def _result(self, called: Function[..., Any] | None, outcome: Outcome) -> Any:
        if outcome.error is not None:
            raise outcome.error.exception
        if called is None:
            return codec.from_json(outcome.value)
        return called.returns.load(outcome.value, self._engine.catalog)


def _not_before(time_ms: float) -> int:
    """The first moment, ns since the epoch, that is not before ``time_ms`` when it is told in ms."""
    now_ns = math.ceil(time_ms * 1e6)
    while now_ns / 1e6 < time_ms:
        now_ns += 1
    return now_ns


class _Tokens(Authenticator):
    """Takes tokens for whoever is signed in with ``with_identity``."""

    __slots__ = ("_issued",)

    def __init__(self, admin_key: str, runner: Runner) -> None:
        super().__init__(admin_key, runner)
        self._issued: dict[str, Identity] = {}

    def issue(self, identity: Identity) -> str:
        token = f"test-{len(self._issued)}"
        self._issued[token] = identity
        return token

    async def user(self, token: str) -> Credentials:
        identity = self._issued.get(token)
        return await super().user(token) if identity is None else Credentials(identity, False)


class _Watcher:
    """Notes that a result is stale."""

    def __init__(self) -> None:
        self.stale = asyncio.Event()

    def invalidated(self, subscription: Subscription[Any]) -> None:
        self.stale.set()
