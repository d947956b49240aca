"""Calls over a connection that has made such a call before: they take the short way, and nobody could tell by what is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

import reactor.server.node
from reactor.limits import DEFAULT_LIMITS
from reactor.server.app import Backend
from reactor.server.listening import bind, url_of
from reactor.server.node import serve
from reactor.server.uvicorn_http import BODY_BYTES, HEADS, HttpProtocol
from reactor.testing import TestBackend
from tests.server.gates import gate, turns
from tests.server.support import ADMIN_KEY, APP, SmallBackend

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("connections, whatever the store")]

connection_lost = HttpProtocol.connection_lost
IMPATIENT = replace(DEFAULT_LIMITS, silent_request_s=0.3)


class Answered(NamedTuple):
    status: int
    headers: dict[str, str]  # but for the date
    body: bytes

    @property
    def value(self) -> Any:
        return json.loads(self.body)["value"]


class Connection:
    """One connection of a client that writes its requests by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> Answered:
        async with asyncio.timeout(10):
            status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            assert headers.pop("date")
            return Answered(int(status.split()[1]), headers, await self.reader.readexactly(int(headers["content-length"])))

    async def call(self, request: bytes) -> Answered:
        self.writer.write(request)
        return await self.answer()

    async def ended(self) -> bytes:
        """All that comes until the connection is closed or reset."""
        received = b""
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                while data := await self.reader.read(65536):
                    received += data
        return received


def request(kind: str, path: str, args: Any, *headers: str, method: str = "POST") -> bytes:
    return raw(kind, json.dumps({"path": path, "args": args, "format": "json"}).encode(), *headers, method=method)


def raw(kind: str, body: bytes, *headers: str, method: str = "POST") -> bytes:
    head = [f"{method} /api/{kind} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join((*head, "", "")).encode("latin-1") + body


@contextlib.asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Connection]:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, **options)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
async def t(anyio_backend: str) -> AsyncIterator[TestBackend]:
    async with SmallBackend(APP, limits=IMPATIENT) as backend:
        yield backend


@contextlib.asynccontextmanager
async def served(t: TestBackend) -> AsyncIterator[tuple[str, Callable[[], asyncio.Future[None]]]]:
    """Where the server listens, and what stops it."""
    listening = bind("127.0.0.1", 0)
    started: asyncio.Future[Callable[[], None]] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve(t._server, [listening], stop_timeout_s=5, on_start=started.set_result, signals=False))
    stop = await started

    def stopping() -> asyncio.Future[None]:
        stop()
        return serving

    try:
        yield url_of(listening), stopping
    finally:
        await stopping()


