"""Where a client connects to, and how long it waits before it tries again."""

from __future__ import annotations

from typing import Any

import pytest

from reactor.client import Client
from reactor.client.client import backoff_s, sync_address
from reactor.errors import ReactorError

pytestmark = pytest.mark.sqlite_only("addresses and waiting, without a server")


@pytest.mark.parametrize(
    ("reason", "failures", "random", "seconds"),
    [
        ("", 0, 0.0, 0.5),
        ("InternalServerError", 0, 0.5, 1),
        ("whatever", 2, 0.999, pytest.approx(6, rel=0.01)),
        ("TooManyConcurrentRequests: 7", 1, 0.5, 6),
        ("InactiveServer", 0, 0.5, 0.1),
        ("InactiveServer", 5000, 0.5, 16),
    ],
)
def test_how_long_it_waits(reason: str, failures: int, random: float, seconds: Any) -> None:
    assert backoff_s(reason, failures, lambda: random) == seconds


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:3210", "ws://localhost:3210/api/1.48.0/sync"),
        ("https://example.com/prefix/", "wss://example.com/prefix/api/1.48.0/sync"),
        ("ws://[::1]:3210/", "ws://[::1]:3210/api/1.48.0/sync"),
        ("wss://example.com", "wss://example.com/api/1.48.0/sync"),
    ],
)
def test_where_a_server_is_reached(url: str, address: str) -> None:
    assert sync_address(url) == address


@pytest.mark.parametrize("url", ["localhost:3210", "ftp://localhost", "http://", ""])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ReactorError, match=r"http://127\.0\.0\.1:3210"):
        Client(url)
