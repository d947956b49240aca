"""Who calls, over HTTP and over the socket: tokens of an identity provider, their end, and admin keys that can be revoked."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from reactor.engine.store import Row
from reactor.errors import StoreUnavailable
from reactor.functions.providers import OIDC, Provider
from reactor.limits import Limits
from reactor.schema.system import AdminKey
from reactor.services.auth.fetching import UNREACHABLE
from reactor.testing import TestBackend
from reactor.values.interval import FULL
from tests.server.support import ADMIN_KEY, APP, SmallBackend, call, post, socket
from tests.support.issuer import Issuer
from tests.support.waiting import eventually_async

pytestmark = pytest.mark.anyio


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
async def t(anyio_backend: str, issuer: Issuer) -> AsyncIterator[TestBackend]:
    async with SmallBackend(APP, now=time.time() * 1000) as backend:
        configure(backend, OIDC(issuer.url, "app"))
        yield backend


def configure(t: TestBackend, *providers: Provider) -> None:
    """What a push of another auth_config.py does."""
    t._runner.app = dataclasses.replace(t._runner.app, providers=providers)


async def who(t: TestBackend, token: str) -> str | None:
    answer = await call(t, "query", "values:who", {}, authorization=f"Bearer {token}")
    named: str | None = answer["value"]
    return named


# --- over HTTP


async def test_a_token_says_who_calls_over_http(t: TestBackend, issuer: Issuer) -> None:
    assert await who(t, issuer.token()) == f"{issuer.url}|ann"
    assert await who(t, issuer.token("ed", sub="bob")) == f"{issuer.url}|bob"


async def test_a_token_that_does_not_hold_is_refused_over_http(t: TestBackend, issuer: Issuer) -> None:
    answer = await post(t, "/api/query", {"path": "values:who", "args": {}}, authorization=f"Bearer {issuer.token(aud='other')}")
    assert answer.status_code == 401 and answer.json()["code"] == "Unauthenticated" and "'aud'" in answer.json()["message"]


async def test_a_provider_that_is_away_is_no_fault_of_the_token(t: TestBackend, issuer: Issuer) -> None:
    issuer.down = True
    answer = await post(t, "/api/query", {"path": "values:who", "args": {}}, authorization=f"Bearer {issuer.token()}")
    assert (answer.status_code, answer.json()["code"]) == (503, UNREACHABLE)


# --- over the socket


async def test_signing_in_as_another_and_out_changes_what_looked_at_the_identity(t: TestBackend, issuer: Issuer) -> None:
    async with socket(t) as client:
        query = client.subscribe("values:who")
        assert await client.result(query) is None
        for subject in ("ann", "bob"):
            client.authenticate("User", issuer.token(sub=subject))
            assert await client.result(query) == f"{issuer.url}|{subject}"
        client.authenticate("None")
        assert await client.result(query) is None


async def test_only_what_looked_at_the_identity_runs_again_and_a_fresh_token_runs_nothing(t: TestBackend, issuer: Issuer) -> None:
    live = t._engine.live
    async with socket(t) as client:
        mine, everybodys = client.subscribe("values:who"), client.subscribe("notes:texts", list="a")
        await client.reflected()
        runs = live.runs
        client.authenticate("User", issuer.token())
        assert await client.result(mine) == f"{issuer.url}|ann"
        assert live.runs == runs + 1, "the query that everybody shares did not run again, though its only watcher is another now"
        client.authenticate("User", issuer.token(jti="2"))
        sent = await client.transition()
        assert sent["endVersion"]["identity"] == 2 and sent["modifications"] == []
        assert live.runs == runs + 1
        async with socket(t) as other:
            other.authenticate("User", issuer.token(jti="3"))
            same = other.subscribe("values:who"), other.subscribe("notes:texts", list="a")
            assert await other.result(same[0]) == f"{issuer.url}|ann"
            assert live.runs == runs + 1, "nor for another connection of hers"
        client.mutate("notes:add", list="a", text="x")
        await client.until(everybodys, ["x"])


async def test_what_follows_a_token_waits_until_it_is_verified(t: TestBackend, issuer: Issuer) -> None:
    issuer.open.clear()
    async with socket(t) as client:
        client.authenticate("User", issuer.token())
        query = client.subscribe("values:who")
        request = client.mutate("notes:add", list="a", text="x")
        await eventually_async(lambda: bool(issuer.asked), "the provider to be asked")
        assert client.unread == 0
        issuer.open.set()
        assert await client.result(query) == f"{issuer.url}|ann"
        assert (await client.response(request))["success"]


async def test_a_client_may_leave_while_its_token_is_verified(t: TestBackend, issuer: Issuer) -> None:
    issuer.open.clear()
    async with socket(t) as client:
        client.authenticate("User", issuer.token())
        await eventually_async(lambda: bool(issuer.asked), "the provider to be asked")
        issuer.open.set()
    assert len(t._server.connections) == 0 and not t._engine.live._all


async def test_what_is_held_meanwhile_is_bounded(issuer: Issuer) -> None:
    issuer.open.clear()
    async with SmallBackend(APP, now=time.time() * 1000, limits=Limits(frame_size_bytes=20_000)) as small:
        configure(small, OIDC(issuer.url, "app"))
        async with socket(small) as client:
            client.authenticate("User", issuer.token())
            for _ in range(30):
                client.mutate("notes:add", list="a", text="x" * 1000)
            assert await client.closed() == (1013, "TooManyConcurrentRequests", None)
        issuer.open.set()
        assert await small.query("notes:texts", list="a") == []


async def test_tokens_that_follow_each_other_are_verified_in_their_order(t: TestBackend, issuer: Issuer) -> None:
    with Issuer() as other:
        configure(t, OIDC(issuer.url, "app"), OIDC(other.url, "app"))
        issuer.open.clear()
        async with socket(t) as client:
            client.authenticate("User", issuer.token())
            client.authenticate("User", other.token(sub="bob"))
            client.authenticate("None")
            client.authenticate("User", other.token("es", sub="cid"))
            query = client.subscribe("values:who")
            await eventually_async(lambda: bool(issuer.asked), "the first provider to be asked")
            assert other.asked == []
            issuer.open.set()
            assert await client.result(query) == f"{other.url}|cid"
            assert client.version[1] == 4


async def test_a_refused_token_is_told_and_the_connection_closed(t: TestBackend, issuer: Issuer) -> None:
    async with socket(t) as client:
        client.authenticate("User", issuer.token())
        await client.reflected()
        client.authenticate("User", issuer.token("rs2"))
        _, _, last = await client.closed()
    assert last is not None and last["type"] == "AuthError"
    assert (last["baseVersion"], last["authUpdateAttempted"]) == (1, True) and "names the key 'rs2'" in last["error"]


async def test_while_the_provider_is_away_clients_are_sent_to_come_again(t: TestBackend, issuer: Issuer) -> None:
    issuer.down = True
    async with socket(t) as client:
        client.authenticate("User", issuer.token())
        assert await client.closed() == (1013, UNREACHABLE, None)


async def test_a_call_with_an_expired_token_is_not_run(t: TestBackend, issuer: Issuer) -> None:
    async with socket(t) as client:
        client.authenticate("User", issuer.token())
        await client.reflected()
        await t.advance(seconds=3600 + 6)
        client.mutate("notes:add", list="a", text="x")
        code, _, last = await client.closed()
    assert last == {"type": "AuthError", "error": "The token has expired.", "baseVersion": 1, "authUpdateAttempted": False}
    assert code == 1000
    assert await t.query("notes:texts", list="a") == []


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("function", ["notes:texts", "gated:slowly"])
async def test_a_live_query_tells_nothing_new_to_an_expired_identity(t: TestBackend, issuer: Issuer, direct: bool, function: str) -> None:
    async with socket(t, direct=direct) as other, socket(t, direct=direct) as client:
        other.subscribe(function, list="a")
        client.authenticate("User", issuer.token())
        query = client.subscribe(function, list="a")
        for each in (other, client):
            await each.reflected()
        await t.mutation("notes:add", list="a", text="for ann")
        while client.results[query]["value"] in ([], {"texts": [], "who": "ann"}):
            await client.receive()
        before = client.results[query]
        await t.advance(seconds=3600 + 6)
        await t.mutation("notes:add", list="a", text="secret")
        _, _, last = await client.closed()
        assert last is not None and (last["type"], last["authUpdateAttempted"]) == ("AuthError", False)
        assert client.results[query] == before


async def test_who_shows_a_token_is_sent_what_others_are(t: TestBackend, issuer: Issuer) -> None:
    async with socket(t, direct=True) as nobody, socket(t, direct=True) as ann:
        ann.authenticate("User", issuer.token())
        for client in (nobody, ann):
            client.subscribe("notes:texts", list="a")
            await client.reflected()
        for number in range(2):
            before = ann.stepped
            await t.mutation("notes:add", list="a", text=f"{number}")
            for client in (nobody, ann):
                await client.until(0, [f"{count}" for count in range(number + 1)])
            assert ann.stepped == before + 1


async def test_an_expired_token_can_be_replaced_in_time(t: TestBackend, issuer: Issuer) -> None:
    async with socket(t) as client:
        client.authenticate("User", issuer.token())
        query = client.subscribe("values:who")
        await client.reflected()
        await t.advance(seconds=3600 + 6)
        client.authenticate("User", issuer.token(exp=int(time.time()) + 9000))
        assert await client.result(query) == f"{issuer.url}|ann"


async def test_when_a_push_removes_the_provider_its_identities_end(t: TestBackend, issuer: Issuer) -> None:
    async with socket(t) as client:
        client.authenticate("User", issuer.token())
        query = client.subscribe("values:who")
        await client.reflected()
        configure(t, OIDC("https://other.example", "app"))
        t._engine.live.restart_all()
        _, _, last = await client.closed()
        assert last is not None and (last["type"], last["authUpdateAttempted"]) == ("AuthError", False)
        assert client.results[query]["value"] == f"{issuer.url}|ann"


# --- admin keys


async def made(t: TestBackend, name: str) -> str:
    answer = await post(t, "/api/admin_keys", {"name": name}, authorization=f"Convex {ADMIN_KEY}")
    assert answer.status_code == 200, answer.text
    key: str = answer.json()["key"]
    return key


async def test_a_key_that_was_made_is_an_admins_and_may_act_as_anybody(t: TestBackend) -> None:
    key = await made(t, "deploy")
    assert key.startswith("deploy|") and len(key) > 70
    assert (await call(t, "mutation", "notes:hidden", {"list": "a"}, authorization=f"Convex {key}"))["value"] == "hidden"
    async with socket(t) as client:
        client.authenticate("Admin", key, impersonating={"issuer": "https://id", "subject": "ann"})
        assert await client.result(client.subscribe("values:who")) == "https://id|ann"


async def test_only_its_hash_is_kept(t: TestBackend) -> None:
    key = await made(t, "deploy")
    kept = [row.json async for row in rows(t, "_admin_keys")]
    assert len(kept) == 1 and hashlib.sha256(key.encode()).hexdigest() in kept[0]
    assert key.partition("|")[2] not in kept[0]


async def rows(t: TestBackend, table: str) -> AsyncIterator[Row]:
    pin = t._engine.pin()
    try:
        for row in await pin.snapshot.scan(t._engine.catalog.table(table).by_id, FULL.lo, FULL.hi, reverse=False, limit=100):
            yield row
    finally:
        pin.release()


async def test_keys_are_listed_by_name_and_a_name_is_given_once(t: TestBackend) -> None:
    await made(t, "one")
    await made(t, "two")
    shown = await t.fetch("/api/admin_keys", headers={"authorization": f"Convex {ADMIN_KEY}"})
    assert [key["name"] for key in shown.json()["keys"]] == ["one", "two"]
    assert all(key.keys() == {"name", "createdAt"} for key in shown.json()["keys"])
    for name in ("one", "", "a|b", "x" * 65, "-x"):
        refused = await post(t, "/api/admin_keys", {"name": name}, authorization=f"Convex {ADMIN_KEY}")
        assert (refused.status_code, refused.json()["code"]) == (400, "BadAdminKeyName")


async def test_a_revoked_key_is_refused_and_who_is_connected_with_it_is_closed(t: TestBackend) -> None:
    key = await made(t, "deploy")
    async with socket(t) as client:
        client.authenticate("Admin", key)
        await client.reflected()
        await post(t, "/api/admin_keys/revoke", {"name": "deploy"}, authorization=f"Convex {ADMIN_KEY}")
        client.mutate("notes:hidden", list="a")
        _, _, last = await client.closed()
    assert last is not None and last["error"] == "The admin key was revoked."
    answer = await post(t, "/api/query", {"path": "values:who", "args": {}}, authorization=f"Convex {key}")
    assert (answer.status_code, answer.json()["code"]) == (403, "BadDeployKey")
    assert await t.query("notes:texts", list="a") == []
    again = await post(t, "/api/admin_keys/revoke", {"name": "deploy"}, authorization=f"Convex {ADMIN_KEY}")
    assert again.json()["code"] == "BadAdminKeyName"


async def test_what_another_node_revokes_is_refused_here(t: TestBackend) -> None:
    """The keys are followed through the commit log: this one is deleted without the server's help."""
    key = await made(t, "deploy")
    keys = t._server.authenticator.keys
    other = type(keys)(t._runner)
    await other.revoke("deploy")
    await eventually_async(lambda: keys.hash_of(key) is None, "the key to be refused")
    other.close()


