"""Which tokens are accepted, as whom, and which are refused; against an identity provider that answers over HTTP."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import jwt
import pytest

from reactor.errors import AuthenticationError, CodeError
from reactor.functions.providers import OIDC, CustomJWT, Provider, providers_in
from reactor.limits import DEFAULT_LIMITS
from reactor.services.auth import key_set
from reactor.services.auth.fetching import UNREACHABLE
from reactor.services.auth.tokens import Tokens
from reactor.testing import VirtualRuntime
from tests.support.issuer import Issuer, jwk_of, new_key, private_key
from tests.support.waiting import eventually_async

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("tokens and keys, of which no store hears")]


class Verifier(Tokens):
    """Verifies for some providers, by a clock that the test moves."""

    def __init__(self, *providers: Provider) -> None:
        self.runtime = VirtualRuntime(time.time_ns())
        self.providers = providers
        super().__init__(lambda: self.providers, self.runtime, DEFAULT_LIMITS)

    def advance(self, seconds: float) -> None:
        self.runtime.advance(timedelta(seconds=seconds))

    async def refuses(self, token: str, match: str, code: str = "Unauthenticated") -> None:
        with pytest.raises(AuthenticationError, match=match) as refused:
            await self.verify(token)
        assert refused.value.code == code
        assert token[:60] not in refused.value.message


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
async def verifier(issuer: Issuer, anyio_backend: str) -> AsyncIterator[Verifier]:
    verifier = Verifier(OIDC(issuer.url, "app"))
    yield verifier
    await verifier.close()


def custom(issuer: Issuer, **changed: Any) -> CustomJWT:
    return CustomJWT(**{"issuer": issuer.url, "jwks": issuer.jwks_url, "algorithm": "RS256", "audience": "app", **changed})


# --- accepted


@pytest.mark.parametrize("kid", ["rs", "es", "ed"])
async def test_each_algorithm_verifies_by_keys_that_are_found_and_kept(issuer: Issuer, verifier: Verifier, kid: str) -> None:
    for _ in range(3):
        verified = await verifier.verify(issuer.token(kid))
        assert verified.identity.token_identifier == f"{issuer.url}|ann"
    assert issuer.asked == ["/.well-known/openid-configuration", "/jwks"]


async def test_a_slash_behind_the_issuer_does_not_count(issuer: Issuer) -> None:
    issuer.configuration["issuer"] = f"{issuer.url}/"
    verifier = Verifier(OIDC(f"{issuer.url}/", "app"))
    verified = await verifier.verify(issuer.token(iss=f"{issuer.url}/"))
    assert verified.identity.issuer == f"{issuer.url}/"
    await verifier.verify(issuer.token())


async def test_without_a_key_id_the_only_key_of_the_algorithm_is_meant(issuer: Issuer, verifier: Verifier) -> None:
    await verifier.verify(issuer.token(None))
    issuer.keys["rs2"] = "RS256"
    verifier.advance(key_set.FRESH_S + 1)
    await verifier.verify(issuer.token(None))  # which begins to fetch the keys anew
    await eventually_async(lambda: issuer.asked.count("/jwks") == 2, "the keys to be fetched anew")
    await eventually_async(lambda: verifier._keys(verifier.providers[0])._running is None, "the keys to have come")
    await verifier.refuses(issuer.token(None), "names no key")


async def test_standard_claims_get_their_names_and_others_are_kept_as_they_are(issuer: Issuer, verifier: Verifier) -> None:
    token = issuer.token(
        name="Ann Lee",
        given_name="Ann",
        family_name="Lee",
        nickname="annie",
        preferred_username="ann",
        profile="https://a/p",
        picture="https://a/i",
        website="https://a",
        email="ann@a",
        email_verified="true",
        gender="f",
        birthdate="1990-01-02",
        zoneinfo="Europe/Paris",
        locale="fr",
        phone_number="+33",
        phone_number_verified=False,
        address={"formatted": "1 Rue A"},
        updated_at=86_400,
        nbf=1,
        jti="x",
        fva=[1, -1],
        roles=["a", {"b": 1}],
        org={"id": 1},
        middle_name=None,
    )
    who = (await verifier.verify(token)).identity
    assert (who.name, who.given_name, who.family_name, who.nickname, who.preferred_username) == ("Ann Lee", "Ann", "Lee", "annie", "ann")
    assert (who.profile_url, who.picture_url, who.website_url, who.email, who.email_verified) == (
        "https://a/p",
        "https://a/i",
        "https://a",
        "ann@a",
        True,
    )
    assert (who.gender, who.birthday, who.timezone, who.language) == ("f", "1990-01-02", "Europe/Paris", "fr")
    assert (who.phone_number, who.phone_number_verified, who.address) == ("+33", False, "1 Rue A")
    assert who.updated_at == "1970-01-02T00:00:00+00:00"
    assert who.claims == {"roles": ["a", {"b": 1}], "org": {"id": 1}}


async def test_a_standard_claim_of_another_type_is_a_claim_like_any_other(issuer: Issuer, verifier: Verifier) -> None:
    who = (await verifier.verify(issuer.token(email=5, address="1 Rue A", email_verified="perhaps", updated_at=1e300))).identity
    assert (who.email, who.address, who.email_verified, who.updated_at) == (None, None, None, None)
    assert who.claims == {"email": 5, "address": "1 Rue A", "email_verified": "perhaps", "updated_at": 1e300}


async def test_two_tokens_of_one_session_are_one_identity_and_one_and_true_are_two(issuer: Issuer, verifier: Verifier) -> None:
    def token(**claims: Any) -> str:
        return issuer.token(**claims)

    first = (await verifier.verify(token(jti="1", exp=int(time.time()) + 60, level=1))).identity
    again = (await verifier.verify(token(jti="2", level=1))).identity
    other = (await verifier.verify(token(level=True))).identity
    assert first == again and hash(first) == hash(again) and first != other


async def test_the_session_token_of_clerk(issuer: Issuer, verifier: Verifier) -> None:
    """As Clerk's template for backends of this protocol makes it."""
    token = issuer.token(
        "rs",
        headers={"cat": "cl_B7d4PD222AAA"},
        sub="user_2abc",
        azp="http://localhost:5173",
        jti="4c1",
        nbf=int(time.time()) - 5,
        name="Ann Lee",
        email="ann@example.com",
        email_verified=True,
        picture="https://img.clerk.com/x",
        updated_at="2026-01-02 03:04:05",
        public_metadata={"role": "admin"},
    )
    who = (await verifier.verify(token)).identity
    assert (who.subject, who.name, who.email, who.email_verified) == ("user_2abc", "Ann Lee", "ann@example.com", True)
    assert who.updated_at == "2026-01-02 03:04:05"
    assert who.claims == {"azp": "http://localhost:5173", "public_metadata": {"role": "admin"}}


