from __future__ import annotations

import os

from starlette.requests import Request
from starlette.responses import Response

from app_functions import payments
from reactor import ActionCtx, HttpRouter, webhooks

http = HttpRouter()


@http.route("/stripe", methods=["POST"])
async def stripe(ctx: ActionCtx, request: Request) -> Response:
    return await webhooks.stripe(ctx, request, os.environ["TEST_SECRET"], payments.on_event)


@http.route("/svix", methods=["POST"])
async def svix(ctx: ActionCtx, request: Request) -> Response:
    return await webhooks.svix(ctx, request, os.environ["TEST_SECRET"], payments.on_event)


@http.route("/by-path", methods=["POST"])
async def by_path(ctx: ActionCtx, request: Request) -> Response:
    return await webhooks.stripe(ctx, request, os.environ["TEST_SECRET"], "payments:on_event")


@http.route("/renamed", methods=["POST"])
async def renamed(ctx: ActionCtx, request: Request) -> Response:
    return await webhooks.stripe(ctx, request, os.environ["TEST_SECRET"], payments.on_renamed)
