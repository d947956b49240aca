"""HTTP actions: the routes that ``app_functions/http.py`` declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from reactor.errors import CodeError
from reactor.functions.context import ActionCtx

if TYPE_CHECKING:
    # The web framework is loaded by what serves the routes: declaring them does not need it.
    from starlette.requests import Request
    from starlette.responses import Response

    Handler: TypeAlias = Callable[[ActionCtx, Request], Coroutine[Any, Any, Response]]

__all__ = ["Cors", "HttpRouter", "Match", "Route", "router_in"]

H = TypeVar("H", bound="Handler")

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
#: Kept free for the server, as it is in the system whose clients come.
RESERVED = "/.files/"


@dataclass(frozen=True)
class Cors:
    """Which pages of other origins may call a route: preflights are answered, and answers carry the headers, errors too.

    Args:
        origins: such as ``https://app.example``; ``"*"`` for all.
        headers: of requests, beyond those that any page may send; ``"*"`` for all.
        expose: headers of answers that the page may read.
        credentials: whether cookies and HTTP authentication are sent. Needs its origins named.
        max_age_s: how long a browser remembers the answer to a preflight.

    Raises:
        CodeError: the combination would let any page act as its visitor, or an origin is none.
    """

    origins: Collection[str]
    headers: Collection[str] = ()
    expose: Collection[str] = ()
    credentials: bool = False
    max_age_s: int = 86_400

    def __post_init__(self) -> None:
        for name in ("origins", "headers", "expose"):
            if isinstance(getattr(self, name), str):
                raise _wrong(f"Cors: {name} is a list of texts, not the text {getattr(self, name)!r}.")
        for origin in self.origins:
            scheme, _, host = origin.partition("://")
            if origin != "*" and (not scheme or not host or "/" in host):
                raise _wrong(f"Cors: {origin!r} is no origin. Write a scheme and a host, as in https://app.example, and no path.")
        if self.credentials and "*" in self.origins:
            raise _wrong("Cors: with credentials every page could act as its visitor. Name the origins instead of '*'.")


@dataclass(frozen=True, slots=True)
class Route:
    """One declared route.

    Attributes:
        path: exact, or the prefix, which ends with a slash.
        name: in logs, such as ``POST /webhook/stripe`` or ``GET /docs/*``.
    """

    path: str
    is_prefix: bool
    method: str
    handler: Handler
    cors: Cors | None

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}{'*' if self.is_prefix else ''}"


class Match(NamedTuple):
    """The route of a request.

    Attributes:
        rest: of the path, behind the prefix.
        preflight: whether its Cors is to answer, and not its handler.
    """

    route: Route
    rest: str
    preflight: bool


class HttpRouter:
    """The routes of an app: ``http = HttpRouter()`` in ``app_functions/http.py``.

    Args:
        cors: of the routes that have none of their own.
    """

    def __init__(self, *, cors: Cors | None = None) -> None:
        self._cors = cors
        self._exact: dict[tuple[str, str], Route] = {}
        self._prefixes: dict[str, list[Route]] = {}  # by method, the longest first

    def __iter__(self) -> Iterator[Route]:
        yield from self._exact.values()
        for routes in self._prefixes.values():
            yield from routes

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def route(
        self, path: str | None = None, *, prefix: str | None = None, methods: Collection[str] = ("GET",), cors: Cors | None = None
    ) -> Callable[[H], H]:
        """Serve requests by the decorated ``async def handler(ctx: ActionCtx, request: Request) -> Response``.

        The classes are Starlette's. The decorated name stays the function. A GET handler answers HEAD too.

        Args:
            path: what the request's path must be, as in ``/webhook/stripe``.
            prefix: instead of it, what the path must begin with, as in ``/docs/``. Where several fit, the longest counts, and an exact
                path before them; what is behind the prefix is ``request.path_params["rest"]``.
            methods: of GET, POST, PUT, PATCH, DELETE and OPTIONS.
            cors: lets pages of other origins call it.

        Raises:
            CodeError: the route cannot be, or is declared already.
        """
        if (path is None) == (prefix is None):
            raise _wrong('A route has a path or a prefix: @http.route("/hook") or @http.route(prefix="/docs/").')
        where = _checked_path(path, prefix)
        if isinstance(methods, str):
            raise _wrong(f"{where}: methods is a list: methods=[{methods!r}].")
        if not methods:
            raise _wrong(f"{where}: a route needs a method.")
        for method in methods:
            if method not in METHODS:
                hint = " GET serves it." if method == "HEAD" else ""
                raise _wrong(f"{where}: {method!r} cannot be a route's method.{hint} The methods are {', '.join(METHODS)}.")

        def declare(handler: H) -> H:
            if not inspect.iscoroutinefunction(handler):
                raise _wrong(f"{where}: a handler is `async def handler(ctx: ActionCtx, request: Request) -> Response`, not {handler!r}.")
            for method in dict.fromkeys(methods):
                self._add(Route(where, prefix is not None, method, handler, cors or self._cors))
            return handler

        return declare

    def match(self, method: str, path: str, requested: str | None = None) -> Match | None:
        """The route for a request.

        Args:
            requested: the method that a preflight asks for; None: it is none. What that method's route has as its Cors answers, also where
                there is a route for OPTIONS.
        """
        if method == "OPTIONS" and requested is not None:
            asked = self._find(requested, path)
            if asked is not None and asked.route.cors is not None:
                return asked._replace(preflight=True)
        return self._find("GET" if method == "HEAD" else method, path)

    def _find(self, method: str, path: str) -> Match | None:
        exact = self._exact.get((method, path))
        if exact is not None:
            return Match(exact, "", False)
        for route in self._prefixes.get(method, ()):
            if path.startswith(route.path):
                return Match(route, path[len(route.path) :], False)
        return None

    def _add(self, route: Route) -> None:
        routes = self._prefixes.setdefault(route.method, [])
        other = next((one for one in routes if one.path == route.path), None) if route.is_prefix else None
        other = other or (None if route.is_prefix else self._exact.get((route.method, route.path)))
        if other is not None:
            raise _wrong(f"{route.name} is declared twice: by {other.handler.__qualname__} and by {route.handler.__qualname__}.")
        if route.is_prefix:
            routes.append(route)
            routes.sort(key=lambda one: -len(one.path))
        else:
            self._exact[route.method, route.path] = route


def router_in(names: Mapping[str, Any]) -> HttpRouter:
    """The router that stands in the module ``http``.

    Raises:
        CodeError: there is none, or more than one.
    """
    routers = {id(value): value for value in names.values() if isinstance(value, HttpRouter)}
    if len(routers) != 1:
        raise _wrong(f"app_functions/http.py has {len(routers) or 'no'} HttpRouter{'s' * (len(routers) > 1)}. Write: http = HttpRouter()")
    return next(iter(routers.values()))


def _checked_path(path: str | None, prefix: str | None) -> str:
    text = path if path is not None else prefix
    if not isinstance(text, str) or not text.startswith("/"):
        raise _wrong(f"A route's path is a text that begins with '/', not {text!r}.")
    if prefix is not None and not text.endswith("/"):
        raise _wrong(f"The prefix {text!r} must end with '/'.")
    if text.startswith("//") or any(sign in text for sign in "?#*{}"):
        raise _wrong(
            f"{text!r} cannot be a route's path: it is compared as it stands, without parameters. Use prefix= and what follows it."
        )
    if text.startswith(RESERVED):
        raise _wrong(f"{text!r} is reserved: {RESERVED} is kept free for the server.")
    return text


def _wrong(message: str) -> CodeError:
    return CodeError(message, code="InvalidHttpRoute")