async def test_the_access_token_of_workos_authkit() -> None:
    """It has no audience, and an issuer with a path; the keys are at another path of the same host."""
    client = "client_01HX"
    with Issuer(f"/user_management/{client}") as issuer:
        jwks = f"{issuer.origin}/sso/jwks/{client}"
        issuer.answers[f"/sso/jwks/{client}"] = (200, {}, json.dumps(issuer.jwks()).encode())
        verifier = Verifier(
            CustomJWT(issuer=f"{issuer.origin}/", jwks=jwks, algorithm="RS256", audience=client),
            CustomJWT(issuer=issuer.url, jwks=jwks, algorithm="RS256"),
        )
        claims: dict[str, Any] = {
            "aud": None,
            "sub": "user_01",
            "sid": "session_01",
            "org_id": "org_01",
            "role": "admin",
            "permissions": ["a:read"],
        }
        who = (await verifier.verify(issuer.token(**claims, jti="x", properties={"plan": {"seats": 3}}))).identity
        assert who.token_identifier == f"{issuer.url}|user_01"
        assert who.claims == {
            "sid": "session_01",
            "org_id": "org_01",
            "role": "admin",
            "permissions": ["a:read"],
            "properties.plan.seats": 3,
        }
        assert who.name is None
        await verifier.verify(issuer.token(iss=f"{issuer.origin}/", aud=client))
        assert issuer.asked == [f"/sso/jwks/{client}"] * 2, "each provider's keys once"
        await verifier.close()