async def test_a_revoked_key_is_refused_once_a_database_that_was_away_answers_again(
    t: TestBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = await made(t, "deploy")
    keys = t._server.authenticator.keys
    other = type(keys)(t._runner)
    read, failures = keys._read, 1

    async def away() -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreUnavailable("the database does not answer")
        await read()

    monkeypatch.setattr(keys, "_read", away)
    await other.revoke("deploy")
    await eventually_async(lambda: "admin keys could not be read" in caplog.text, "the failure")
    await t.advance(seconds=1)
    await eventually_async(lambda: keys.hash_of(key) is None, "the key to be refused")
    other.close()


async def test_keys_are_for_admins(t: TestBackend, issuer: Issuer) -> None:
    for headers in ({}, {"authorization": f"Bearer {issuer.token()}"}):
        for method, path in (("GET", "/api/admin_keys"), ("POST", "/api/admin_keys"), ("POST", "/api/admin_keys/revoke")):
            answer = await t.fetch(path, method=method, headers=headers, content=b'{"name":"x"}')
            assert (answer.status_code, answer.json()["code"]) == (403, "BadDeployKey")


async def test_functions_cannot_read_the_keys(t: TestBackend) -> None:
    await made(t, "deploy")

    async def look(ctx: object) -> None:
        await ctx.db.query(AdminKey).collect()  # type: ignore[attr-defined]

    with pytest.raises(Exception, match="not for functions to read"):
        await t.run(look)
