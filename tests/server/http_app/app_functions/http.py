from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from app_functions import lines
from reactor import ActionCtx, AppError, Cors, HttpRouter
from tests.server.gates import gate

http = HttpRouter()


@http.route("/lines", methods=["POST"])
async def add_line(ctx: ActionCtx, request: Request) -> Response:
    print("adding")
    count = await ctx.run_mutation(lines.add, text=(await request.body()).decode())
    return JSONResponse({"count": count}, 201, {"x-made-by": "reactor"})


@http.route("/lines")
async def all_lines(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse("\n".join(await ctx.run_query(lines.texts)))


@http.route("/raw", methods=["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "GET"])
async def raw(ctx: ActionCtx, request: Request) -> Response:
    return Response(await request.body(), headers={"x-method": request.method})


@http.route("/shown", methods=["POST"])
async def shown(ctx: ActionCtx, request: Request) -> Response:
    await request.body()
    return PlainTextResponse(request.headers.get("x-shown", "nothing"))


@http.route("/who")
async def who(ctx: ActionCtx, request: Request) -> Response:
    identity = await ctx.auth.identity()
    return PlainTextResponse("nobody" if identity is None else identity.subject)


@http.route("/required")
async def required(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse((await ctx.auth.require()).subject)


@http.route("/url")
async def url(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse(str(request.url))


@http.route(prefix="/docs/")
async def docs(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse(f"docs {request.path_params['rest']}")


@http.route(prefix="/docs/deep/")
async def deep(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse(f"deep {request.path_params['rest']}")


@http.route("/docs/deep/exact")
async def exact(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse("exact")


@http.route(prefix="/docs/", methods=["POST"])
async def posted(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse("posted")


@http.route("/api/hook")
async def under_api(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse("mine")


@http.route("/stream")
async def stream(ctx: ActionCtx, request: Request) -> Response:
    async def chunks() -> AsyncIterator[str]:
        for text in ("one", "two"):
            await ctx.run_mutation(lines.add, text=text)
            yield f"{text}\n"

    return StreamingResponse(chunks(), media_type="text/plain")


@http.route("/held")
async def held(ctx: ActionCtx, request: Request) -> Response:
    """Its second chunk waits for the test."""

    async def chunks() -> AsyncIterator[str]:
        try:
            yield "first\n"
            await gate("held").reach()
            yield "second\n"
        finally:
            await ctx.run_mutation(lines.add, text="ended")

    return StreamingResponse(chunks(), media_type="text/plain")


@http.route("/held-line", methods=["POST"])
async def held_line(ctx: ActionCtx, request: Request) -> Response:
    await gate("held line").reach()
    await ctx.run_mutation(lines.add, text="held")
    return Response()


@http.route("/echo-stream", methods=["POST"])
async def echo_stream(ctx: ActionCtx, request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        async for chunk in request.stream():
            yield chunk.upper()

    return StreamingResponse(chunks())


@http.route("/endless")
async def endless(ctx: ActionCtx, request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    return StreamingResponse(chunks())


@http.route("/large")
async def large(ctx: ActionCtx, request: Request) -> Response:
    return Response(b"x" * int(request.query_params["bytes"]))


@http.route("/fails/value", methods=["GET", "POST"])
async def fails(ctx: ActionCtx, request: Request) -> Response:
    raise ValueError("a secret of the app")


@http.route("/fails/app")
async def fails_app(ctx: ActionCtx, request: Request) -> Response:
    raise AppError({"code": "Empty"})


@http.route("/fails/http")
async def fails_http(ctx: ActionCtx, request: Request) -> Response:
    raise HTTPException(418, "short and stout", {"x-pot": "tea"})


@http.route("/fails/returned")
async def fails_returned(ctx: ActionCtx, request: Request) -> Any:
    return {"not": "a response"}


@http.route("/fails/late")
async def fails_late(ctx: ActionCtx, request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        raise ValueError("too late")

    return StreamingResponse(chunks())


@http.route("/late", methods=["POST"])
async def late(ctx: ActionCtx, request: Request) -> Response:
    await asyncio.sleep(0.5)
    return Response(await request.body())


@http.route("/slow")
async def slow(ctx: ActionCtx, request: Request) -> Response:
    await asyncio.Event().wait()
    return Response()


@http.route(
    "/cors", methods=["GET", "POST"], cors=Cors(["https://app.example"], headers=["x-token"], expose=["x-made-by"], credentials=True)
)
async def shared(ctx: ActionCtx, request: Request) -> Response:
    if request.method == "POST":
        raise ValueError("refused")
    return PlainTextResponse("shared", headers={"x-made-by": "reactor"})


@http.route("/cors-options", methods=["POST", "OPTIONS"], cors=Cors(["https://app.example"]))
async def told(ctx: ActionCtx, request: Request) -> Response:
    return PlainTextResponse("POST, OPTIONS")