async def test_keys_can_stand_in_the_configuration_itself(issuer: Issuer) -> None:
    inline = base64.b64encode(json.dumps(issuer.jwks()).encode()).decode()
    for uri in (f"data:application/json;base64,{inline}", f"data:application/json,{json.dumps(issuer.jwks())}"):
        verifier = Verifier(custom(issuer, jwks=uri, algorithm="EdDSA"))
        assert (await verifier.verify(issuer.token("ed"))).identity.subject == "ann"
    assert issuer.asked == []


# --- refused


def unsigned(issuer: Issuer, **claims: Any) -> str:
    return jwt.encode(issuer.claims(**claims), "", "none", {"kid": "rs"})


async def test_a_token_without_a_signature_is_refused(issuer: Issuer, verifier: Verifier) -> None:
    await verifier.refuses(unsigned(issuer), "signed with 'none'")
    header, claims, _ = issuer.token().split(".")
    await verifier.refuses(f"{header}.{claims}.", "signature")
    assert "/jwks" in issuer.asked


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize("algorithm", ["HS256", "hs256", "HS512"])
async def test_a_public_key_is_not_taken_for_a_shared_secret(issuer: Issuer, verifier: Verifier, algorithm: str) -> None:
    text = f"{part({'alg': algorithm, 'kid': 'rs', 'typ': 'JWT'})}.{part(issuer.claims())}"
    signature = hmac.digest(issuer.public_pem(), text.encode(), "sha256")
    token = f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    await verifier.refuses(token, f"signed with '{algorithm}'")


async def test_another_key_of_the_same_name_does_not_sign(issuer: Issuer, verifier: Verifier) -> None:
    forged = jwt.encode(issuer.claims(), new_key("RS256"), "RS256", {"kid": "rs"})
    await verifier.refuses(forged, "signature")


async def test_claims_that_were_changed_are_refused(issuer: Issuer, verifier: Verifier) -> None:
    header, _, signature = issuer.token().split(".")
    await verifier.refuses(f"{header}.{part(issuer.claims(sub='admin'))}.{signature}", "signature")


async def test_one_providers_key_does_not_sign_for_another(issuer: Issuer) -> None:
    with Issuer() as other:
        other.keys = {"theirs": "RS256"}
        verifier = Verifier(OIDC(issuer.url, "app"), OIDC(other.url, "app"))
        await verifier.refuses(other.token("theirs", iss=issuer.url), "names the key 'theirs'")
        assert (await verifier.verify(other.token("theirs"))).identity.issuer == other.url
        await verifier.close()


async def test_the_algorithm_is_the_keys_own(issuer: Issuer) -> None:
    verifier = Verifier(custom(issuer, algorithm="ES256"))
    await verifier.refuses(issuer.token("rs"), "signed with 'RS256'; of its issuer ES256")
    crossed = jwt.encode(issuer.claims(), private_key("ES256", "es"), "ES256", {"kid": "rs"})
    await verifier.refuses(crossed, "names the key 'rs'")
    await verifier.close()


@pytest.mark.parametrize("audience", [None, "other", ["app", "other"], [], 5, {"app": 1}, "app "])
async def test_a_token_for_another_audience_is_refused(issuer: Issuer, verifier: Verifier, audience: Any) -> None:
    await verifier.refuses(issuer.token(aud=audience) if not isinstance(audience, int | dict) else _raw(issuer, aud=audience), "'aud'")
    assert issuer.asked == [], "nobody was asked for its sake"


