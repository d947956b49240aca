"""The admin key's file, and what is shown with the key."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest

from reactor.errors import AuthenticationError, StoreReadOnly
from reactor.server.admin import ANONYMOUS, Authenticator, load_admin_key
from reactor.server.beside import key_file
from reactor.testing import TestBackend

pytestmark = pytest.mark.sqlite_only("the key's file beside a SQLite database, and headers")

KEY = "name|secret"


@pytest.fixture
async def authenticator(t: TestBackend) -> Authenticator:
    return Authenticator(KEY, t._runner)


def test_the_key_is_made_once_and_kept_beside_the_database_for_its_owner(tmp_path: Path) -> None:
    database = tmp_path / "reactor.db"
    key = load_admin_key(database, "calm-otter-1")
    assert key.startswith("calm-otter-1|") and len(key) > 40
    assert load_admin_key(database, "calm-otter-1") == key == key_file(database).read_text().strip()
    assert key_file(database).stat().st_mode & 0o777 == 0o600
    assert load_admin_key(tmp_path / "other.db", "calm-otter-1") != key


def test_a_key_cut_short_by_a_crash_is_made_anew(tmp_path: Path) -> None:
    database = tmp_path / "reactor.db"
    key_file(database).write_text("\n")
    assert load_admin_key(database, "n").startswith("n|")


@pytest.mark.parametrize(
    "make", [lambda database: key_file(database).mkdir(), lambda database: (database.parent.rmdir(), database.parent.touch())]
)
def test_a_key_that_can_be_neither_read_nor_made_is_named(tmp_path: Path, make: Any) -> None:
    database = tmp_path / "data" / "reactor.db"
    database.parent.mkdir()
    make(database)
    with pytest.raises(StoreReadOnly, match="admin-key: the admin key cannot be read or written"):
        load_admin_key(database, "n")


async def test_without_a_header_one_is_nobody(authenticator: Authenticator) -> None:
    assert await authenticator.authorize(None) == ANONYMOUS


def encoded(attributes: Any) -> str:
    return base64.b64encode(orjson.dumps(attributes)).decode()


async def test_attributes_are_named_as_on_the_wire_and_others_are_claims(authenticator: Authenticator) -> None:
    attributes = {
        "issuer": "https://id",
        "subject": "ann",
        "name": "Ann",
        "emailVerified": True,
        "profileUrl": "https://a",
        "nickname": None,
        "plan": {"seats": [3]},
        "profile_url_of": 5,
    }
    shown = authenticator.admin(f"{KEY}:{encoded(attributes)}")
    assert shown == authenticator.admin(KEY, attributes)
    identity = shown.identity
    assert shown.admin and identity is not None
    assert (identity.token_identifier, identity.name, identity.email_verified) == ("https://id|ann", "Ann", True)
    assert (identity.profile_url, identity.nickname) == ("https://a", None)
    assert identity.claims == {"plan": {"seats": [3]}, "profile_url_of": 5}


@pytest.mark.parametrize(
    ("attributes", "token", "issuer", "subject"),
    [
        ({"issuer": "i", "subject": "s"}, "i|s", "i", "s"),
        ({"tokenIdentifier": "i|s"}, "i|s", "i", "s"),
        ({"tokenIdentifier": "i|a|s", "issuer": "x"}, "i|a|s", "x", "s"),
        ({"tokenIdentifier": "t", "issuer": "i", "subject": "s"}, "t", "i", "s"),
        ({"tokenIdentifier": "t"}, "t", "", "t"),
    ],
)
async def test_a_user_is_told_by_token_identifier_or_by_issuer_and_subject(
    authenticator: Authenticator, attributes: dict[str, str], token: str, issuer: str, subject: str
) -> None:
    identity = authenticator.admin(KEY, attributes).identity
    assert identity is not None
    assert (identity.token_identifier, identity.issuer, identity.subject) == (token, issuer, subject)


@pytest.mark.parametrize(
    "attributes",
    [{}, {"issuer": "i"}, {"subject": ""}, {"subject": 5}, {"subject": "s", "emailVerified": "yes"}, {"subject": "s", "name": []}],
)
async def test_attributes_that_name_no_user_are_refused(authenticator: Authenticator, attributes: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationError) as refused:
        authenticator.admin(KEY, attributes)
    assert refused.value.code == "InvalidAuthHeader"


@pytest.mark.parametrize(
    "credential", ["", "name", "name|", "|secret", "name|secre", "name|secretx", "other|secret", "nämé|sécret", "name|secret|"]
)
async def test_another_key_is_refused(authenticator: Authenticator, credential: str) -> None:
    with pytest.raises(AuthenticationError) as refused:
        authenticator.admin(credential)
    assert refused.value.code == "BadDeployKey"
    assert "secret" not in refused.value.message


@pytest.mark.parametrize("credential", [KEY, f"prod:{KEY}", f"dev:{KEY}"])
async def test_a_type_before_the_name_is_left_out(authenticator: Authenticator, credential: str) -> None:
    assert (await authenticator.authorize(f"Convex {credential}".encode())).admin
    assert (await authenticator.authorize(None, credential)).admin
