"""The fan-out benchmark in a short form. It fails by itself when a subscriber is not shown the last write."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.support.benchmarks import run_benchmark
from tests.support.server import ROOT


def test_every_subscriber_of_each_server_is_shown_the_last_write(tmp_path: Path) -> None:
    rows = run_benchmark("fanout", tmp_path, "--subscribers", "20", "--seconds", "0.4")["rows"]
    assert [(row["server"], row["queries"]) for row in rows] == [("reactor", 1), ("reactor", 10), ("broadcast", 1), ("socket.io", 1)]
    assert all(row["deliveries_per_second"] > 0 and row["p99_ms"] > 0 for row in rows)
    sizes = [row["size_bytes"] for row in rows]
    assert max(sizes) - min(sizes) < 20, "all deliver texts of about the same size"


@pytest.mark.anyio
async def test_what_several_subscribers_receive_is_read_once_and_counted_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from fanout_load import BroadcastSubscriber, Tally

    tally = Tally(sent_at=[0.0, 0.0], shown=[0, 0])
    subscribers = [BroadcastSubscriber(tally) for _ in range(3)]
    transports = [Mock(spec=asyncio.Transport) for _ in subscribers]
    for subscriber, transport in zip(subscribers, transports, strict=True):
        subscriber.connection_made(transport)
        subscriber.data_received(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    text = b'{"seq":1.0,"body":"'.ljust(398, b"x") + b'"}'
    frame, ping = b"\x81\x7e" + len(text).to_bytes(2, "big") + text, b"\x89\x00"
    alone, in_parts, with_a_ping = subscribers
    alone.data_received(frame)
    assert tally.frame == (frame, 1)
    alone.data_received(frame)
    in_parts.data_received(frame[:100])
    in_parts.data_received(frame[100:])
    with_a_ping.data_received(ping + frame)
    assert [one.seq for one in subscribers] == [1, 1, 1]
    assert (tally.deliveries, tally.shown) == (4, [0, 4])
    transports[2].write.assert_called_with(b"\x8a\x80\0\0\0\0")
