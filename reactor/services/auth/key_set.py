"""The public keys of one identity provider: found, kept, and looked for anew when they are changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError
from jwt.api_jws import PyJWS

from reactor.engine.runtime import Runtime
from reactor.errors import AuthenticationError
from reactor.functions.providers import OIDC, Algorithm, Provider, origin_of, same_issuer
from reactor.services.auth.fetching import fetch_json, misconfigured

__all__ = ["KeySet"]

#: Keys are used this long without a question. Afterwards they are fetched anew while the known ones go on serving.
FRESH_S = 600.0
#: Keys are used this long when the provider cannot be asked: long enough for its outage, not so long that a key it
#: withdrew is taken for ever.
KEPT_S = 86_400.0
#: Tokens that name unknown keys cause one fetch in this time, whoever sends them.
COOL_DOWN_S = 10.0
#: After a fetch that failed the next one waits this long.
RETRY_S = 2.0
RSA_BITS = 2048

_DISCOVERY = "/.well-known/openid-configuration"
_ALGORITHMS: dict[tuple[Any, Any], Algorithm] = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_NAMES = {"RS256": ("RS256",), "ES256": ("ES256",), "EdDSA": ("EdDSA", "Ed25519")}

logger = logging.getLogger(__name__)

_JWS = PyJWS()


class KeySet:
    """The keys of ``provider``.

    Attributes:
        fetches: how often the provider was asked, for tests.
    """

    def __init__(self, provider: Provider, runtime: Runtime) -> None:
        self._provider = provider
        self._runtime = runtime
        self._keys: list[PyJWK] = []
        self._fetched_s: float | None = None  # when _keys were fetched
        self._looked_s: float | None = None  # when an unknown key was looked for
        self._failure: AuthenticationError | None = None  # of the newest fetch
        self._failed_s = 0.0
        self._running: asyncio.Task[None] | None = None
        self.fetches = 0

    async def check(self, token: str, kid: str | None, algorithm: Algorithm) -> None:
        """Check who signed ``token``. Waits only when keys have to be fetched; cancelling it is safe.

        Args:
            kid: names the key; may be None where the provider has one of the kind.

        Raises:
            AuthenticationError: it was not signed with that key, or there is none. Codes ``AuthProviderUnreachable`` and
                ``AuthProviderDiscoveryFailed``: none is known.
        """
        key = await self._key(kid, algorithm)
        try:
            _JWS.decode_complete(token, key, algorithms=[key.algorithm_name])
        except (PyJWTError, ValueError, RecursionError):
            raise AuthenticationError("The token's signature is not its issuer's.") from None

    async def _key(self, kid: str | None, algorithm: Algorithm) -> PyJWK:
        now_s = self._runtime.monotonic_s()
        age_s = None if self._fetched_s is None else now_s - self._fetched_s
        if age_s is None or age_s > KEPT_S:
            await self._fetched()
        elif age_s > FRESH_S and not self._resting(now_s):
            self._start()
        found = self._find(kid, algorithm)
        if found is None and (self._failure is not None or self._looked_s is None or now_s - self._looked_s > COOL_DOWN_S):
            # The provider may have changed its keys.
            self._looked_s = now_s
            await self._fetched()
            found = self._find(kid, algorithm)
        if found is None:
            named = (
                "names no key, and its issuer has not one alone"
                if kid is None
                else f"names the key {kid[:100]!r}, which its issuer has not"
            )
            raise AuthenticationError(f"The token {named} for {algorithm}.")
        return found

    async def close(self) -> None:
        """Fetch no more."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    def _find(self, kid: str | None, algorithm: Algorithm) -> PyJWK | None:
        found = [key for key in self._keys if key.algorithm_name == algorithm and kid in (None, key.key_id)]
        return found[0] if found and (kid is not None or len(found) == 1) else None

    def _resting(self, now_s: float) -> bool:
        return self._failure is not None and now_s - self._failed_s < RETRY_S

    async def _fetched(self) -> None:
        """Wait for a fetch: the one that runs, or a new one, unless the last has just failed.

        Raises:
            AuthenticationError: it failed.
        """
        if self._running is not None or not self._resting(self._runtime.monotonic_s()):
            await asyncio.shield(self._start())
        if self._failure is not None:
            raise AuthenticationError(self._failure.message, code=self._failure.code)

    def _start(self) -> asyncio.Task[None]:
        if self._running is None:
            self._running = asyncio.create_task(self._fetch(), name="reactor-auth-keys")
            self._running.add_done_callback(self._ended)
        return self._running

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running = None

    async def _fetch(self) -> None:
        self.fetches += 1
        try:
            self._keys = list(_usable(await fetch_json(await self._url())))
        except AuthenticationError as error:
            self._failure = error
            self._failed_s = self._runtime.monotonic_s()
            known = "Keys known before go on serving. " if self._fetched_s is not None else ""
            logger.warning("The keys of %s cannot be fetched. %s%s", self._provider.issuer, known, error.message)
        else:
            self._failure = None
            self._fetched_s = self._runtime.monotonic_s()

    async def _url(self) -> str:
        """Where the keys are."""
        provider = self._provider
        if provider.jwks is not None:
            return provider.jwks
        assert isinstance(provider, OIDC)
        document = await fetch_json(provider.issuer.rstrip("/") + _DISCOVERY)
        issuer, url = document.get("issuer"), document.get("jwks_uri")
        if not isinstance(issuer, str) or not same_issuer(issuer, provider.issuer):
            raise misconfigured(f"The configuration of {provider.issuer} is that of another issuer, {str(issuer)[:200]!r}.")
        if not isinstance(url, str) or not _same_origin(url, provider.issuer):
            raise misconfigured(
                f"The configuration of {provider.issuer} says that its keys are on another host, at {str(url)[:200]!r}. "
                "If that is right, write it in auth_config.py: OIDC(…, jwks=…)."
            )
        return url


def _same_origin(one: str, other: str) -> bool:
    try:
        return origin_of(one) == origin_of(other)
    except ValueError:
        return False


def _usable(document: dict[str, Any]) -> Iterator[PyJWK]:
    """The public keys of a set that verify signatures by an algorithm that is allowed."""
    keys = document.get("keys")
    if not isinstance(keys, list):
        raise misconfigured('The set of keys has no list "keys".')
    for jwk in keys[:100]:
        if not isinstance(jwk, dict) or "d" in jwk or jwk.get("use", "sig") != "sig":
            continue
        named = jwk.get("kty"), jwk.get("crv")  # compared, since what they are may be no key of a dict
        algorithm = next((algorithm for kind, algorithm in _ALGORITHMS.items() if kind == named), None)
        if algorithm is None or jwk.get("alg", algorithm) not in _NAMES[algorithm] or not isinstance(jwk.get("kid"), str | None):
            continue
        try:
            key = PyJWK(jwk, algorithm)
        except (PyJWTError, ValueError, TypeError):
            continue  # one of another kind among good ones
        if not isinstance(key.key, RSAPublicKey) or key.key.key_size >= RSA_BITS:
            yield key
