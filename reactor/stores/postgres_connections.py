"""Connections to Postgres: how they are made, a bounded number of them, and what an error of the driver means."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import asyncpg

from reactor.errors import StoreError, StoreFull, StoreReadOnly, StoreUnavailable

__all__ = ["ANSWER_S", "ERRORS", "PATIENCE_S", "Connection", "Connections", "Server", "is_lost"]

#: asyncpg has no types.
Connection: TypeAlias = Any

CONNECT_TIMEOUT_S = 5.0

#: A server that has this long not answered a statement of a few rows does not answer.
STATEMENT_TIMEOUT_S = 10.0

#: The same of a statement of no row, or one: what goes first over a connection that lay idle.
ANSWER_S = 3.0

#: For so long whatever needs a database that is away tries again, so that a restart or a failover is a pause and no error.
PATIENCE_S = 30.0

#: After one attempt to connect failed, another is made this long later.
RECONNECT_S = 0.1

#: What the driver raises: errors of the server, of its own use, of the socket, and of waiting.
ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that was lost between two of its own steps
    OSError,
    TimeoutError,
    asyncio.TimeoutError,
)

#: Every read goes by a key through an index, in the order of that index: no table is read whole and nothing is sorted, and a plan
#: that is right for one value is right for all.
_SETTINGS = {
    "application_name": "reactor",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "client_min_messages": "error",
}

_LOST = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,  # shut down, crashed, still starting
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.TooManyConnectionsError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,  # it was the primary before
    asyncpg.exceptions.DeadlockDetectedError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.SerializationError,  # a read on a standby that stood in the way of what it follows
    OSError,
    TimeoutError,
    asyncio.TimeoutError,
)


def is_lost(error: BaseException) -> bool:
    """Whether the same may succeed when it is tried again, on another connection."""
    # Of the driver's own errors those that are ValueErrors too are of an address or a value that cannot be.
    return isinstance(error, _LOST) and not isinstance(error, ValueError)


class Server:
    """Where the database is.

    Args:
        url: ``postgres://user:password@host:port/database``, with several hosts if there are standbys to fail over to.
        prefer: which of several hosts; ``primary`` takes no other.
        timeout_s: how long connecting may take.
    """

    def __init__(self, url: str, *, prefer: Literal["primary", "prefer-standby"] = "primary", timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._url = url
        self._prefer = prefer
        self._timeout_s = timeout_s
        parts = urlsplit(url)
        #: As shown in messages: without the password.
        self.name = f"postgres://{parts.netloc.rpartition('@')[2]}{parts.path}"

    async def connect(self, settings: Mapping[str, str] | None = None) -> Connection:
        """A new connection.

        Raises:
            StoreUnavailable, StoreError: none can be had.
        """
        try:
            return await asyncpg.connect(
                self._url,
                timeout=self._timeout_s,
                command_timeout=STATEMENT_TIMEOUT_S,
                server_settings={**_SETTINGS, **(settings or {})},
                target_session_attrs=self._prefer,
            )
        except (*ERRORS, ValueError) as error:
            raise self.error(error) from error

    def error(self, error: BaseException) -> StoreError:
        """What the driver reports, as the error that says what to do about it."""
        match error:
            case StoreError():
                return error
            case asyncpg.exceptions.DiskFullError() | asyncpg.exceptions.OutOfMemoryError():
                return StoreFull(f"{self.name}: the server has no space left ({error}). Nothing was written; it goes on when there is some")
            case asyncpg.exceptions.InvalidPasswordError() | asyncpg.exceptions.InvalidAuthorizationSpecificationError():
                return StoreError(f"{self.name}: the server does not let us in ({error}). Check user and password in the address")
            case asyncpg.exceptions.InvalidCatalogNameError():
                return StoreError(f"{self.name}: {error}. Make it with createdb, or correct the address")
            case asyncpg.exceptions.InsufficientPrivilegeError():
                return StoreReadOnly(f"{self.name}: {error}. The user must own the database, or be granted CREATE on its schema")
        if is_lost(error):
            reason = str(error) or type(error).__name__
            return StoreUnavailable(f"{self.name}: the database does not answer ({reason}). Check that it runs and can be reached")
        return StoreError(f"{self.name}: {error}")


class Connections:
    """At most ``size`` connections, made when they are first needed. Each is used by one task at a time."""

    def __init__(self, server: Server, size: int) -> None:
        self._server = server
        self._idle: list[Connection] = []
        self._slots = asyncio.Semaphore(size)
        self._closed = False

    @property
    def free(self) -> bool:
        """Whether ``take`` would wait for nobody."""
        return not self._slots.locked()

    async def take(self) -> Connection:
        """A connection outside a transaction, to be given back or dropped.

        Raises:
            StoreUnavailable, StoreError: none can be had.
        """
        await self._slots.acquire()
        try:
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
            if self._closed:
                raise StoreError("the store is closed")
            return await self._server.connect()
        except BaseException:
            self._slots.release()
            raise

    def give_back(self, connection: Connection) -> None:
        """The connection is in no transaction, and no statement is running."""
        if self._closed:
            connection.terminate()
        elif not connection.is_closed():
            self._idle.append(connection)
        self._slots.release()

    def drop(self, connection: Connection) -> None:
        """The connection is of no more use. Those that lie idle go with it: what broke this one may have broken them, silently."""
        connection.terminate()
        for idle in self._idle:
            idle.terminate()
        self._idle.clear()
        self._slots.release()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        """A connection for a few statements, each its own transaction. One that fails, or is cancelled halfway, is dropped.

        Raises:
            StoreUnavailable, StoreError: what a statement raised, as the store's error.
        """
        connection = await self.take()
        try:
            yield connection
        except BaseException as error:
            self.drop(connection)
            if isinstance(error, ERRORS):
                raise self._server.error(error) from error
            raise
        self.give_back(connection)

    def close(self) -> None:
        """Close what is idle, and what is given back from now on."""
        self._closed = True
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()
