"""Routes that cannot be are refused where they are declared, in a message that says what to write."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from reactor import ActionCtx, Cors, HttpRouter
from reactor.errors import CodeError
from reactor.functions.http import router_in

pytestmark = pytest.mark.sqlite_only("routes, of which no store hears")


async def handler(ctx: ActionCtx, request: Request) -> Response:
    return Response()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "a path or a prefix"),
        ({"path": "/a", "prefix": "/b/"}, "a path or a prefix"),
        ({"path": "a"}, "begins with '/'"),
        ({"path": ""}, "begins with '/'"),
        ({"path": 5}, "begins with '/'"),
        ({"path": "//a"}, "as it stands"),
        ({"path": "/a?b"}, "as it stands"),
        ({"path": "/users/{id}"}, "Use prefix="),
        ({"prefix": "/a"}, "must end with '/'"),
        ({"prefix": "a/"}, "begins with '/'"),
        ({"path": "/.files/x"}, "reserved"),
        ({"prefix": "/.files/"}, "reserved"),
        ({"path": "/a", "methods": "GET"}, "methods=['GET']"),
        ({"path": "/a", "methods": []}, "needs a method"),
        ({"path": "/a", "methods": ["HEAD"]}, "GET serves it"),
        ({"path": "/a", "methods": ["get"]}, "GET, POST, PUT"),
        ({"path": "/a", "methods": ["CONNECT"]}, "'CONNECT' cannot be"),
    ],
)
def test_a_route_that_cannot_be(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(CodeError, match=r".") as error:
        HttpRouter().route(**arguments)(handler)
    assert says in error.value.message and error.value.code == "InvalidHttpRoute"


@pytest.mark.parametrize("place", [{"path": "/a"}, {"prefix": "/a/"}])
def test_a_route_is_declared_once_for_each_method(place: dict[str, str]) -> None:
    http = HttpRouter()
    http.route(**place, methods=["GET", "POST"])(handler)
    http.route(**place, methods=["PUT"])(handler)
    with pytest.raises(CodeError, match=r"POST /a.* is declared twice: by handler and by handler"):
        http.route(**place, methods=["PATCH", "POST"])(handler)


def test_an_exact_path_and_a_prefix_of_the_same_text_are_two_routes() -> None:
    http = HttpRouter()
    http.route("/a/")(handler)
    http.route(prefix="/a/")(handler)
    assert len(http) == 2


@pytest.mark.parametrize("wrong", [lambda ctx, request: Response(), 5])
def test_a_handler_is_an_async_function(wrong: Any) -> None:
    with pytest.raises(CodeError, match="async def handler"):
        HttpRouter().route("/a")(wrong)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"origins": ["*"], "credentials": True}, "act as its visitor"),
        ({"origins": "https://a.example"}, "is a list"),
        ({"origins": ["https://a.example"], "headers": "x-a"}, "is a list"),
        ({"origins": ["a.example"]}, "is no origin"),
        ({"origins": ["https://a.example/"]}, "is no origin"),
    ],
)
def test_a_cors_that_cannot_be(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(CodeError) as error:
        Cors(**arguments)
    assert says in error.value.message


def test_the_module_has_one_router() -> None:
    http = HttpRouter()
    assert router_in({"http": http, "same": http, "other": 5}) is http
    with pytest.raises(CodeError, match="no HttpRouter"):
        router_in({"app": 5})
    with pytest.raises(CodeError, match="2 HttpRouters"):
        router_in({"a": http, "b": HttpRouter()})
