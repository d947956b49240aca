"""Identity providers: what ``app_functions/auth_config.py`` declares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from reactor.errors import CodeError, EnvironmentVariableError, ReactorError

__all__ = ["OIDC", "Algorithm", "CustomJWT", "Declared", "Provider", "origin_of", "providers_in", "providers_with", "same_issuer"]

#: Signatures whose key may be public. With a shared secret whoever verifies tokens could make them.
Algorithm: TypeAlias = Literal["RS256", "ES256", "EdDSA"]

_LOCAL = ("localhost", "127.0.0.1", "::1")
#: Issuers whose tokens are made for anybody's application: without an audience, another's tokens would be taken.
_SHARED = (
    "https://accounts.google.com",
    "https://api.workos.com",
    "https://appleid.apple.com",
    "https://github.com/login/oauth",
    "https://gitlab.com",
    "https://login.microsoftonline.com/common/v2.0",
    "https://token.actions.githubusercontent.com",
    "https://www.facebook.com",
)


@dataclass(frozen=True, slots=True)
class OIDC:
    """A provider of OpenID Connect, which tells itself where its keys are: ``OIDC("https://…", audience="…")``.

    Args:
        issuer: the ``iss`` of its tokens; ``https://`` may be left out. Its keys are found through
            ``<issuer>/.well-known/openid-configuration``.
        audience: the ``aud`` of tokens made for this app: one, and no other beside it.
        jwks: where the keys are, for a provider that keeps them on another host than its own. Then it is asked nothing else.

    Raises:
        CodeError: a URL or the audience cannot be used.
    """

    issuer: str
    audience: str
    jwks: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "issuer", _issuer(self.issuer))
        if not self.audience or not isinstance(self.audience, str):
            raise _wrong(f'OIDC({self.issuer!r}) needs the audience that its tokens for this app have. Write audience="…".')
        if self.jwks is not None:
            _check_url(self.jwks, "jwks")

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """How its tokens may be signed."""
        return get_args(Algorithm)


@dataclass(frozen=True, slots=True)
class CustomJWT:
    """Whoever makes signed tokens: ``CustomJWT(issuer="…", jwks="https://…", algorithm="RS256", audience="…")``.

    Args:
        issuer: the ``iss`` of its tokens.
        jwks: where its public keys are: a URL, or a ``data:`` URI that holds them.
        algorithm: how its tokens are signed: ``RS256``, ``ES256`` or ``EdDSA``.
        audience: what must be among their ``aud``. None, and it is not looked at: for issuers that serve this app alone.

    Raises:
        CodeError: one of these cannot be used.
    """

    issuer: str
    jwks: str
    algorithm: Algorithm
    audience: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "issuer", _issuer(self.issuer))
        if not self.jwks.startswith("data:"):
            _check_url(self.jwks, "jwks")
        if self.algorithm not in get_args(Algorithm):
            raise _wrong(f"CustomJWT({self.issuer!r}): the algorithm is one of {', '.join(get_args(Algorithm))}, not {self.algorithm!r}.")
        if not self.audience and any(same_issuer(self.issuer, shared) for shared in _SHARED):
            raise _wrong(
                f"CustomJWT({self.issuer!r}): this issuer makes tokens for applications of anybody. "
                'Say which are for yours with audience="…".'
            )

    @property
    def algorithms(self) -> tuple[Algorithm, ...]:
        """How its tokens may be signed."""
        return (self.algorithm,)


Provider: TypeAlias = OIDC | CustomJWT

#: A provider as it was declared, or a function that makes some from the environment variables.
Declared: TypeAlias = Provider | Callable[[Mapping[str, str]], Any]

#: What such a function is called.
_FUNCTION = "providers"


def same_issuer(one: str, other: str) -> bool:
    """Whether two texts name one issuer. A slash at the end does not count."""
    return one.rstrip("/") == other.rstrip("/")


def origin_of(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port of a URL.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


class _Needed(Mapping[str, str]):
    """Variables, of which one that is missing is named with what to do."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> str:
        if name not in self._values:
            raise EnvironmentVariableError(
                f"auth_config.py needs the environment variable {str(name)[:100]}, which is not set. "
                f"Set it with: reactor env set {str(name)[:100]} VALUE",
                code="MissingEnvironmentVariables",
            )
        return self._values[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self._values.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def providers_in(names: Mapping[str, Any]) -> tuple[Declared, ...]:
    """The providers that stand in a module, alone or in lists, in their order, and its function ``providers(env)``.

    Raises:
        CodeError: there is none.
    """
    made = names.get(_FUNCTION)
    found = (*dict.fromkeys(_flat(names.values())), *([made] if isinstance(made, FunctionType) else []))
    if not found:
        raise _wrong("auth_config.py declares no identity provider. Write providers = [OIDC(issuer=…, audience=…)], or remove it.")
    return found


def providers_with(declared: Iterable[Declared], variables: Mapping[str, str]) -> tuple[Provider, ...]:
    """The providers of an app whose environment variables are ``variables``.

    Raises:
        EnvironmentVariableError: code ``MissingEnvironmentVariables``: one that is needed is not set.
        CodeError: a function of the app's fails, or makes none.
    """
    found: list[Provider] = []
    for item in declared:
        if isinstance(item, OIDC | CustomJWT):
            found.append(item)
            continue
        try:
            made = list(_flat([item(_Needed(variables))]))
        except ReactorError:
            raise
        except Exception as error:
            # Not with its text, which may repeat a value.
            raise _wrong(f"auth_config.py: {_FUNCTION}(env) raised {type(error).__name__}.") from error
        if not made:
            raise _wrong(f"auth_config.py: {_FUNCTION}(env) gives no identity provider. Return [OIDC(issuer=…, audience=…)].")
        found += made
    return tuple(dict.fromkeys(found))


def _flat(values: Iterable[Any]) -> Iterator[Provider]:
    for value in values:
        if isinstance(value, OIDC | CustomJWT):
            yield value
        elif isinstance(value, list | tuple):
            yield from _flat(value)


def _issuer(issuer: str) -> str:
    url = issuer if "://" in issuer else f"https://{issuer}"
    _check_url(url, "issuer")
    return url


def _check_url(url: str, what: str) -> None:
    try:
        scheme, host, _ = origin_of(url)
    except ValueError:
        scheme, host = "", None
    # Whoever sits between the two could put keys of their own in the place of those that come unencrypted.
    if not host or (scheme != "https" and not (scheme == "http" and host in _LOCAL)):
        raise _wrong(f"The {what} {url!r} is not a URL with https. Unencrypted ones can be on this machine only.")


def _wrong(message: str) -> CodeError:
    return CodeError(message, code="InvalidAuthConfig")
