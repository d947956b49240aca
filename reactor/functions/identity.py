"""Who calls."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from typing import Any

from msgspec import Struct

from reactor.errors import AuthenticationError

__all__ = ["STANDARD_CLAIMS", "Auth", "Caller", "Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified identity.

    Attributes:
        subject: who, as the issuer says it.
        issuer: who vouches for it.
        token_identifier: ``issuer|subject``: unique among all issuers.
        claims: what the token says beyond the standard claims, by name.

    The standard claims are None where the token does not have them. Two identities are equal when no function could tell them apart.
    """

    subject: str
    issuer: str = ""
    token_identifier: str = ""
    name: str | None = None
    given_name: str | None = None
    family_name: str | None = None
    nickname: str | None = None
    preferred_username: str | None = None
    profile_url: str | None = None
    picture_url: str | None = None
    website_url: str | None = None
    email: str | None = None
    email_verified: bool | None = None
    gender: str | None = None
    birthday: str | None = None
    timezone: str | None = None
    language: str | None = None
    phone_number: str | None = None
    phone_number_verified: bool | None = None
    address: str | None = None
    updated_at: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, compare=False)
    # 1 == True == 1.0, but a function may give another result for each.
    _claims_text: str = field(init=False, repr=False, hash=False, default="")

    def __post_init__(self) -> None:
        if not self.token_identifier:
            object.__setattr__(self, "token_identifier", f"{self.issuer}|{self.subject}")
        object.__setattr__(self, "_claims_text", repr(sorted(self.claims.items())))


#: The attributes of an identity that have a name of their own.
STANDARD_CLAIMS = frozenset(field.name for field in fields(Identity) if field.init) - {"claims"}


class Caller(Struct, frozen=True, gc=False):
    """Where a call comes from.

    Attributes:
        admin: may run internal functions, and sees errors in full.
        request_id: 16 hex digits that name the call in logs and error texts.
        origin: ``sync``, ``http``, ``http action``, ``cli``, ``action``, ``scheduler``, ``cron`` or ``test``.
        job: the id of the scheduled function that this call is, or that it is a part of.
    """

    identity: Identity | None = None
    admin: bool = False
    request_id: str = ""
    origin: str = "test"
    job: str | None = None


class Auth:
    """``ctx.auth``: the identity of the caller. Looking at it makes a query's result that caller's own."""

    __slots__ = ("_identity", "used")

    def __init__(self, identity: Identity | None) -> None:
        self._identity = identity
        self.used = False

    async def identity(self) -> Identity | None:
        """Who calls, or None."""
        identity = self._identity
        if identity is not None and identity.claims and not self.used:
            # Of this run's own: what it does to a list among them, other runs must not see.
            identity = self._identity = replace(identity, claims=deepcopy(dict(identity.claims)))
        self.used = True
        return identity

    async def require(self) -> Identity:
        """Who calls.

        Raises:
            AuthenticationError: nobody is signed in.
        """
        identity = await self.identity()
        if identity is None:
            raise AuthenticationError("This function needs a signed-in caller, and there is none.")
        return identity
