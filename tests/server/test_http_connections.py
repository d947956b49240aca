"""HTTP actions over real connections: streaming both ways, slow and silent clients, and the port that has nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from reactor.limits import DEFAULT_LIMITS
from reactor.server.listening import bind, url_of
from reactor.server.node import serve
from reactor.server.uvicorn_http import READ_BYTES, HttpProtocol
from reactor.testing import TestBackend
from tests.server.gates import gate
from tests.support.waiting import eventually_async

pytestmark = [pytest.mark.anyio, pytest.mark.sqlite_only("connections, whatever the store")]

APP = Path(__file__).parent / "http_app"
IMPATIENT = replace(DEFAULT_LIMITS, silent_request_s=0.3)


@contextlib.asynccontextmanager
async def served(t: TestBackend) -> AsyncIterator[tuple[str, str]]:
    """The addresses of everything, and of HTTP actions alone."""
    listening = [bind("127.0.0.1", 0), bind("127.0.0.1", 0)]
    started: asyncio.Future[Callable[[], None]] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve(t._server, listening, stop_timeout_s=1, on_start=started.set_result, signals=False))
    stop = await started
    try:
        yield url_of(listening[0]), url_of(listening[1])
    finally:
        stop()
        await serving


@pytest.fixture
async def t(anyio_backend: str) -> AsyncIterator[TestBackend]:
    async with TestBackend(APP, limits=IMPATIENT) as backend:
        yield backend


@pytest.fixture
async def url(t: TestBackend) -> AsyncIterator[str]:
    async with served(t) as (url, _):
        yield url


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=4096)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the connection is closed or reset."""
    received = b""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                received += data
    return received


async def lines(t: TestBackend) -> str:
    return (await t.fetch("/lines")).text


async def test_the_second_port_has_the_routes_and_nothing_else(t: TestBackend) -> None:
    async with served(t) as (url, site), httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{site}/api/hook")).text == "mine"
        assert (await client.get(f"{url}/api/hook")).status_code == 404
        assert (await client.get(f"{site}/version")).status_code == 404
        assert (await client.get(f"{url}/version")).status_code == 200
        for address in (f"{site}/docs/a", f"{url}/docs/a", f"{url}/http/docs/a"):
            assert (await client.get(address)).text == "docs a"


