"""A lean generator of load, in a process of its own: it spends little, so that it is the server that ends a measurement.

Each connection has one request outstanding. Requests are prepared before the clock starts; of an answer only its end is looked for.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import random
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from statistics import quantiles
from typing import Literal, cast

import uvloop

__all__ = ["Load", "Result", "Transport", "run", "zipf"]

Transport = Literal["websocket", "http"]


@dataclass(frozen=True)
class Load:
    """What to send.

    Attributes:
        connections: each with one request at a time.
        skew: of the Zipf distribution by which accounts are drawn; 0 is uniform.
        warmup_s: before anything is counted.
    """

    port: int
    transport: Transport
    connections: int
    accounts: int
    skew: float
    seconds: float
    warmup_s: float = 1.0
    path: str = "accounts:transfer"
    seed: int = 1


@dataclass(frozen=True)
class Result:
    """What came of it. Latencies in ms, from sending a request to reading its answer."""

    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failed: int


def zipf(count: int, skew: float, rng: random.Random) -> Callable[[], int]:
    """Draws numbers below ``count``, the first ones most often."""
    if skew == 0:
        return lambda: rng.randrange(count)
    weights = list(itertools.accumulate(1 / (rank**skew) for rank in range(1, count + 1)))
    return lambda: bisect_left(weights, rng.random() * weights[-1])


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: Load, requests: list[bytes], latencies: list[float], counter: list[int]) -> None:
        self.load = load
        self.requests = itertools.cycle(requests)
        self.latencies = latencies
        self.counter = counter
        self.buffer = b""
        self.sent_at = 0.0
        self.ready = asyncio.get_running_loop().create_future()
        self.running = False
        self.request_id = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.load.transport == "http":
            self.ready.set_result(None)
        else:
            self.transport.write(
                b"GET /api/1.48.0/sync HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )

    def start(self) -> None:
        self.running = True
        self.send()

    def send(self) -> None:
        self.sent_at = time.perf_counter()
        body = next(self.requests)
        if self.load.transport == "http":
            self.transport.write(body)
        else:
            self.transport.write(frame(body % self.request_id))
            self.request_id += 1

    def data_received(self, data: bytes) -> None:
        if not self.ready.done():
            if b"\r\n\r\n" in data:
                hello = {"type": "Connect", "sessionId": str(uuid.uuid4()), "connectionCount": 0, "lastCloseReason": "InitialConnect"}
                self.transport.write(frame(json.dumps(hello).encode()))
                self.ready.set_result(None)
            return
        data = self.buffer + data
        if self.load.transport == "http":
            head = data.find(b"\r\n\r\n")
            if head < 0 or not data.endswith(b"}"):
                self.buffer = data
                return
            answered, good = True, b'"status":"success"' in data
        else:
            answered = b'"type":"MutationResponse"' in data
            good = b'"success":true' in data
            if not answered:
                self.buffer = data[-40:]
                return
        self.buffer = b""
        if self.running:
            self.latencies.append(time.perf_counter() - self.sent_at)
            self.counter[0] += not good
            self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if self.running:
            raise RuntimeError(f"the server closed a connection: {error}")


def frame(payload: bytes) -> bytes:
    """A text frame as a client sends it, with a mask of zeros."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, 0x80 | size, 0, 0, 0, 0)) + payload
    return b"\x81\xfe" + size.to_bytes(2, "big") + b"\0\0\0\0" + payload


def _requests(load: Load, connection: int) -> list[bytes]:
    rng = random.Random(load.seed * 1000 + connection)  # noqa: S311 - repeatable on purpose
    draw = zipf(load.accounts, load.skew, rng)
    made = []
    for _ in range(2000):
        source, target = draw(), draw()
        while target == source:
            target = rng.randrange(load.accounts)
        args = f'{{"source":{source}.0,"target":{target}.0,"amount":1.0}}'
        if load.transport == "http":
            body = f'{{"path":"{load.path}","args":{args},"format":"json"}}'
            head = f"POST /api/mutation HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            made.append((head + body).encode())
        else:
            made.append(f'{{"type":"Mutation","requestId":%d,"udfPath":"{load.path}","args":[{args}]}}'.encode())
    return made


async def _drive(load: Load, ready: Connection) -> Result:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    counter = [0]
    prepared = [_requests(load, number) for number in range(load.connections)]
    clients = []
    for requests in prepared:
        make = partial(_Client, load, requests, latencies, counter)
        _, client = await loop.create_connection(make, "127.0.0.1", load.port)
        clients.append(client)
    await asyncio.gather(*(client.ready for client in clients))
    for client in clients:
        client.start()
    await asyncio.sleep(load.warmup_s)
    ready.send("measuring")
    latencies.clear()
    counter[0] = 0
    began = time.perf_counter()
    await asyncio.sleep(load.seconds)
    took = time.perf_counter() - began
    measured = sorted(latencies)
    ready.send("measured")
    for client in clients:
        client.running = False
        client.transport.close()
    cuts = quantiles(measured, n=100)
    return Result(len(measured) / took, cuts[49] * 1000, cuts[94] * 1000, cuts[98] * 1000, counter[0])


def _process(load: Load, ready: Connection) -> None:
    ready.send(uvloop.run(_drive(load, ready)))


def run(load: Load, cpu_seconds: Callable[[], float]) -> tuple[Result, float]:
    """Send a load from a process of its own.

    Args:
        cpu_seconds: of the server so far.

    Returns:
        What came of it, and the server's CPU per answered request in µs.
    """
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_process, args=(load, there))
    process.start()
    there.close()  # so that the end of the process ends the wait for it
    assert here.recv() == "measuring"
    before = cpu_seconds()
    assert here.recv() == "measured"
    spent = cpu_seconds() - before
    result: Result = here.recv()
    process.join()
    return result, spent / max(1.0, result.per_second * load.seconds) * 1e6
