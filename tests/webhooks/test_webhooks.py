"""Deliveries as Stripe and Svix sign them, with their own libraries: who is believed, and what a second delivery does."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from stripe import WebhookSignature
from svix.webhooks import Webhook

from reactor import webhooks
from reactor.errors import AuthenticationError, ReactorError
from reactor.testing import TestBackend
from tests.server.conftest import no_other_app

__all__ = ["no_other_app"]

pytestmark = pytest.mark.anyio

APP = Path(__file__).parent / "app"
SECRET = f"whsec_{base64.b64encode(b'a secret of thirty-two bytes.....').decode()}"
OTHER = f"whsec_{base64.b64encode(b'another secret of such a length..').decode()}"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", SECRET)


@pytest.fixture
async def t(anyio_backend: str) -> AsyncIterator[TestBackend]:
    async with TestBackend(APP) as backend:
        yield backend


def event(id: str = "evt_1", **data: Any) -> str:
    return json.dumps({"id": id, "object": "event", "type": "invoice.paid", "data": {"amount": 4200, **data}}, ensure_ascii=False)


def by_stripe(text: str, *, secret: str = SECRET, age_s: float = 0) -> dict[str, str]:
    return {"stripe-signature": WebhookSignature.generate_signature_header(text, secret, int(time.time() - age_s))}


def by_svix(text: str, *, secret: str = SECRET, age_s: float = 0, id: str = "msg_1") -> dict[str, str]:
    at = datetime.fromtimestamp(int(time.time() - age_s), UTC)
    return {"svix-id": id, "svix-timestamp": str(int(at.timestamp())), "svix-signature": Webhook(secret).sign(id, at, text)}


Sign = Callable[..., dict[str, str]]
SENDERS = pytest.mark.parametrize(("path", "sign"), [("/stripe", by_stripe), ("/svix", by_svix)], ids=["stripe", "svix"])


async def deliver(t: TestBackend, path: str, text: str | bytes, headers: Mapping[str, str]) -> httpx.Response:
    return await t.fetch(path, method="POST", content=text, headers=dict(headers))


async def recorded(t: TestBackend) -> list[tuple[str, float]]:
    return [(payment.event, payment.amount) for payment in await _payments(t)]


async def _payments(t: TestBackend) -> Any:
    from app_functions import payments

    return await t.query(payments.recorded)


@SENDERS
async def test_a_signed_event_reaches_its_mutation(t: TestBackend, path: str, sign: Sign) -> None:
    text = event(note="für Ännchen")
    answer = await deliver(t, path, text, sign(text))
    assert (answer.status_code, answer.json()) == (200, {"received": True})
    (payment,) = await _payments(t)
    assert (payment.type, payment.amount, payment.note) == ("invoice.paid", 4200.0, "für Ännchen")
    assert payment.event == ("evt_1" if path == "/stripe" else "msg_1")


@SENDERS
async def test_an_event_delivered_again_has_one_effect(t: TestBackend, path: str, sign: Sign) -> None:
    for amount in (4200, 4200, 9):
        text = event(amount=amount)
        assert (await deliver(t, path, text, sign(text))).status_code == 200
    assert [amount for _, amount in await recorded(t)] == [4200.0]


@SENDERS
async def test_deliveries_of_one_event_at_the_same_time_have_one_effect(t: TestBackend, path: str, sign: Sign) -> None:
    text = event()
    answers = await asyncio.gather(*(deliver(t, path, text, sign(text)) for _ in range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    assert len(await recorded(t)) == 1


async def test_other_events_have_their_own_effect(t: TestBackend) -> None:
    for number in range(3):
        text = event(f"evt_{number}")
        await deliver(t, "/stripe", text, by_stripe(text))
    assert [id for id, _ in await recorded(t)] == ["evt_0", "evt_1", "evt_2"]


@SENDERS
async def test_an_event_whose_mutation_failed_is_handled_when_it_comes_again(t: TestBackend, path: str, sign: Sign) -> None:
    failing = event(amount=-1)
    assert (await deliver(t, path, failing, sign(failing))).status_code == 500
    assert await recorded(t) == []
    text = event()
    assert (await deliver(t, path, text, sign(text))).status_code == 200
    assert len(await recorded(t)) == 1


async def test_an_event_is_handled_once_by_each_mutation(t: TestBackend) -> None:
    text = event()
    for path in ("/stripe", "/by-path", "/renamed", "/renamed"):
        assert (await deliver(t, path, text, by_stripe(text))).status_code == 200
    assert await recorded(t) == [("evt_1", 4200.0), ("evt_1", 0.0)]


@SENDERS
async def test_a_wrong_signature_is_refused(t: TestBackend, path: str, sign: Sign) -> None:
    text = event()
    right = sign(text)
    for body, headers in ((text, sign(text, secret=OTHER)), (text.replace("4200", "4201"), right), (f"{text} ", right), ("", right)):
        answer = await deliver(t, path, body, headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "InvalidWebhook")
    assert await recorded(t) == []


@SENDERS
async def test_a_delivery_too_old_is_refused_so_that_none_can_be_replayed(t: TestBackend, path: str, sign: Sign) -> None:
    text = event()
    assert (await deliver(t, path, text, sign(text, age_s=310))).status_code == 401
    assert await recorded(t) == []
    assert (await deliver(t, path, text, sign(text, age_s=280))).status_code == 200


@SENDERS
async def test_a_delivery_whose_time_was_changed_is_refused(t: TestBackend, path: str, sign: Sign) -> None:
    text, now = event(), int(time.time())
    old = sign(text, age_s=1000)
    changed = {name: value.replace(str(now - 1000), str(now)).replace(str(now - 1001), str(now)) for name, value in old.items()}
    assert changed != old and (await deliver(t, path, text, changed)).status_code == 401


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/stripe", {}),
        ("/stripe", {"stripe-signature": ""}),
        ("/stripe", {"stripe-signature": "nonsense"}),
        ("/stripe", {"stripe-signature": "t=now,v1=a"}),
        ("/stripe", {"stripe-signature": "t=1"}),
        ("/stripe", {"stripe-signature": f"t={'9' * 5000},v1=a"}),
        ("/stripe", {"stripe-signature": f"t={int(time.time())},v1=\xff"}),
        ("/svix", {}),
        ("/svix", {"svix-id": "msg_1"}),
        ("/svix", {"svix-id": "msg_1", "svix-timestamp": "now", "svix-signature": "v1,a"}),
        ("/svix", {"svix-id": "msg_1", "svix-timestamp": "nan", "svix-signature": "v1,a"}),
        ("/svix", {"svix-id": "msg_1", "svix-timestamp": str(int(time.time())), "svix-signature": "nonsense"}),
        ("/svix", {"svix-id": "msg_1", "svix-timestamp": str(int(time.time())), "svix-signature": "v1,%%%"}),
        ("/svix", {"svix-id": "msg_1", "svix-timestamp": str(int(time.time())), "svix-signature": "v2,YQ=="}),
        ("/svix", {"svix-id": "\xff", "svix-timestamp": str(int(time.time())), "svix-signature": "v1,YQ=="}),
    ],
)
async def test_a_signature_that_is_missing_or_none_is_refused(t: TestBackend, path: str, headers: dict[str, str]) -> None:
    encoded: Any = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = await deliver(t, path, event(), encoded)
    assert (answer.status_code, answer.json()["code"]) == (401, "InvalidWebhook")


@SENDERS
async def test_a_body_that_is_no_text_is_refused(t: TestBackend, path: str, sign: Sign) -> None:
    assert (await deliver(t, path, b"\xff\xfe", sign("x"))).status_code == 401


@pytest.mark.parametrize(
    "text", ["[]", "5", "{", "[" * 20_000, '{"type": "a"}', '{"id": "", "type": "a"}', '{"id": 5, "type": "a"}', '{"id": "a"}']
)
async def test_a_signed_body_that_is_no_event_is_refused(t: TestBackend, text: str) -> None:
    assert (await deliver(t, "/stripe", text, by_stripe(text))).status_code == 401


async def test_what_svix_sends_has_its_id_in_a_header_and_any_object_as_body(t: TestBackend) -> None:
    text = '{"data": {"amount": 1}}'
    assert (await deliver(t, "/svix", text, by_svix(text, id="msg_7"))).status_code == 200
    (payment,) = await _payments(t)
    assert (payment.event, payment.type) == ("msg_7", "")
    standard = {name.replace("svix", "webhook"): value for name, value in by_svix(text, id="msg_8").items()}
    assert (await deliver(t, "/svix", text, standard)).status_code == 200
    assert [id for id, _ in await recorded(t)] == ["msg_7", "msg_8"]


@pytest.mark.parametrize("secret", ["", "  "])
async def test_a_secret_that_is_none_is_the_apps_mistake(t: TestBackend, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("TEST_SECRET", secret)
    for path in ("/stripe", "/svix"):
        answer = await deliver(t, path, event(), by_stripe(event()))
        assert answer.status_code == 500 and "the secret is empty" in answer.json()["code"]


def request(text: str, headers: Mapping[str, str]) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": text.encode(), "more_body": False}

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw}, receive)


async def test_the_verifications_stand_alone_too() -> None:
    text = event()
    verified = await webhooks.verify_stripe(request(text, by_stripe(text, age_s=900)), SECRET, tolerance_s=1000)
    assert (verified.id, verified.type, verified.body["data"]) == ("evt_1", "invoice.paid", {"amount": 4200})
    assert (await webhooks.verify_svix(request(text, by_svix(text)), SECRET)).id == "msg_1"
    with pytest.raises(AuthenticationError, match="Timestamp outside the tolerance zone"):
        await webhooks.verify_stripe(request(text, by_stripe(text, age_s=900)), SECRET, tolerance_s=100)


@pytest.mark.parametrize("library", ["stripe", "svix"])
async def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    for name in (library, f"{library}.webhooks"):
        monkeypatch.setitem(sys.modules, name, None)
    verify = getattr(webhooks, f"verify_{library}")
    with pytest.raises(ReactorError, match=rf"pip install 'reactor\[{library}\]'"):
        await verify(request("", {}), SECRET)


def test_the_libraries_are_not_imported_before_a_request_needs_them() -> None:
    code = "import sys, reactor, reactor.webhooks; reactor.HttpRouter; print({'stripe', 'svix', 'starlette'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
