"""Generators of load, each in a process of its own. Each connection has one request outstanding.

The lean one spends little, so that it is the server that ends a measurement: requests are prepared before the clock starts, and
of an answer only its end is looked for. The other one is a Node program (peers/load.mjs) that uses what programs use: Node's own
fetch, and the official client over WebSocket.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import subprocess
import sys
import time
import uuid
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal, cast

import uvloop
from generator import Awake

__all__ = ["PEERS", "Function", "Generator", "Load", "Result", "Transport", "run", "zipf"]

Generator = Literal["lean", "Node"]
Transport = Literal["websocket", "http"]
Function = Literal["accounts:transfer", "accounts:balance"]

PEERS = Path(__file__).resolve().parent / "peers"
REQUESTS = 2000  # prepared for each connection, then sent over again
ANSWER_WITHIN_S = 10.0


@dataclass(frozen=True)
class Load:
    """What to send.

    Attributes:
        connections: each with one request at a time.
        skew: of the Zipf distribution by which accounts are drawn; 0 is uniform.
        warmup_s: before anything is counted.
        function: a mutation, or by the lean generator over HTTP the query of one account's balance.
        awake: the lean generator does not sleep; see ``generator.Awake``. It needs a core that the server does not.
    """

    port: int
    generator: Generator
    transport: Transport
    connections: int
    accounts: int
    skew: float
    seconds: float
    warmup_s: float = 1.0
    function: Function = "accounts:transfer"
    seed: int = 1
    awake: bool = True


@dataclass(frozen=True)
class Result:
    """What came of it. Latencies in ms, from sending a request to reading its answer.

    Attributes:
        client_cpu_us: that the generator spent on a request, and not on staying awake.
    """

    per_second: float
    client_cpu_us: float
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
    if size < 65536:
        return b"\x81\xfe" + size.to_bytes(2, "big") + b"\0\0\0\0" + payload
    return b"\x81\xff" + size.to_bytes(8, "big") + b"\0\0\0\0" + payload


def _pairs(load: Load) -> list[list[tuple[int, int]]]:
    """The two accounts of each transfer, for each connection: the same ones from each generator."""
    rng = random.Random(load.seed)  # noqa: S311 - repeatable on purpose
    draw = zipf(load.accounts, load.skew, rng)

    def pair() -> tuple[int, int]:
        source, target = draw(), draw()
        while target == source:
            target = rng.randrange(load.accounts)
        return source, target

    return [[pair() for _ in range(REQUESTS)] for _ in range(load.connections)]


def _request(load: Load, source: int, target: int) -> bytes:
    kind, args = "mutation", f'{{"source":{source}.0,"target":{target}.0,"amount":1.0}}'
    if load.function == "accounts:balance":
        kind, args = "query", f'{{"number":{source}.0}}'
    if load.transport == "websocket":
        return f'{{"type":"Mutation","requestId":%d,"udfPath":"{load.function}","args":[{args}]}}'.encode()
    body = f'{{"path":"{load.function}","args":{args},"format":"json"}}'
    head = f"POST /api/{kind} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


async def _drive(load: Load, pairs: list[list[tuple[int, int]]]) -> Result:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    counter = [0]
    prepared = [[_request(load, *pair) for pair in each] for each in pairs]
    clients = []
    for requests in prepared:
        make = partial(_Client, load, requests, latencies, counter)
        _, client = await loop.create_connection(make, "127.0.0.1", load.port)
        clients.append(client)
    await asyncio.gather(*(client.ready for client in clients))
    awake = Awake(lambda: len(latencies), lambda: clients[0].running)
    for client in clients:
        client.start()
    if load.awake:
        awake.stay()
    await asyncio.sleep(load.warmup_s)
    _say("measuring")
    latencies.clear()
    counter[0] = 0
    began, cpu = time.perf_counter(), time.process_time() - awake.idle_s
    await asyncio.sleep(load.seconds)
    # On a machine that does much else a short measurement may see nothing.
    while not latencies and time.perf_counter() - began < ANSWER_WITHIN_S:  # noqa: ASYNC110 - for a length of time
        await asyncio.sleep(load.seconds)
    took, cpu = time.perf_counter() - began, time.process_time() - awake.idle_s - cpu
    measured = sorted(latencies)
    _say("measured")
    for client in clients:
        client.running = False
        client.transport.close()
    if not measured:
        raise RuntimeError("no request was answered")
    p50, p95, p99 = (measured[int(len(measured) * share)] * 1000 for share in (0.5, 0.95, 0.99))
    return Result(len(measured) / took, cpu / len(measured) * 1e6, p50, p95, p99, counter[0])


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)


def run(load: Load, cpu_seconds: Callable[[], float]) -> tuple[Result, float]:
    """Send a load from a process of its own.

    Args:
        cpu_seconds: of the server so far.

    Returns:
        What came of it, and the server's CPU per answered request in µs.

    Raises:
        RuntimeError: when the generator broke; it has printed why.
    """
    command = ["node", str(PEERS / "load.mjs")] if load.generator == "Node" else [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"load": asdict(load), "pairs": _pairs(load)}).encode())
        process.stdin.close()
        process.stdout.readline()  # measuring
        before = cpu_seconds()
        process.stdout.readline()  # measured
        spent = cpu_seconds() - before
        last = process.stdout.readline()
        if not last:
            raise RuntimeError(f"the generator ended early: {load}")
    result = Result(**json.loads(last))
    return result, spent / (result.per_second * load.seconds) * 1e6


if __name__ == "__main__":
    _settings = json.load(sys.stdin)
    _say(asdict(uvloop.run(_drive(Load(**_settings["load"]), _settings["pairs"]))))