@pytest.fixture
async def url(t: TestBackend) -> AsyncIterator[str]:
    async with served(t) as (url, _):
        yield url


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of requests that took uvicorn's way."""
    paths: list[str] = []
    called = Backend.__call__

    async def counted(self: Backend, scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await called(self, scope, receive, send)

    monkeypatch.setattr(Backend, "__call__", counted)
    return paths


CALLS = [
    request("query", "values:echo", {"value": "a"}),
    request("query", "values:echo", {"value": {"$integer": "AQAAAAAAAAA="}}),
    request("query", "values:echo", {"value": 1}, "Origin: https://a.example"),
    request("query", "values:who", {}, f"Authorization: Convex {ADMIN_KEY}"),
    request("query", "values:who", {}, "Authorization: Bearer a.b.c"),
    request("query", "failing:asks", {"data": [1]}),
    request("query", "nowhere:at_all", {}),
    request("query", "../x:y", {}),
    request("query", "values:who", {}, "Convex-Client: npm"),
    raw("query", b'{"path":5}'),
    raw("query", b"{"),
    raw("query", b""),
    raw("query", b"\xff"),
    raw("query?adminKey=wrong", b'{"path":"values:who","args":{}}'),
    request("mutation", "notes:add_to", {"lists": ["a"], "text": "b"}),
    request("mutation", "failing:refuses", {"data": None}),
    request("mutation", "notes:texts", {"list": "a"}),
]


@pytest.mark.parametrize("called", CALLS, ids=lambda called: called.partition(b"\r\n\r\n")[2][:60].decode("latin-1"))
async def test_the_second_call_with_a_head_takes_the_short_way_and_is_answered_like_the_first(
    url: str, long_way: list[str], called: bytes
) -> None:
    def stable(answered: Answered) -> Answered:
        body = json.loads(answered.body)
        if "errorMessage" in body:
            body["errorMessage"] = body["errorMessage"].partition("] ")[2]  # behind the request's id
        return answered._replace(body=json.dumps(body).encode())

    async with connected(url) as connection:
        first = stable(await connection.call(called))
        assert len(long_way) == 1
        for _ in range(2):
            assert stable(await connection.call(called)) == first
        assert len(long_way) == 1


async def test_what_a_mutation_wrote_the_next_query_of_the_connection_reads(url: str, long_way: list[str]) -> None:
    async with connected(url) as connection:
        for number in range(4):
            await connection.call(request("mutation", "notes:add", {"list": "a", "text": f"{'long' * number}"}))
            found = await connection.call(request("query", "notes:texts", {"list": "a"}))
            assert found.value == ["long" * wrote for wrote in range(number + 1)]
        assert long_way == ["/api/mutation", "/api/query"]


@pytest.mark.parametrize(
    "called",
    [
        request("action", "failing:acts", {"data": 1}),
        request("query", "values:echo", {"value": 1}, "Convex-Request-Id: abc"),
        request("query", "values:echo", {"value": 1}, "Expect: nothing", method="PUT"),
        request("query_at_ts", "values:echo", {"value": 1}),
        b"POST /api/query HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["action", "request id", "method", "path", "chunks", "no body"],
)
async def test_all_else_takes_the_long_way(url: str, long_way: list[str], called: bytes) -> None:
    async with connected(url) as connection:
        for _ in range(3):
            await connection.call(called)
        assert len(long_way) == 3


async def test_a_head_that_says_close_ends_the_connection(url: str) -> None:
    async with connected(url) as connection:
        await connection.call(CALLS[0])
        assert (await connection.call(request("query", "values:echo", {"value": "a"}, "Connection: close"))).value == "a"
        assert await connection.ended() == b""


async def test_a_request_may_come_in_pieces(url: str, long_way: list[str]) -> None:
    called = request("query", "values:echo", {"value": "é" * 40})
    head = called.index(b"\r\n\r\n") + 4
    async with connected(url) as connection:
        first = await connection.call(called)
        for cuts in ([head], [head, head + 1, head + 2], [head + 3, len(called) - 1]):
            for start, end in zip([0, *cuts], [*cuts, len(called)], strict=True):
                connection.writer.write(called[start:end])
                await asyncio.sleep(0.02)  # long enough to be read by itself
            assert await connection.answer() == first
        assert len(long_way) == 1
        # In the middle of a head nothing tells what it will be.
        connection.writer.write(called[: head - 1])
        await asyncio.sleep(0.02)
        connection.writer.write(called[head - 1 :])
        assert await connection.answer() == first
        assert len(long_way) == 2


@pytest.mark.parametrize("size", [BODY_BYTES - 200, BODY_BYTES + 1, 99_999, 100_000, 300_000])
async def test_a_large_body_arrives_whole(url: str, size: int) -> None:
    called = request("query", "values:echo", {"value": "x" * size})
    async with connected(url) as connection:
        await connection.call(CALLS[0])
        for _ in range(3):
            assert (await connection.call(called)).value == "x" * size


async def test_requests_that_do_not_wait_for_the_answer_are_answered_in_order(url: str) -> None:
    async with connected(url) as connection:
        await connection.call(CALLS[0])
        for together in (2, 5):
            connection.writer.write(b"".join(request("query", "values:echo", {"value": number}) for number in range(together)))
            assert [(await connection.answer()).value for _ in range(together)] == list(range(together))
        # While one is under way, also in pieces.
        connection.writer.write(request("mutation", "gated:add", {"name": "a", "list": "a", "text": "held"}))
        await gate("a").reached.wait()
        gate("a").open()
        await connection.answer()
        connection.writer.write(request("mutation", "gated:add", {"name": "b", "list": "a", "text": "second"}))
        await gate("b").reached.wait()
        follows = request("query", "notes:texts", {"list": "a"}) * 2
        for piece in (follows[:50], follows[50:300], follows[300:]):
            connection.writer.write(piece)
            await asyncio.sleep(0.02)
        gate("b").open()
        await connection.answer()
        for _ in range(2):
            assert (await connection.answer()).value == ["held", "second"]


@pytest.mark.parametrize("behind", [b"\r\n", b"\r\n\r\n"])
async def test_empty_lines_between_requests_are_nothing(url: str, behind: bytes) -> None:
    async with connected(url) as connection:
        for _ in range(3):
            assert (await connection.call(CALLS[0] + behind)).value == "a"


@pytest.mark.parametrize("length", [b"+5", b" 5", b"5 ", b"-1", b"0x5", b"5_0", b"", b"\xb2", b"5\r\nContent-Length: 6"])
async def test_a_length_that_is_none_is_the_parsers_to_judge(url: str, length: bytes) -> None:
    async def answers(*, known: bool) -> bytes:
        async with connected(url) as connection:
            if known:
                await connection.call(raw("query", b"12345"))
            connection.writer.write(raw("query", b"12345").replace(b"Content-Length: 5", b"Content-Length: " + length))
            connection.writer.write_eof()
            return b"\r\n".join(line for line in (await connection.ended()).split(b"\r\n") if not line.startswith(b"date"))

    assert await answers(known=True) == await answers(known=False)


async def test_garbage_behind_an_answered_request_is_refused(url: str) -> None:
    async with connected(url) as connection:
        for _ in range(2):
            await connection.call(CALLS[0])
        assert (await connection.call(b"\x00\xff garbage\r\n\r\n")).status == 400
        assert await connection.ended() == b""


async def test_a_connection_remembers_few_heads(url: str, long_way: list[str]) -> None:
    async with connected(url) as connection:
        different = [request("query", "values:echo", {"value": 1}, f"X-A: {number}") for number in range(HEADS + 1)]
        for _ in range(2):
            for called in different:
                await connection.call(called)
        assert len(long_way) == 2 * len(different)
        await connection.call(different[-1])
        assert len(long_way) == 2 * len(different)
        large = request("query", "values:echo", {"value": 1}, f"X-A: {'a' * 5000}")
        for _ in range(2):
            await connection.call(large)
        assert len(long_way) == 2 * len(different) + 2


@pytest.mark.parametrize("sent", [1, 20])
async def test_a_client_that_falls_silent_in_a_body_is_dropped(url: str, sent: int) -> None:
    head = CALLS[0].index(b"\r\n\r\n") + 4
    async with connected(url) as connection:
        await connection.call(CALLS[0])
        connection.writer.write(CALLS[0][: head + sent])
        assert await connection.ended() == b""


async def test_a_client_that_does_not_read_is_dropped(t: TestBackend, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called = request("query", "values:long", {"letter": "x", "times": 1_000_000})
    runs: list[bool] = []
    lost = asyncio.Event()
    monkeypatch.setattr(HttpProtocol, "connection_lost", lambda self, error: (lost.set(), connection_lost(self, error)))
    async with connected(url, limit=4096) as connection:
        await connection.call(CALLS[0])
        t._runner._on_run = lambda run: runs.append(run.ok)
        for _ in range(50):
            # One at a time: what comes together is taken one after another in any case.
            connection.writer.write(called)
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await lost.wait()
    # No more was made than the connection could hold.
    assert 0 < len(runs) < 20


async def test_what_a_mutation_does_is_done_though_its_client_has_gone(t: TestBackend, url: str) -> None:
    async with connected(url) as connection:
        called = request("mutation", "gated:add", {"name": "go", "list": "gone", "text": "written"})
        await connection.call(request("mutation", "gated:left_in_context", {"value": "a"}))
        connection.writer.write(called)
        await gate("go").reached.wait()
    gate("go").open()

    asking = b'{"path":"notes:texts","args":{"list":"gone"}}'
    async with connected(url) as connection, asyncio.timeout(10):
        while (await connection.call(raw("query", asking))).value != ["written"]:
            await asyncio.sleep(0.01)


async def test_a_function_finds_nothing_of_another_request_in_its_context(url: str, long_way: list[str]) -> None:
    async with connected(url) as connection:
        for value in "abc":
            assert (await connection.call(request("mutation", "gated:left_in_context", {"value": value}))).value is None
        assert len(long_way) == 1


async def test_a_stop_lets_a_call_end_and_answers_it(t: TestBackend) -> None:
    async with served(t) as (url, stop), connected(url) as connection:
        await connection.call(request("mutation", "gated:left_in_context", {"value": "a"}))
        connection.writer.write(request("mutation", "gated:add", {"name": "stop", "list": "a", "text": "x"}))
        await gate("stop").reached.wait()
        stopping = stop()
        await turns(10)
        gate("stop").open()
        assert (await connection.answer()).status == 200
        assert await connection.ended() == b""
        await stopping


async def test_a_stop_lets_a_call_that_has_begun_to_come_be_made(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    told = asyncio.Event()
    shutdown = HttpProtocol.shutdown
    monkeypatch.setattr(HttpProtocol, "shutdown", lambda self: (shutdown(self), told.set()))
    async with served(t) as (url, stop), connected(url) as connection:
        await connection.call(CALLS[0])
        connection.writer.write(CALLS[0][:-5])
        await asyncio.sleep(0.02)
        stopping = stop()
        await told.wait()
        answered = await connection.call(CALLS[0][-5:])
        assert answered.value == "a" and answered.headers["connection"] == "close"
        assert await connection.ended() == b""
        await stopping


async def test_a_stop_takes_no_further_call_while_it_waits_for_those_that_run(t: TestBackend) -> None:
    async with served(t) as (url, stop), connected(url) as busy, connected(url) as idle:
        for connection in (busy, idle):
            await connection.call(request("mutation", "gated:left_in_context", {"value": "a"}))
        busy.writer.write(request("mutation", "gated:add", {"name": "busy", "list": "a", "text": "x"}))
        await gate("busy").reached.wait()
        stopping = stop()
        assert await idle.ended() == b""
        gate("busy").open()
        assert (await busy.answer()).headers["connection"] == "close"
        assert await busy.ended() == b""
        await stopping


async def test_an_idle_connection_is_closed_and_one_in_use_is_not(t: TestBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reactor.server.node, "KEEP_ALIVE_S", 1)
    async with served(t) as (url, _), connected(url) as used, connected(url) as idle:
        loop = asyncio.get_running_loop()
        await idle.call(CALLS[0])
        began = loop.time()
        await idle.call(CALLS[0])
        while loop.time() < began + 1.7:
            assert (await used.call(CALLS[0])).value == "a"
            await asyncio.sleep(0.1)
        assert await idle.ended() == b""
        assert 0.9 < loop.time() - began < 2.6
        used.writer.write(request("mutation", "gated:left_in_context", {"value": "a"}))
        await used.answer()
        used.writer.write(request("mutation", "gated:add", {"name": "long", "list": "a", "text": "x"}))
        await gate("long").reached.wait()
        await asyncio.sleep(1.3)
        gate("long").open()
        assert (await used.answer()).status == 200
        assert await used.ended() == b""
