"""Subscribers of one text, and the one who writes it: the load of ``fanout.py``, in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Literal

from generator import Awake, in_a_process
from report import Server
from sockets import WebSocket, connect_message, open_all, query_set

__all__ = ["Fanout", "Figures", "Kind", "run"]

Kind = Literal["reactor", "broadcast", "socket.io"]
#: What stands in a text before its number, whoever sends it.
SEQ = b'"seq":'
#: How a frame begins that holds a whole text of usual length, and how long that beginning is.
TEXT, HEADER_BYTES = 0x81, 4
BODY_CHARS = 100
#: A write at a fixed time is waited for awake: the event loop counts in milliseconds.
EARLY_S = 0.003


@dataclass(frozen=True)
class Fanout:
    """What to measure.

    Attributes:
        queries: of each subscriber; all share the first, which is written to, and nobody shares another.
        size_bytes: of a delivered text, where the server sends what the writer says; what reactor sends is as it is.
        seconds: of each of the two parts.
        writes_per_second: in the second part.
    """

    kind: Kind
    server: Server
    subscribers: int
    queries: int
    size_bytes: int
    seconds: float
    writes_per_second: float = 5.0
    warmup_s: float = 1.0


@dataclass(frozen=True)
class Figures:
    """What came of it.

    Attributes:
        writes_per_second, deliveries_per_second: with one writer, who writes again when answered.
        skipped: the share of (write, subscriber) in that part which a subscriber was never shown, as a later state overtook it.
        cpu_us: of the server for each delivery in that part.
        server_cpu, generator_cpu: shares of a core in that part, without what the generator spent on staying awake.
        p50_ms, p95_ms, p99_ms: from a write to each delivery of it, at the fixed rate.
        size_bytes: of a delivered text.
    """

    writes_per_second: float
    deliveries_per_second: float
    skipped: float
    cpu_us: float
    server_cpu: float
    generator_cpu: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    size_bytes: int


@dataclass
class Tally:
    """What all subscribers were delivered.

    Attributes:
        sent_at: of each write by its number; latencies are taken while ``timed``.
        shown: how many were delivered each write.
        frame: the last one that came alone, and the number in it: most subscribers receive the same.
    """

    deliveries: int = 0
    size_bytes: int = 0
    timed: bool = False
    sent_at: list[float] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)
    latencies: array[float] = field(default_factory=lambda: array("d"))
    frame: tuple[bytes, int] = (b"", -1)


class Subscriber(WebSocket):
    """Listens."""

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally
        self.seq = -1

    def data_received(self, data: bytes) -> None:
        frame, seq = self.tally.frame
        if data == frame and not self._rest:
            self.delivered(seq)
        else:
            super().data_received(data)

    def text(self, data: bytes, start: int, end: int) -> None:
        at = data.find(SEQ, start, end)
        if at < 0:
            self.other_text(data[start:end])
            return
        at += len(SEQ)
        seq = int(float(data[at : data.find(b",", at, end)]))
        self.delivered(seq)
        self.tally.size_bytes = end - start
        if data[0] == TEXT and start == HEADER_BYTES and end == len(data):
            self.tally.frame = (data, seq)

    def delivered(self, seq: int) -> None:
        self.seq = seq
        tally = self.tally
        tally.deliveries += 1
        tally.shown[seq] += 1
        if tally.timed:
            tally.latencies.append(time.perf_counter() - tally.sent_at[seq])

    def other_text(self, message: bytes) -> None:
        """What is no delivery."""


class Writer(WebSocket):
    """Posts one text at a time.

    Attributes:
        answered: called when the last one was acknowledged.
    """

    def __init__(self, load: Fanout) -> None:
        super().__init__()
        self.answered: Callable[[], None] = lambda: None
        self.acknowledged = 0
        self.body = "x" * BODY_CHARS

    def post(self, seq: int) -> None:
        raise NotImplementedError

    def acknowledge(self) -> None:
        self.acknowledged += 1
        self.answered()


class ReactorSubscriber(Subscriber):
    def __init__(self, tally: Tally, number: int, queries: int) -> None:
        super().__init__(tally)
        own = range(number * (queries - 1), (number + 1) * (queries - 1))
        self.topics = ["shared", *(f"own-{topic}" for topic in own)]

    def opened(self) -> None:
        self.send(connect_message())
        self.send(query_set([("notes:newest", {"topic": topic}) for topic in self.topics]))

    def text(self, data: bytes, start: int, end: int) -> None:
        if self.ready.done():
            super().text(data, start, end)
        elif data.find(b'"QueryUpdated"', start, end) >= 0:
            self.ready.set_result(None)


class ReactorWriter(Writer):
    def opened(self) -> None:
        self.send(connect_message())
        self.ready.set_result(None)

    def post(self, seq: int) -> None:
        self.send(
            b'{"type":"Mutation","requestId":%d,"udfPath":"notes:post","args":[{"topic":"shared","seq":%d.0,"body":"%s"}]}'
            % (seq, seq, self.body.encode())
        )

    def text(self, data: bytes, start: int, end: int) -> None:
        if data.startswith(b'{"type":"MutationResponse"', start):
            if data.find(b'"success":true', start, end) < 0:
                raise RuntimeError(data[start:end].decode())
            self.acknowledge()


class BroadcastSubscriber(Subscriber):
    def opened(self) -> None:
        self.ready.set_result(None)


class BroadcastWriter(Writer):
    path = "/writer"

    def __init__(self, load: Fanout) -> None:
        super().__init__(load)
        self.size = load.size_bytes

    def opened(self) -> None:
        self.ready.set_result(None)

    def post(self, seq: int) -> None:
        self.send((b'{"seq":%d.0,"body":"' % seq).ljust(self.size - 2, b"x") + b'"}')

    def text(self, data: bytes, start: int, end: int) -> None:
        self.acknowledge()


class SocketIo(WebSocket):
    """The handshake and the keep-alive of Engine.IO."""

    path = "/socket.io/?EIO=4&transport=websocket"

    def opened(self) -> None: ...

    def connected(self) -> None:
        raise NotImplementedError

    def other_text(self, message: bytes) -> None:
        if message.startswith(b"0"):
            self.send(b"40")
        elif message.startswith(b"40"):
            self.connected()
        elif message == b"2":
            self.send(b"3")
        elif message.startswith(b"43"):
            self.acknowledge()

    def acknowledge(self) -> None:
        raise NotImplementedError


class SocketIoSubscriber(SocketIo, Subscriber):
    def connected(self) -> None:
        self.send(b'420["listen"]')

    def acknowledge(self) -> None:
        self.ready.set_result(None)


class SocketIoWriter(SocketIo, Writer):
    acknowledge = Writer.acknowledge

    def __init__(self, load: Fanout) -> None:
        super().__init__(load)
        self.body = "x" * (load.size_bytes - len('42["note",{"seq":1000,"body":""}]'))

    def connected(self) -> None:
        self.ready.set_result(None)

    def post(self, seq: int) -> None:
        self.send(b'42%d["post",{"seq":%d,"body":"%s"}]' % (seq, seq, self.body.encode()))

    def text(self, data: bytes, start: int, end: int) -> None:
        self.other_text(data[start:end])


WRITERS: dict[Kind, type[Writer]] = {"reactor": ReactorWriter, "broadcast": BroadcastWriter, "socket.io": SocketIoWriter}


def _subscriber(load: Fanout, tally: Tally, number: int) -> Subscriber:
    if load.kind == "reactor":
        return ReactorSubscriber(tally, number, load.queries)
    return (BroadcastSubscriber if load.kind == "broadcast" else SocketIoSubscriber)(tally)


class _Fan:
    """A load under way."""

    def __init__(self, load: Fanout) -> None:
        self.load = load
        self.tally = Tally()
        self.subscribers = [_subscriber(load, self.tally, number) for number in range(load.subscribers)]
        self.writer = WRITERS[load.kind](load)
        self.writing = False
        self.awake = Awake(lambda: self.tally.deliveries, self.is_owed)

    async def measure(self) -> Figures:
        await open_all([*self.subscribers, self.writer], self.load.server.port)
        gc.collect()
        gc.freeze()
        gc.disable()
        saturated = await self.saturate()
        await self.settle()
        latencies = await self.pace()
        await self.settle()
        for connection in (*self.subscribers, self.writer):
            connection.close()
        cuts = [1000 * cut for cut in quantiles(latencies, n=100)]
        return Figures(*saturated, cuts[49], cuts[94], cuts[98], self.tally.size_bytes)

    def write(self, intended_at: float | None = None) -> None:
        tally = self.tally
        tally.sent_at.append(time.perf_counter() if intended_at is None else intended_at)
        tally.shown.append(0)
        self.writer.post(len(tally.sent_at) - 1)
        self.awake.stay()

    def write_at(self, intended_at: float) -> None:
        if time.perf_counter() < intended_at:
            asyncio.get_running_loop().call_soon(self.write_at, intended_at)
        else:
            self.write(intended_at)

    def is_owed(self) -> bool:
        """Whether anyone is owed something."""
        return self.writer.acknowledged < len(self.tally.sent_at) or self.tally.shown[-1] < len(self.subscribers)

    async def saturate(self) -> tuple[float, float, float, float, float, float]:
        load, tally, writer = self.load, self.tally, self.writer
        writer.answered = lambda: self.write() if self.writing else None
        self.writing = True
        self.write()
        await asyncio.sleep(load.warmup_s)
        deliveries, writes, cpu = (
            tally.deliveries,
            writer.acknowledged,
            (load.server.cpu_seconds(), time.process_time() - self.awake.idle_s),
        )
        began = time.perf_counter()
        await asyncio.sleep(load.seconds)
        took = time.perf_counter() - began
        deliveries, writes = tally.deliveries - deliveries, writer.acknowledged - writes
        server, generator = load.server.cpu_seconds() - cpu[0], time.process_time() - self.awake.idle_s - cpu[1]
        self.writing = False
        skipped = max(0.0, 1 - deliveries / max(1, writes * load.subscribers))
        return (writes / took, deliveries / took, skipped, server / max(1, deliveries) * 1e6, server / took, generator / took)

    async def pace(self) -> array[float]:
        """Write at the fixed rate, at fixed times, whatever the answers do."""
        load, loop = self.load, asyncio.get_running_loop()
        self.tally.timed = True
        count = max(2, round(load.seconds * load.writes_per_second))
        offset = time.perf_counter() - loop.time()
        began = loop.time() + 0.05
        for number in range(count):
            at = began + number / load.writes_per_second
            loop.call_at(at - EARLY_S, self.write_at, at + offset)
        await asyncio.sleep(count / load.writes_per_second)
        return self.tally.latencies

    async def settle(self) -> None:
        """Return when every write was acknowledged, and everyone has seen the last.

        Raises:
            TimeoutError: someone never does.
        """
        async with asyncio.timeout(30):
            while not self.settled():  # noqa: ASYNC110 - an event would be one more thing to do for each delivery
                await asyncio.sleep(0.02)

    def settled(self) -> bool:
        writes = len(self.tally.sent_at)
        return self.writer.acknowledged == writes and all(one.seq == writes - 1 for one in self.subscribers)


async def _measure(load: Fanout) -> Figures:
    return await _Fan(load).measure()


def run(load: Fanout) -> Figures:
    """Measure from a process of its own.

    Raises:
        RuntimeError: it failed; it has said why.
    """
    return in_a_process(_measure, load, sockets=load.subscribers + 1)