async def test_the_second_port_has_no_sockets(t: TestBackend) -> None:
    upgrade = (
        "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    async with served(t) as urls:
        for url, status in zip(urls, (b"101", b"403"), strict=True):
            async with connected(url) as (reader, writer):
                writer.write(f"GET /api/1.48.0/sync HTTP/1.1\r\nhost: x\r\n{upgrade}".encode())
                assert (await reader.readline()).split()[1] == status


async def test_chunks_arrive_as_they_are_sent(t: TestBackend, url: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, client.stream("GET", f"{url}/held") as answer:
        chunks = answer.aiter_text()
        assert await anext(chunks) == "first\n"
        await gate("held").reached.wait()
        gate("held").open()
        assert [chunk async for chunk in chunks] == ["second\n"]
    assert await lines(t) == "ended"


async def test_a_body_is_answered_while_it_is_still_sent(t: TestBackend, url: str) -> None:
    async with connected(url) as (reader, writer):
        writer.write(b"POST /echo-stream HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        assert (await reader.readuntil(b"ONE\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\nTWO\r\n0\r\n\r\n"


async def test_a_stream_ends_when_its_reader_goes_away(t: TestBackend, url: str) -> None:
    async with connected(url) as (reader, writer):
        writer.write(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"xxxx")
        assert t._server.http_actions._running == 1
    await eventually_async(lambda: t._server.http_actions._running == 0, "the action to end")


async def test_what_a_handler_does_is_done_though_its_client_has_gone(t: TestBackend, url: str) -> None:
    runs: list[bool] = []
    t._runner._on_run = lambda run: runs.append(run.ok) if run.origin == "http action" else None
    async with connected(url) as (_, writer):
        writer.write(b"POST /held-line HTTP/1.1\r\nhost: x\r\n\r\n")
        await gate("held line").reached.wait()
    gate("held line").open()
    await eventually_async(lambda: runs, "the action to end")
    assert runs == [True] and await lines(t) == "held"


async def test_an_answer_that_fails_in_the_middle_is_cut_off(t: TestBackend, url: str) -> None:
    async with connected(url) as (reader, writer):
        writer.write(b"GET /fails/late HTTP/1.1\r\nhost: x\r\n\r\n")
        received = await ended(reader)
        assert received.startswith(b"HTTP/1.1 200 OK") and received.endswith(b"5\r\nbegun\r\n")


async def test_a_client_that_does_not_read_is_dropped(t: TestBackend, url: str) -> None:
    async with connected(url) as (reader, writer):
        writer.write(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"xxxx")
        # The stream's limit keeps this side from reading on by itself.
        await eventually_async(lambda: t._server.http_actions._running == 0, "the action to end")


@pytest.mark.parametrize(
    "begun",
    [
        b"POST /raw HTTP/1.1\r\nhost: x\r\ncontent-le",
        b"POST /raw HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf",
        b"POST /raw HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nha",
        b"POST /api/query HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{",
        b"GET /who HTTP/1.1\r\nhost: x\r\n\r\nGET /who HTT",
    ],
)
async def test_a_client_that_falls_silent_in_a_request_is_dropped(t: TestBackend, url: str, begun: bytes) -> None:
    async with connected(url) as (reader, writer):
        writer.write(begun)
        received = await ended(reader)
        assert received == b"" or (begun.startswith(b"GET") and received.endswith(b"nobody"))
    assert t._server.http_actions._running == 0


async def test_a_head_that_comes_byte_by_byte_is_dropped(t: TestBackend, url: str) -> None:
    async with connected(url) as (reader, writer):

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                writer.write(b"GET /who HTTP/1.1\r\nhost: x\r\nx-a: ")
                while True:
                    writer.write(b"a")
                    await asyncio.sleep(0)

        dripping = asyncio.ensure_future(drip())
        assert await ended(reader) == b""
        dripping.cancel()


@pytest.mark.parametrize("endless", [b"a", b"x-a: b\r\n"], ids=["an address", "headers"])
async def test_a_head_that_does_not_end_is_refused(t: TestBackend, url: str, endless: bytes) -> None:
    async with connected(url) as (reader, writer):
        writer.write(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\nGET /who")
        await reader.readuntil(b"\r\n\r\nnobody")
        if endless.endswith(b"\n"):
            writer.write(b" HTTP/1.1\r\n")
        writer.write(endless * (DEFAULT_LIMITS.http_head_bytes // len(endless) + 1))
        assert (await ended(reader)).startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")


async def test_what_follows_the_last_chunk_of_a_body_does_not_grow_for_ever(t: TestBackend, url: str) -> None:
    async with connected(url) as (reader, writer):
        writer.write(b"POST /echo-stream HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await reader.readuntil(b"ONE\r\n")

        async def go_on() -> None:
            with contextlib.suppress(ConnectionError):
                writer.write(b"0\r\n")
                while True:
                    writer.write(b"x-a: b\r\n" * 1000)
                    await asyncio.sleep(0)

        going_on = asyncio.ensure_future(go_on())
        assert await ended(reader) == b""
        going_on.cancel()
    await eventually_async(lambda: t._server.http_actions._running == 0, "the action to end")


async def test_what_follows_the_last_chunk_of_a_body_is_no_header(t: TestBackend, url: str) -> None:
    async with connected(url) as (reader, writer):
        writer.write(b"POST /shown HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-shown: behind\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nnothing")


async def test_no_more_is_read_while_requests_wait_for_their_turn(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[int] = []
    data_received = HttpProtocol.data_received

    def counted(self: HttpProtocol, data: bytes) -> None:
        waiting.append(len(self.pipeline))
        data_received(self, data)

    monkeypatch.setattr(HttpProtocol, "data_received", counted)
    async with connected(url) as (reader, writer):
        writer.write((b"GET /livez HTTP/1.1\r\nhost: x\r\nx-a: %b\r\n\r\n" % (b"a" * 1000)) * 1000)
        for _ in range(1000):
            await reader.readuntil(b'{"alive":true}')
    assert len(waiting) > 2 and set(waiting) == {0}


async def test_requests_that_wait_for_their_turn_behind_an_action_are_answered(url: str) -> None:
    async with connected(url) as (reader, writer):
        writer.write(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n" * 10)
        async with asyncio.timeout(5):
            for _ in range(10):
                await reader.readuntil(b"\r\n\r\nnobody")


async def test_after_a_large_read_of_a_body_that_nobody_wants_others_have_a_turn(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reading: list[bool] = []
    data_received = HttpProtocol.data_received

    def looked(self: HttpProtocol, data: bytes) -> None:
        data_received(self, data)
        if len(data) >= READ_BYTES and self._in_request:
            reading.append(self.transport.is_reading())

    monkeypatch.setattr(HttpProtocol, "data_received", looked)
    async with connected(url) as (reader, writer):
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n\r\n")
        await reader.readuntil(b'{"alive":true}')
        writer.write(b"x" * 4_000_000 + b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b'{"alive":true}')
    assert reading and not any(reading)


async def test_a_client_that_waits_for_its_turn_is_not_silent(t: TestBackend, url: str) -> None:
    """It sends its body once it is asked to go on, and the handler takes longer than clients may before it asks."""
    async with connected(url) as (reader, writer):
        writer.write(b"POST /late HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        await reader.readuntil(b"\r\n\r\nbody")


async def test_connections_are_kept_between_requests(t: TestBackend, url: str) -> None:
    async with connected(url) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\nnobody")
            await asyncio.sleep(0.5)  # longer than silence may last in a request
        assert not reader.at_eof()