def _raw(issuer: Issuer, **claims: Any) -> str:
    """Signed as it is; the library checks what it signs."""
    signed = jwt.PyJWS().encode(json.dumps(issuer.claims(**claims)).encode(), private_key("RS256", "rs"), "RS256", {"kid": "rs"})
    return signed


async def test_a_custom_providers_audience_may_be_one_of_several(issuer: Issuer) -> None:
    verifier = Verifier(custom(issuer))
    await verifier.verify(issuer.token(aud=["app", "other"]))
    await verifier.refuses(issuer.token(aud=["other"]), "'aud'")
    await verifier.close()


@pytest.mark.parametrize("name", ["https://other.example", "", None, 5, "http://127.0.0.1", "\u0430pp"])
async def test_a_token_of_another_issuer_is_refused(issuer: Issuer, verifier: Verifier, name: Any) -> None:
    code = "NoAuthProvider" if isinstance(name, str) else "Unauthenticated"
    await verifier.refuses(_raw(issuer, iss=name), "issuer|'iss'", code)
    assert issuer.asked == []


async def test_without_a_provider_every_token_is_refused(issuer: Issuer) -> None:
    await Verifier().refuses(issuer.token(), "No identity provider is configured", "NoAuthProvider")


async def test_an_expired_token_is_refused_but_for_what_clocks_differ(issuer: Issuer, verifier: Verifier) -> None:
    now = int(time.time())
    await verifier.refuses(issuer.token(exp=now - 10), "expired")
    verified = await verifier.verify(issuer.token(exp=now - 2))
    verifier.check(verified)
    verifier.advance(5)
    with pytest.raises(AuthenticationError, match="expired"):
        verifier.check(verified)


async def test_a_token_that_is_not_valid_yet_is_refused(issuer: Issuer, verifier: Verifier) -> None:
    token = issuer.token(nbf=int(time.time()) + 60)
    await verifier.refuses(token, "not valid yet")
    verifier.advance(60)
    await verifier.verify(token)


@pytest.mark.parametrize("expires", [None, "tomorrow", True, [2e9]])
async def test_a_token_that_never_expires_is_refused(issuer: Issuer, verifier: Verifier, expires: Any) -> None:
    await verifier.refuses(_raw(issuer, exp=expires), "has no 'exp'")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
async def test_numbers_that_json_does_not_have_are_refused(issuer: Issuer, verifier: Verifier, text: str) -> None:
    claims = json.dumps(issuer.claims(exp="X")).replace('"X"', text)
    token = jwt.PyJWS().encode(claims.encode(), private_key("RS256", "rs"), "RS256", {"kid": "rs"})
    with pytest.raises(AuthenticationError):
        await verifier.verify(token)


@pytest.mark.parametrize("subject", [None, "", 5])
async def test_a_token_for_nobody_is_refused(issuer: Issuer, verifier: Verifier, subject: Any) -> None:
    await verifier.refuses(_raw(issuer, sub=subject), "no 'sub'")


@pytest.mark.parametrize("kind", ["logout+jwt", "secevent+jwt", 5])
async def test_a_token_for_another_purpose_is_refused(issuer: Issuer, verifier: Verifier, kind: Any) -> None:
    text = f"{part({'alg': 'RS256', 'kid': 'rs', 'typ': kind})}.{part(issuer.claims())}.c2ln"
    await verifier.refuses(text, "is of type")


async def test_a_custom_providers_token_names_its_key(issuer: Issuer) -> None:
    await Verifier(custom(issuer)).refuses(issuer.token(None), "no 'kid'")


@pytest.mark.parametrize(
    "token", ["", "x", "a.b.c", "..", "e30.e30.", "e30.e30", "W10.W10.x", "é.é.é", f"{part({})}.{'[' * 5000}.x", ".".join(["e30"] * 4)]
)
async def test_what_is_no_token_is_refused(verifier: Verifier, token: str) -> None:
    with pytest.raises(AuthenticationError):
        await verifier.verify(token)


