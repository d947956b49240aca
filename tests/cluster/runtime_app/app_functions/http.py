from starlette.requests import Request
from starlette.responses import Response

from app_functions import payments
from reactor import ActionCtx, HttpRouter, webhooks

http = HttpRouter()


@http.route("/stripe", methods=["POST"])
async def stripe(ctx: ActionCtx, request: Request) -> Response:
    return await webhooks.stripe(ctx, request, ctx.env["STRIPE_SECRET"], payments.on_event)
