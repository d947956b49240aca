"""Who calls: admin keys, acting as a user, and tokens of users."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from reactor.engine.store import Ts
from reactor.errors import AuthenticationError, ReactorError, StoreReadOnly
from reactor.functions.environment import variables
from reactor.functions.identity import STANDARD_CLAIMS, Identity
from reactor.functions.providers import Declared, Provider, providers_with
from reactor.functions.runner import Runner
from reactor.server.admin_keys import AdminKeys
from reactor.server.beside import key_file
from reactor.services.auth.tokens import Tokens, Verified

__all__ = ["ANONYMOUS", "Authenticator", "Credentials", "admin_key_of", "load_admin_key"]


class Credentials(NamedTuple):
    """What a caller has shown to be.

    Attributes:
        proof: what may cease to hold: a verified token, or the hash of an admin key that can be revoked.
    """

    identity: Identity | None
    admin: bool
    proof: Verified | str | None = None


logger = logging.getLogger(__name__)

ANONYMOUS = Credentials(None, False)

_BOOLEANS = {"email_verified", "phone_number_verified"}


def admin_key_of(secret: bytes, instance_name: str) -> str:
    """The admin key of a database that many nodes serve, the same on each of them."""
    return f"{instance_name}|{hmac.digest(secret, b'admin key', 'sha256').hex()}"


def load_admin_key(database: Path, instance_name: str, key: str | None = None) -> str:
    """The admin key of a database, in the form ``name|secret``. Left beside it at the first start, readable by its owner only.

    Args:
        key: where it is not to be drawn.

    Raises:
        StoreReadOnly: it can be neither read nor made.
    """
    path = key_file(database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            found = path.read_text(encoding="utf-8").strip()
            if found and key in (None, found):
                return found
            # Cut short by a crash when it was made: nobody can have it. Or of another database that had this address.
            path.unlink(missing_ok=True)
            return load_admin_key(database, instance_name, key)
        key = key or f"{instance_name}|{secrets.token_hex(32)}"
        with os.fdopen(file, "w", encoding="utf-8") as out:
            out.write(f"{key}\n")
        return key
    except OSError as error:
        raise StoreReadOnly(
            f"{path}: the admin key cannot be read or written ({error.strerror}). Check the folder's permissions"
        ) from error


class _Providers:
    """The identity providers of the app and the environment variables in force. Asked before each message, so kept while both stay."""

    __slots__ = ("_declared", "_found", "_runner", "_ts")

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._declared: tuple[Declared, ...] = ()
        self._ts = Ts(0)  # as of which the variables are known
        self._found: tuple[Provider, ...] = ()

    def __call__(self) -> tuple[Provider, ...]:
        runner = self._runner
        declared, ts = runner.app.providers, runner.engine.environment.changed_ts
        if declared is not self._declared or ts != self._ts:
            self._declared, self._ts = declared, ts
            try:
                self._found = providers_with(declared, {**variables(runner.engine), **runner.addresses})
            except ReactorError as error:
                # Both were checked when they came into force; another node may serve other code.
                logger.error("Nobody can sign in: %s", error.message)
                self._found = ()
        return self._found


class Authenticator:
    """Verifies what callers show, over HTTP and over the socket.

    Args:
        admin_key: the server's own, in the form ``name|secret``.
        runner: whose app has the identity providers, and whose database the admin keys that were made besides.

    Attributes:
        keys: the admin keys that were made besides. There are none before they are loaded.
    """

    __slots__ = ("_admin_key", "_tokens", "keys")

    def __init__(self, admin_key: str, runner: Runner) -> None:
        self._admin_key = admin_key.encode()
        self._tokens = Tokens(_Providers(runner), runner.runtime, runner.limits)
        self.keys = AdminKeys(runner)

    async def close(self) -> None:
        """Ask identity providers and the database no more."""
        self.keys.close()
        await self._tokens.close()

    async def authorize(self, authorization: bytes | None, admin_key: str | None = None) -> Credentials:
        """Who sends a request.

        Args:
            authorization: the header of that name.
            admin_key: of the query parameter ``adminKey``, which counts where there is no header.

        Raises:
            AuthenticationError: codes ``InvalidAuthHeader``, ``BadDeployKey``, and those of ``user``.
        """
        if authorization is None:
            return ANONYMOUS if admin_key is None else self.admin(admin_key)
        scheme, _, credential = authorization.decode("latin-1").strip().partition(" ")
        credential = credential.strip()
        match scheme.lower():
            case "convex" if credential:
                return self.admin(credential)
            case "bearer" if credential:
                return await self.user(credential)
        raise AuthenticationError(
            "The Authorization header is not understood. Write 'Bearer <token>' or 'Convex <admin key>'.", code="InvalidAuthHeader"
        )

    def admin(self, credential: str, attributes: Mapping[str, Any] | None = None) -> Credentials:
        """Who shows an admin key.

        Args:
            credential: the key; behind a colon may follow the base64 of the JSON object of a user's attributes.
            attributes: of the user to act as, where they come beside the key.

        Raises:
            AuthenticationError: codes ``BadDeployKey``, and ``InvalidAuthHeader`` for attributes that are none.
        """
        key, encoded = _split_key(credential)
        own = hmac.compare_digest(key.encode(), self._admin_key)
        made = None if own else self.keys.hash_of(key)
        if not own and made is None:
            raise AuthenticationError(
                "The admin key is not this server's. The right one is in the file beside its database.", code="BadDeployKey"
            )
        if encoded is not None:
            attributes = _decode_attributes(encoded)
        return Credentials(None if attributes is None else _impersonate(attributes), True, made)

    async def user(self, token: str) -> Credentials:
        """Who shows a token of an identity provider. Waits only when the provider has to be asked for its keys.

        Raises:
            AuthenticationError: see ``reactor.services.auth.tokens.Tokens.verify``.
        """
        verified = await self._tokens.verify(token)
        return Credentials(verified.identity, False, verified)

    def check(self, shown: Credentials) -> None:
        """Check that what was shown still holds.

        Raises:
            AuthenticationError: the token has expired, or its issuer is no provider any more; or the admin key was revoked.
        """
        if isinstance(shown.proof, Verified):
            self._tokens.check(shown.proof)
        elif shown.proof is not None and not self.keys.has(shown.proof):
            raise AuthenticationError("The admin key was revoked.", code="BadDeployKey")


def _split_key(credential: str) -> tuple[str, str | None]:
    """The key, and what follows its colon. A type before the name, as in ``prod:name|secret``, is left out."""
    name, bar, rest = credential.partition("|")
    if bar:
        credential = f"{name.rpartition(':')[2]}|{rest}"
    key, colon, encoded = credential.partition(":")
    return key, encoded if colon else None


def _decode_attributes(encoded: str) -> Mapping[str, Any]:
    try:
        attributes = orjson.loads(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        attributes = None
    if not isinstance(attributes, dict):
        raise _invalid("what follows it is not the base64 of a JSON object")
    return attributes


def _impersonate(attributes: Mapping[str, Any]) -> Identity:
    """The identity with these attributes, named as on the wire. Those beyond the standard ones are claims."""
    standard: dict[str, Any] = {}
    claims: dict[str, Any] = {}
    for wire_name, value in attributes.items():
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in wire_name)
        if name not in STANDARD_CLAIMS:
            claims[wire_name] = value
        elif isinstance(value, bool if name in _BOOLEANS else str):
            standard[name] = value
        elif value is not None:
            raise _invalid(f"its attribute {wire_name!r} is a {type(value).__name__}")
    if not standard.get("subject"):
        issuer, _, subject = standard.get("token_identifier", "").rpartition("|")
        if not subject:
            raise _invalid("it has neither 'subject' nor 'tokenIdentifier'")
        standard = {"issuer": issuer, **standard, "subject": subject}
    return Identity(**standard, claims=claims)


def _invalid(reason: str) -> AuthenticationError:
    return AuthenticationError(f"The identity to act as, given with the admin key, cannot be used: {reason}.", code="InvalidAuthHeader")