@pytest.mark.parametrize("claims", ['{"iss":' * 900, "[" * 6000 + "]" * 6000])
async def test_deep_nesting_is_refused(verifier: Verifier, claims: str) -> None:
    deep = base64.urlsafe_b64encode(claims.encode()).decode()
    await verifier.refuses(f"{deep}.{deep}."[:16_000], "no token", "InvalidAuthHeader")


async def test_a_token_that_is_too_large_is_not_read(issuer: Issuer, verifier: Verifier) -> None:
    token = issuer.token(padding="x" * DEFAULT_LIMITS.token_size_bytes)
    await verifier.refuses(token, f"at most {DEFAULT_LIMITS.token_size_bytes}", "InvalidAuthHeader")
    assert issuer.asked == []


# --- keys


async def test_an_unknown_key_is_looked_for_once_in_a_while(issuer: Issuer, verifier: Verifier) -> None:
    await verifier.verify(issuer.token())
    for name in ("a", "b", "c"):
        await verifier.refuses(issuer.token(name), f"names the key '{name}'")
    assert issuer.asked.count("/jwks") == 2, "once at first, and once for all three"
    verifier.advance(key_set.COOL_DOWN_S + 1)
    await verifier.refuses(issuer.token("d"), "names the key 'd'")
    assert issuer.asked.count("/jwks") == 3


async def test_keys_may_be_changed_at_any_time(issuer: Issuer, verifier: Verifier) -> None:
    before = issuer.token()
    await verifier.verify(before)
    issuer.keys = {"new": "RS256"}
    await verifier.verify(issuer.token("new"))
    await verifier.refuses(before, "names the key 'rs'")


async def test_known_keys_serve_through_an_outage_and_not_for_ever(issuer: Issuer, verifier: Verifier) -> None:
    token = issuer.token(exp=int(time.time()) + 10 * 86_400)
    await verifier.verify(token)
    issuer.down = True
    for _ in range(3):
        verifier.advance(key_set.FRESH_S + 1)
        await verifier.verify(token)
    verifier.advance(key_set.RETRY_S + 1)
    await verifier.refuses(issuer.token("new"), "status 503", UNREACHABLE)
    verifier.advance(key_set.KEPT_S + 1)
    await verifier.refuses(token, "status 503", UNREACHABLE)
    issuer.down = False
    await verifier.refuses(token, "status 503", UNREACHABLE)
    verifier.advance(key_set.RETRY_S + 1)
    await verifier.verify(token)


async def test_a_provider_that_is_away_is_told_apart_from_a_bad_token(verifier: Verifier, issuer: Issuer) -> None:
    token = issuer.token()
    issuer.stop()
    await verifier.refuses(token, "cannot be reached", UNREACHABLE)


async def test_keys_on_another_host_are_not_asked_for_unless_the_configuration_says_so(issuer: Issuer) -> None:
    with Issuer() as other:
        issuer.configuration["jwks_uri"] = other.jwks_url
        verifier = Verifier(OIDC(issuer.url, "app"))
        await verifier.refuses(issuer.token(), "keys are on another host", "AuthProviderDiscoveryFailed")
        assert other.asked == []
        verifier.providers = (OIDC(issuer.url, "app", jwks=other.jwks_url),)
        await verifier.verify(issuer.token())
        assert other.asked == ["/jwks"]


async def test_a_redirect_to_another_host_is_not_followed(issuer: Issuer, verifier: Verifier) -> None:
    with Issuer() as other:
        issuer.answers["/jwks"] = (302, {"location": other.jwks_url}, b"")
        await verifier.refuses(issuer.token(), "status 302", "AuthProviderDiscoveryFailed")
        assert other.asked == []


