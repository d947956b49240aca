"""Transitions larger than a frame: in parts for the clients that put them together, whole for the others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from reactor.limits import DEFAULT_LIMITS
from reactor.testing import TestBackend
from tests.server.support import APP, SmallBackend, socket

pytestmark = pytest.mark.anyio

PATTERN = 'é"\\😀a\n'


@pytest.fixture
async def t(anyio_backend: str) -> AsyncIterator[TestBackend]:
    async with SmallBackend(APP, limits=replace(DEFAULT_LIMITS, sent_frame_size_bytes=1000)) as backend:
        yield backend


@pytest.mark.parametrize("path", ["/api/1.28.0/sync", "/api/1.48.0/sync", "/api/2.0.0/sync"])
async def test_a_client_that_can_gets_a_large_transition_in_parts(t: TestBackend, path: str) -> None:
    async with socket(t, path=path) as client:
        query = client.subscribe("values:long", letter=PATTERN, times=2000)
        assert await client.result(query) == PATTERN * 2000
        assert client.chunked > 10


@pytest.mark.parametrize(
    ("path", "header"), [("/api/1.27.9/sync", None), ("/api/sync", "python-0.8.1"), ("/api/sync", "rust-1.48.0"), ("/api/sync", None)]
)
async def test_other_clients_get_it_whole(t: TestBackend, path: str, header: str | None) -> None:
    async with socket(t, path=path, header=header) as client:
        query = client.subscribe("values:long", letter=PATTERN, times=2000)
        assert await client.result(query) == PATTERN * 2000
        assert client.chunked == 0


async def test_only_transitions_come_in_parts(t: TestBackend) -> None:
    async with socket(t) as client:
        text = PATTERN * 500
        assert (await client.response(client.mutate("notes:add_to", lists=[], text=text)))["result"] == text
        assert client.chunked == 0


@pytest.mark.parametrize("direct", [False, True])
async def test_transitions_that_fit_come_whole_and_parts_do_not_mix_with_answers(t: TestBackend, direct: bool) -> None:
    async with socket(t, direct=direct) as other, socket(t, direct=direct) as client:
        other.subscribe("notes:texts", list="a")
        await other.reflected()
        query = client.subscribe("notes:texts", list="a")
        await client.reflected()
        for number in range(20):
            client.mutate("notes:add_to", lists=["a"], text=f"{number}" * 100)
        await client.reflected()
        # ``Socket`` fails when anything stands between two parts.
        assert len(await client.result(query)) == 20 and client.chunked > 0
        await other.until(0, await client.result(query))
        assert other.chunked > 0
