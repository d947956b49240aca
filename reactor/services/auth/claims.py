"""What a token's claims are called in an ``Identity``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from reactor.functions.identity import Identity
from reactor.functions.providers import OIDC, Provider

__all__ = ["identity_of"]

#: Claims about the token, not about who it is for. They differ between two tokens of one session, whose queries are the same.
_HOUSEKEEPING = frozenset(
    ("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "auth_time", "nonce", "at_hash", "c_hash", "acr", "amr", "fva", "rat")
)
_TEXTS = {
    "name": "name",
    "given_name": "given_name",
    "family_name": "family_name",
    "nickname": "nickname",
    "preferred_username": "preferred_username",
    "profile": "profile_url",
    "picture": "picture_url",
    "website": "website_url",
    "email": "email",
    "gender": "gender",
    "birthdate": "birthday",
    "zoneinfo": "timezone",
    "locale": "language",
    "phone_number": "phone_number",
}
_BOOLEANS = {"email_verified": "email_verified", "phone_number_verified": "phone_number_verified"}


def identity_of(provider: Provider, claims: Mapping[str, Any]) -> Identity:
    """The identity that verified claims tell.

    Those of OpenID Connect get the names of its standard claims; of a ``CustomJWT`` nothing is known but issuer and subject, and
    objects are flattened to dotted names. A standard claim of another type than the standard's is a claim like any other.
    """
    others = {name: value for name, value in claims.items() if name not in _HOUSEKEEPING and value is not None}
    if not isinstance(provider, OIDC):
        return Identity(claims["sub"], claims["iss"], claims=dict(_flat(others, "")))
    standard: dict[str, Any] = {}
    for name, value in list(others.items()):
        field, known = _standard(name, value)
        if field is not None:
            standard[field] = known
            del others[name]
    return Identity(claims["sub"], claims["iss"], **standard, claims=others)


def _standard(name: str, value: Any) -> tuple[str | None, Any]:
    if name in _TEXTS and isinstance(value, str):
        return _TEXTS[name], value
    if name in _BOOLEANS and (value in ("true", "false") or isinstance(value, bool)):
        # Some providers write it as text.
        return _BOOLEANS[name], value is True or value == "true"
    if name == "address" and isinstance(value, dict) and isinstance(value.get("formatted"), str):
        return "address", value["formatted"]
    if name == "updated_at":
        return ("updated_at", text) if (text := _time(value)) is not None else (None, None)
    return None, None


def _time(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value, UTC).isoformat()
        except (OverflowError, ValueError, OSError):
            return None
    return None


def _flat(claims: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in claims.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
