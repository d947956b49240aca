"""Webhooks: who sent a request is verified, and each event handled once.

::

    @http.route("/webhook/stripe", methods=["POST"])
    async def stripe(ctx: ActionCtx, request: Request) -> Response:
        return await webhooks.stripe(ctx, request, secret, payments.on_event)

The senders' own libraries verify, and are imported when the first request comes: ``pip install 'reactor[stripe]'``, ``'reactor[svix]'``.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reactor.errors import AuthenticationError, ReactorError
from reactor.functions.context import ActionCtx
from reactor.functions.function import Mutation

if TYPE_CHECKING:
    # The web framework is loaded by what serves a request.
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["Event", "stripe", "svix", "verify_stripe", "verify_svix"]


@dataclass(frozen=True)
class Event:
    """A verified event.

    Attributes:
        id: the same each time that the event is delivered.
        type: such as ``invoice.paid`` or ``user.created``; empty where the sender says none.
        text: the body as it was sent, JSON.
    """

    id: str
    type: str
    text: str

    @property
    def body(self) -> dict[str, Any]:
        """The body's JSON object."""
        parsed: dict[str, Any] = json.loads(self.text)
        return parsed


async def stripe(
    ctx: ActionCtx, request: Request, secret: str, mutation: Mutation[[Event], Any] | str, *, tolerance_s: int = 300
) -> Response:
    """Verify a delivery of Stripe's, and run ``mutation`` with its event, once however often the event is delivered.

    Args:
        secret: of the endpoint, ``whsec_…``.
        mutation: takes the Event. When it fails the answer is a failure, and Stripe delivers the event again.
        tolerance_s: how old a delivery may be, so that one overheard cannot be sent again later.

    Raises:
        AuthenticationError: it is not Stripe's, or too old. As an HTTP action's answer that is a 401.
        ReactorError: the library or the secret is missing.
    """
    return await _handle(ctx, await verify_stripe(request, secret, tolerance_s=tolerance_s), mutation)


async def svix(ctx: ActionCtx, request: Request, secret: str, mutation: Mutation[[Event], Any] | str) -> Response:
    """Verify a delivery that Svix makes for Clerk, Resend and others, and run ``mutation`` with its event, once.

    Args:
        secret: of the endpoint, ``whsec_…``.
        mutation: takes the Event. When it fails the answer is a failure, and the event is delivered again.

    Raises:
        AuthenticationError: it is not the sender's, or made more than five minutes ago. As an HTTP action's answer that is a 401.
        ReactorError: the library or the secret is missing.
    """
    return await _handle(ctx, await verify_svix(request, secret), mutation)


async def verify_stripe(request: Request, secret: str, *, tolerance_s: int = 300) -> Event:
    """The event of a delivery of Stripe's. See ``stripe``."""
    await _import("stripe", "stripe")
    from stripe import SignatureVerificationError, WebhookSignature

    if not secret.strip():
        raise _bad_secret("stripe")
    body = await request.body()
    header = request.headers.get("stripe-signature")
    try:
        WebhookSignature.verify_header(body, header, secret, tolerance_s)
    except SignatureVerificationError as error:
        raise _refused(str(error)) from None
    except (TypeError, ValueError):
        raise _refused("The body or the signature cannot be read.") from None
    event = _parsed(body)
    return Event(_text(event, "id"), _text(event, "type"), body.decode())


async def verify_svix(request: Request, secret: str) -> Event:
    """The event of a delivery that Svix makes. See ``svix``."""
    await _import("svix", "svix.webhooks")
    from svix.webhooks import Webhook, WebhookVerificationError

    try:
        webhook = Webhook(secret)
    except Exception:
        raise _bad_secret("svix") from None
    body = await request.body()
    headers = dict(request.headers)
    try:
        webhook.verify(body, headers)
    except WebhookVerificationError as error:
        raise _refused(f"{error}.") from None
    except (TypeError, ValueError):
        raise _refused("The body or the signature cannot be read.") from None
    event = _parsed(body)
    kind = event.get("type")
    id = headers.get("svix-id") or headers["webhook-id"]
    return Event(id, kind if isinstance(kind, str) else "", body.decode())


async def _handle(ctx: ActionCtx, event: Event, mutation: Mutation[[Event], Any] | str) -> Response:
    from starlette.responses import JSONResponse

    if isinstance(mutation, str):
        await ctx.run_once(event.id, mutation, event=event)
    else:
        await ctx.run_once(event.id, mutation, event)
    return JSONResponse({"received": True})


async def _import(library: str, module: str) -> None:
    """Import a library for the first time: in a thread, since one of them takes a second."""
    try:
        if sys.modules.get(module) is None:
            await asyncio.to_thread(importlib.import_module, module)
    except ImportError:
        raise ReactorError(
            f"webhooks.{library} needs the library {library}: pip install 'reactor[{library}]'", code="MissingLibrary"
        ) from None


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise _refused("The signature is right, but the body is no JSON object.")
    return event


def _text(event: dict[str, Any], name: str) -> str:
    value = event.get(name)
    if not isinstance(value, str) or not value:
        raise _refused(f"The signature is right, but the event has no {name!r}.")
    return value


def _refused(reason: str) -> AuthenticationError:
    return AuthenticationError(f"The webhook was not accepted: {reason}", code="InvalidWebhook")


def _bad_secret(library: str) -> ReactorError:
    return ReactorError(f"webhooks.{library}: the secret is empty, or not the endpoint's 'whsec_…'.", code="BadWebhookSecret")
