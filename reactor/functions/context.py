"""What a function gets as its first argument."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from reactor.functions.database import Reader, Writer
from reactor.functions.environment import Environment
from reactor.functions.files import Files
from reactor.functions.identity import Auth
from reactor.functions.lacking import Lacking
from reactor.functions.scheduler import Scheduler
from reactor.functions.storage import ActionStorage, StorageReader, StorageWriter

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from reactor.functions.function import Action, Function, Mutation, Query
    from reactor.schema.system import ScheduledFunction
    from reactor.values.ids import Id

__all__ = ["ActionCtx", "Calls", "MutationCtx", "QueryCtx"]

P = ParamSpec("P")
R = TypeVar("R")


class Calls(Protocol):
    """Runs what a function calls. The runner's part of a ctx."""

    async def call(self, kind: str, function: Function[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run ``function`` as ``kind`` on behalf of the ctx; its result, or what it raised."""
        ...

    async def schedule(
        self, when: timedelta | datetime, function: Function[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Id[ScheduledFunction]:
        """Have ``function`` called later; see ``Scheduler``."""
        ...

    async def cancel(self, job: str) -> None:
        """See ``Scheduler.cancel``."""
        ...

    def random(self) -> random.Random:
        """The run's generator."""
        ...

    def now_ms(self) -> float:
        """What the run's clock shows."""
        ...

    def environment(self) -> Environment:
        """The deployment's variables as the run sees them."""
        ...

    def files(self) -> Files:
        """The files of the database."""
        ...

    def auth(self) -> Auth:
        """The caller's identity."""
        ...


class OutsideCalls(Calls, Protocol):
    """Runs what an action calls: each mutation in a transaction of its own."""

    async def once(self, key: str, function: Function[..., Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a mutation once for all calls with this key; its first result, or what it raised now."""
        ...


class _Ctx:
    __slots__ = ("_calls",)

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @property
    def auth(self) -> Auth:
        """Who calls."""
        return self._calls.auth()

    @property
    def env(self) -> Environment:
        """The deployment's environment variables: ``ctx.env["NAME"]``. A query that reads one runs again when it changes."""
        return self._calls.environment()

    @overload
    async def run_query(self, function: Query[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_query(self, function: str, /, **kwargs: Any) -> Any: ...
    async def run_query(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a query by function object or path. In a query or mutation it is part of the same transaction.

        Raises: what the query raises; ArgumentError, FunctionNotFound, WrongFunctionKind.
        """
        return await self._calls.call("query", function, args, kwargs)


class QueryCtx(_Ctx):
    """What a query gets.

    Attributes:
        db: reads documents.
        auth: who calls.
        env: environment variables of the deployment.
    """

    __slots__ = ("db",)

    if not TYPE_CHECKING:  # type checkers know what each ctx has
        run_mutation = Lacking("a query only reads. Declare the function with @mutation.")
        scheduler = Lacking("a query only reads. Declare the function with @mutation.")
        run_action = Lacking("a query sees only the database. Declare the function with @action.")

    def __init__(self, calls: Calls, db: Any) -> None:
        self._calls = calls
        self.db: Reader = db

    @property
    def now(self) -> float:
        """When the run began, ms since the epoch; it stands still."""
        return self._calls.now_ms()

    @property
    def random(self) -> random.Random:
        """A generator with a seed of this run's own."""
        return self._calls.random()

    @property
    def storage(self) -> StorageReader:
        """Files that were stored."""
        return StorageReader(self.db, self._calls.files())


class MutationCtx(QueryCtx):
    """What a mutation gets. ``db`` writes too.

    Attributes:
        scheduler: has functions called later, if the mutation commits.
    """

    __slots__ = ()

    @property
    def scheduler(self) -> Scheduler:
        return Scheduler(self._calls)

    if not TYPE_CHECKING:
        run_action = Lacking(
            "a mutation sees only the database. Have the action run once it has committed: ctx.scheduler.run_after(timedelta(0), …)."
        )
        run_once = Lacking("a mutation runs once with its transaction. Use reactor.contrib.idempotency for keys of your own.")

    if TYPE_CHECKING:

        @property
        def db(self) -> Writer: ...
        @db.setter
        def db(self, value: Reader) -> None: ...

    @property
    def storage(self) -> StorageWriter:
        """Files that were stored, and URLs to store some at."""
        return StorageWriter(self.db, self._calls.files(), self.now)

    @overload
    async def run_mutation(self, function: Mutation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_mutation(self, function: str, /, **kwargs: Any) -> Any: ...
    async def run_mutation(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a mutation inside this one's transaction. If it raises, its writes alone are undone.

        Raises: what the mutation raises; ArgumentError, FunctionNotFound, WrongFunctionKind.
        """
        return await self._calls.call("mutation", function, args, kwargs)


class ActionCtx(_Ctx):
    """What an action gets: no database of its own, but queries, mutations and actions, each on its own.

    Attributes:
        scheduler: has functions called later, whatever becomes of the action.
    """

    __slots__ = ()
    _calls: OutsideCalls

    if not TYPE_CHECKING:
        db = Lacking("an action reaches the database through queries and mutations: ctx.run_query(…), ctx.run_mutation(…).")
        now = Lacking("an action's clock does not stand still. Use time.time().")

    @property
    def scheduler(self) -> Scheduler:
        return Scheduler(self._calls)

    @property
    def storage(self) -> ActionStorage:
        """Files: stored, read and deleted, each on its own."""
        return ActionStorage(self._calls.files())

    @overload
    async def run_mutation(self, function: Mutation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_mutation(self, function: str, /, **kwargs: Any) -> Any: ...
    async def run_mutation(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a mutation in a transaction of its own; it is durable when this returns.

        Raises: what the mutation raises; ArgumentError, FunctionNotFound, WrongFunctionKind.
        """
        return await self._calls.call("mutation", function, args, kwargs)

    @overload
    async def run_once(self, key: str, function: Mutation[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_once(self, key: str, function: str, /, **kwargs: Any) -> Any: ...
    async def run_once(self, key: str, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a mutation as ``run_mutation`` does, but once for all calls with this key, at the same time or later, on any node.

        When it has committed before, its first result is returned and nothing runs; other arguments do not count. One that
        fails leaves nothing, and the next call runs it. Keys are those of one mutation, and remembered as long as a mutation that
        a client sends again (``REACTOR_REQUEST_RETENTION_S``, 14 days).

        Args:
            key: any text, such as the id of an event.

        Raises: what the mutation raises; ArgumentError, FunctionNotFound, WrongFunctionKind.
        """
        return await self._calls.once(key, function, args, kwargs)

    @overload
    async def run_action(self, function: Action[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def run_action(self, function: str, /, **kwargs: Any) -> Any: ...
    async def run_action(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run an action and wait for it.

        Raises: what the action raises; ArgumentError, FunctionNotFound, WrongFunctionKind.
        """
        return await self._calls.call("action", function, args, kwargs)