async def test_keys_that_a_token_brings_along_are_not_looked_at(issuer: Issuer, verifier: Verifier) -> None:
    with Issuer() as other:
        mine = new_key("RS256")
        headers = {"kid": "mine", "jku": other.jwks_url, "jwk": jwk_of(mine, "RS256", "mine"), "x5u": other.jwks_url}
        await verifier.refuses(jwt.encode(issuer.claims(), mine, "RS256", headers), "names the key 'mine'")
        await verifier.refuses(jwt.encode(issuer.claims(), mine, "RS256", headers | {"kid": "rs"}), "signature")
        assert other.asked == []


@pytest.mark.parametrize(
    ("path", "status", "body", "says"),
    [
        ("/.well-known/openid-configuration", 200, b'{"issuer":"https://other.example","jwks_uri":"x"}', "another issuer"),
        ("/.well-known/openid-configuration", 404, b"", "status 404"),
        ("/jwks", 200, b"<html>", "no JSON object"),
        ("/jwks", 200, b'{"keys":{}}', 'no list "keys"'),
        ("/jwks", 200, b" " * 600_000, "more than"),
    ],
)
async def test_a_provider_that_answers_nonsense_is_named(
    issuer: Issuer, verifier: Verifier, path: str, status: int, body: bytes, says: str
) -> None:
    issuer.answers[path] = (status, {}, body)
    await verifier.refuses(issuer.token(), says, "AuthProviderDiscoveryFailed")


async def test_keys_that_cannot_be_used_are_left_out(issuer: Issuer, verifier: Verifier) -> None:
    weak = new_key("RS256", 1024)
    good = jwk_of(private_key("RS256", "rs"), "RS256", "rs")
    keys = [
        jwk_of(weak, "RS256", "weak"),
        {**good, "kid": "encrypts", "use": "enc"},
        {**good, "kid": "other", "alg": "RS512"},
        {**good, "kid": "broken", "n": "!"},
        {**good, "kid": 5},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret"},
        {"kid": "nothing"},
        {**good, "kid": "lists", "crv": []},
        {**good, "kid": "objects", "kty": {}},
        5,
        good,
    ]
    issuer.answers["/jwks"] = (200, {}, json.dumps({"keys": keys}).encode())
    await verifier.verify(issuer.token())
    for kid in ("weak", "encrypts", "other", "broken", "secret", "nothing", "lists", "objects"):
        await verifier.refuses(issuer.token(kid), f"names the key '{kid}'")


# --- what may be configured


@pytest.mark.parametrize(
    "make",
    [
        lambda: OIDC("http://id.example", "app"),
        lambda: OIDC("ftp://id.example", "app"),
        lambda: OIDC("https://", "app"),
        lambda: OIDC("https://id.example:port", "app"),
        lambda: OIDC("https://id.example", ""),
        lambda: OIDC("https://id.example", "app", jwks="http://id.example/keys"),
        lambda: CustomJWT("https://id.example", "http://id.example/keys", "RS256"),
        lambda: CustomJWT("https://id.example", "https://id.example/keys", "HS256"),  # type: ignore[arg-type]
        lambda: CustomJWT("https://accounts.google.com", "https://www.googleapis.com/oauth2/v3/certs", "RS256"),
        lambda: CustomJWT("https://api.workos.com/", "https://api.workos.com/sso/jwks/c", "RS256"),
        lambda: providers_in({"providers": [{"domain": "id.example"}]}),
    ],
)
def test_a_configuration_that_cannot_be_right_is_refused(make: Any) -> None:
    with pytest.raises(CodeError) as refused:
        make()
    assert refused.value.code == "InvalidAuthConfig"


def test_https_may_be_left_out_and_is_not_needed_on_this_machine() -> None:
    assert OIDC("tenant.example", "app").issuer == "https://tenant.example"
    assert OIDC("http://localhost:9000", "app").issuer == "http://localhost:9000"


def test_providers_stand_alone_or_in_lists() -> None:
    a, b = OIDC("a.example", "app"), OIDC("b.example", "app")
    assert providers_in({"first": a, "providers": [a, b], "x": 1}) == (a, b)
