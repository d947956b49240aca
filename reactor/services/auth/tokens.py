"""Who shows a token: it is read, its issuer is one of the app's, and every rule of what makes it valid holds."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import orjson

from reactor.engine.runtime import Runtime
from reactor.errors import AuthenticationError
from reactor.functions.identity import Identity
from reactor.functions.providers import OIDC, Algorithm, Provider, same_issuer
from reactor.limits import Limits
from reactor.services.auth.claims import identity_of

if TYPE_CHECKING:
    from reactor.services.auth.key_set import KeySet

__all__ = ["Tokens", "Verified"]

#: How far the clocks of the issuer and of this machine may be apart.
TOLERANCE_S = 5

_TYPES = (None, "jwt", "at+jwt", "application/jwt", "application/at+jwt")


class Verified(NamedTuple):
    """A token that holds.

    Attributes:
        expires_s: since the epoch; from then on it holds no more.
    """

    identity: Identity
    provider: Provider
    expires_s: float


class Tokens:
    """Verifies tokens of the app's identity providers.

    Args:
        providers: those of the app in force, in the order in which they are tried.
    """

    def __init__(self, providers: Callable[[], tuple[Provider, ...]], runtime: Runtime, limits: Limits) -> None:
        self._providers = providers
        self._runtime = runtime
        self._limits = limits
        self._key_sets: dict[Provider, KeySet] = {}

    async def verify(self, token: str) -> Verified:
        """Who shows ``token``. Waits only when keys have to be fetched; cancelling it is safe.

        Raises:
            AuthenticationError: the token does not hold; says why. Codes: ``InvalidAuthHeader`` for what is no token,
                ``NoAuthProvider``, ``Unauthenticated``, and ``AuthProviderUnreachable`` and ``AuthProviderDiscoveryFailed`` when
                its issuer's keys cannot be had: only the first of these two may pass by itself.
        """
        if not self._providers():
            raise AuthenticationError("No identity provider is configured, so no token can be accepted.", code="NoAuthProvider")
        header, claims = self._read(token)
        provider = self._provider_of(claims)
        # Before the signature, and so that no token that could not hold makes us ask its issuer.
        expires_s = self._check_times(claims)
        if not isinstance(claims.get("sub"), str) or not claims["sub"]:
            raise AuthenticationError("The token has no 'sub'.")
        algorithm = _algorithm(header, provider)
        kid = header.get("kid")
        if not isinstance(kid, str) and not (kid is None and isinstance(provider, OIDC)):
            raise AuthenticationError("The token's header has no 'kid', which names its key.")
        await self._keys(provider).check(token, kid, algorithm)
        return Verified(identity_of(provider, claims), provider, expires_s)

    def check(self, verified: Verified) -> None:
        """Check that what was verified still holds.

        Raises:
            AuthenticationError: the token has expired, or its issuer is no provider of the app any more.
        """
        if self._runtime.now_ns() >= verified.expires_s * 1e9:
            raise AuthenticationError("The token has expired.")
        if verified.provider not in self._providers():
            raise _no_provider(verified.identity.issuer)

    async def close(self) -> None:
        """Fetch no more keys."""
        for keys in self._key_sets.values():
            await keys.close()

    # --- reading

    def _read(self, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Header and claims, nothing verified."""
        if len(token) > self._limits.token_size_bytes:
            raise AuthenticationError(
                f"The token has {len(token)} bytes, at most {self._limits.token_size_bytes} are read. Put less into its claims.",
                code="InvalidAuthHeader",
            )
        parts = token.split(".")
        if len(parts) != 3:
            raise _no_token()
        return _object(parts[0]), _object(parts[1])

    def _provider_of(self, claims: Mapping[str, Any]) -> Provider:
        """The first provider with the token's issuer, and its audience.

        Raises:
            AuthenticationError: there is none.
        """
        issuer = claims.get("iss")
        if not isinstance(issuer, str):
            raise AuthenticationError("The token has no 'iss'.")
        same = [provider for provider in self._providers() if same_issuer(provider.issuer, _with_scheme(issuer))]
        if not same:
            raise _no_provider(issuer)
        for provider in same:
            if _is_for(provider, claims.get("aud")):
                return provider
        raise AuthenticationError("The token's 'aud' is not the audience that auth_config.py has for its issuer.")

    def _check_times(self, claims: Mapping[str, Any]) -> float:
        """When the token expires, in s since the epoch, what the clocks may be apart included."""
        now_s = self._runtime.now_ns() / 1e9
        expires, begins = claims.get("exp"), claims.get("nbf", 0)
        if not _is_number(expires):
            raise AuthenticationError("The token has no 'exp': one that never expires is not accepted.")
        if not _is_number(begins):
            raise AuthenticationError("The token's 'nbf' is not a number.")
        if expires + TOLERANCE_S <= now_s:
            raise AuthenticationError("The token has expired.")
        if begins - TOLERANCE_S > now_s:
            raise AuthenticationError("The token is not valid yet.")
        return float(expires + TOLERANCE_S)

    # --- verifying

    def _keys(self, provider: Provider) -> KeySet:
        # Kept when code is pushed: the providers are equal then, if they are the same.
        keys = self._key_sets.get(provider)
        if keys is None:
            # Cryptography is a tenth of what a server imports. Many have no use for it.
            from reactor.services.auth.key_set import KeySet

            keys = self._key_sets[provider] = KeySet(provider, self._runtime)
        return keys


def _object(part: str) -> dict[str, Any]:
    try:
        value = orjson.loads(base64.urlsafe_b64decode(part.encode() + b"=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        value = None
    if not isinstance(value, dict):
        raise _no_token()
    return value


def _algorithm(header: Mapping[str, Any], provider: Provider) -> Algorithm:
    """How the token is signed, if its provider may sign so. ``none``, and secrets shared with who verifies, never are."""
    kind = header.get("typ")
    if (kind.lower() if isinstance(kind, str) else kind) not in _TYPES:
        raise AuthenticationError(f"The token is of type {str(kind)[:50]!r}: it is for something else than signing in.")
    for algorithm in provider.algorithms:
        if header.get("alg") == algorithm:
            return algorithm
    raise AuthenticationError(
        f"The token is signed with {str(header.get('alg'))[:50]!r}; of its issuer {' or '.join(provider.algorithms)} is accepted."
    )


def _is_for(provider: Provider, audience: Any) -> bool:
    named = [audience] if isinstance(audience, str) else audience
    if isinstance(provider, OIDC):
        return isinstance(named, list) and named == [provider.audience]
    return provider.audience is None or (isinstance(named, list) and provider.audience in named)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _with_scheme(issuer: str) -> str:
    return issuer if "://" in issuer else f"https://{issuer}"


def _no_token() -> AuthenticationError:
    return AuthenticationError(
        "This is no token: header.claims.signature was expected, as identity providers make it.", code="InvalidAuthHeader"
    )


def _no_provider(issuer: str) -> AuthenticationError:
    return AuthenticationError(
        f"No identity provider in auth_config.py has the issuer {issuer[:200]!r} of this token.", code="NoAuthProvider"
    )
