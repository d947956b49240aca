"""Admin keys beside the server's own: made, listed and revoked while it runs, kept as hashes in the database."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reactor.engine.committer import Answer
from reactor.engine.live_query import Own, Subscription
from reactor.engine.transaction import Transaction
from reactor.errors import ReactorError, StoreError
from reactor.functions.runner import Runner
from reactor.schema.system import AdminKey

__all__ = ["AdminKeys"]

_log = logging.getLogger(__name__)

#: After keys that have changed could not be read.
AGAIN_S = 1.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class _Known:
    """All keys as of one ts: the outcome of a live query that every caller shares."""

    keys: tuple[AdminKey, ...]
    identity_used: bool = False
    journal: str | None = None
    lasting: bool = True
    joinable: bool = True

    def same_as(self, other: _Known) -> bool:
        return self.keys == other.keys


class AdminKeys:
    """The keys, kept current by a live query, so that what another node revokes is refused here too."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._names: Mapping[str, str] = {}  # by hash
        self._ts = 0  # that they are true at
        self._watching: Subscription[_Known] | None = None
        self._reading: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Read the keys, once the schema is in force, and follow the database from then on."""
        await self._read()

    def close(self) -> None:
        """Follow it no more."""
        if self._watching is not None:
            self._watching.close()
        for task in self._reading:
            task.cancel()

    def hash_of(self, key: str) -> str | None:
        """What names ``key`` as long as it is one of these; else None."""
        digest = _digest(key)
        return digest if self.has(digest) else None

    def has(self, digest: str) -> bool:
        """Whether the key with this hash can be used."""
        return digest in self._names

    async def list(self) -> list[dict[str, Any]]:
        """Name and time of creation of each, in ms since the epoch, oldest first."""
        (known, _) = await self._runner.engine.query(lambda tx: self._run(tx, None))
        return [{"name": key.name, "createdAt": key.creation_time} for key in known.keys]

    async def create(self, name: str) -> str:
        """Make a key: it is told once, here.

        Raises:
            ReactorError: the name cannot be, or is taken. Code ``BadAdminKeyName``.
        """
        if not _NAME.fullmatch(name):
            raise _bad(f"{name[:100]!r} cannot name a key: up to 64 letters, digits and . _ -, the first no sign.")
        key = f"{name}|{secrets.token_hex(32)}"

        async def run(tx: Transaction) -> Answer:
            db = self._runner.system_writer(tx)
            if await db.query(AdminKey.by_name(name=name)).first() is not None:
                raise _bad(f"There is a key named {name!r} already. Revoke it first, or choose another name.")
            await db.insert(AdminKey(name=name, sha256=_digest(key)))
            return Answer(b"null")

        await self._runner.engine.mutate(run)
        await self._read()
        return key

    async def revoke(self, name: str) -> None:
        """Make a key useless, also for those who are connected with it.

        Raises:
            ReactorError: there is none of this name. Code ``BadAdminKeyName``.
        """

        async def run(tx: Transaction) -> Answer:
            db = self._runner.system_writer(tx)
            found = await db.query(AdminKey.by_name(name=name)).first()
            if found is None:
                raise _bad(f"There is no key named {name[:100]!r}. See: reactor keys list")
            await db.delete(found.id)
            return Answer(b"null")

        await self._runner.engine.mutate(run)
        await self._read()

    def invalidated(self, subscription: Subscription[Any]) -> None:
        """A commit changed the keys, perhaps another node's."""
        task = asyncio.ensure_future(self._follow())
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _follow(self) -> None:
        while True:
            try:
                return await self._read()
            except StoreError:
                # Until it has read them it takes revoked keys, and is told of no other change.
                _log.exception("The admin keys could not be read; it is tried again in %g s", AGAIN_S)
            await self._runner.runtime.sleep(AGAIN_S)

    async def _read(self) -> None:
        engine = self._runner.engine
        if self._watching is None:
            self._watching = engine.live.subscribe(Own("admin keys"), None, self._run, self)
        pin = engine.pin()
        try:
            known = self._watching.at(pin)
            known = await known if isinstance(known, asyncio.Future) else known
        finally:
            pin.release()
        if pin.ts >= self._ts:
            self._ts = pin.ts
            self._names = {key.sha256: key.name for key in known.keys}

    async def _run(self, tx: Transaction, journal: str | None) -> _Known:
        return _Known(tuple(await self._runner.system_writer(tx).query(AdminKey).collect()))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _bad(message: str) -> ReactorError:
    return ReactorError(message, code="BadAdminKeyName")
