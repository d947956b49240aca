"""Meetings that go on: the load of ``meetings.py``, in a process of its own.

Every message has a time at which it is due, fixed before the load begins, and every latency counts from then: a server (or a load)
that falls behind shows it, instead of being asked less. Each stored document carries its time, so that a delivery tells how old it is.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, takewhile, zip_longest
from typing import Any

import orjson
from generator import in_a_process
from report import Server
from sockets import HttpConnection, WebSocket, connect_message, open_all, query_set

__all__ = ["Figures", "Meetings", "run"]

QUERIES = ("meetings:transcript", "meetings:chat", "meetings:present")
PRESENT = 2
WATCHERS = 3
PERIOD_S = 5.0  # after which the load repeats itself
APPENDS = 50  # of each meeting in a period, as many as there are
LINES = 1
TICK_S = 0.001
#: What is still owed after the measured time is waited for so long, and no longer than this after the last of it came.
GRACE_S, SILENCE_S = 30.0, 3.0
HTTP_CONNECTIONS = 16
SPEECH = "and that is why the second quarter looks the way it does, if you ask me"
AT = b'"at":'


@dataclass(frozen=True)
class Meetings:
    """What to measure.

    Attributes:
        meetings: that go on at the same time.
        queries_per_second: one-off, all meetings together.
    """

    server: Server
    meetings: int
    seconds: float
    queries_per_second: float = 20.0
    warmup_s: float = 2.0
    seed: int = 1


@dataclass(frozen=True)
class Figures:
    """What came of it, of what was due in the measured time. Latencies in ms, from when it was due; None without any.

    Attributes:
        offered, acknowledged: mutations a second.
        delivered: changes shown to a watcher, a second.
        missing: changes that some watcher was not shown at all.
        mutation_us: the server's CPU for each mutation that it answered in the time, with all that comes of it.
        late_p99_ms: by how much the load itself was late to send.
        wrong: watchers' results that differ from a fresh query's after the end; None when it never ended.
    """

    offered: float
    acknowledged: float
    delivered: float
    failed: int
    missing: int
    wrong: int | None
    query_p50_ms: float | None
    query_p95_ms: float | None
    ack_p50_ms: float | None
    ack_p95_ms: float | None
    delivery_p50_ms: float | None
    delivery_p95_ms: float | None
    delivery_p99_ms: float | None
    late_p99_ms: float | None
    mutation_us: float
    server_cpu: float
    generator_cpu: float


@dataclass
class Tally:
    """What happened to what was due from ``since_ms`` until ``until_ms`` of the load's clock."""

    began: float = field(default_factory=time.perf_counter)
    since_ms: float = float("inf")
    until_ms: float = float("inf")
    acknowledged: array[float] = field(default_factory=lambda: array("d"))
    delivered: array[float] = field(default_factory=lambda: array("d"))
    queried: array[float] = field(default_factory=lambda: array("d"))
    late: array[float] = field(default_factory=lambda: array("d"))
    offered: int = 0
    answers: int = 0
    failed: int = 0

    def now_ms(self) -> float:
        return (time.perf_counter() - self.began) * 1000


class Member(WebSocket):
    """One connection to a meeting. Its mutations are answered in their order.

    Attributes:
        waiting: when the mutations that have no answer yet were due.
    """

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally
        self.waiting: deque[float] = deque()
        self.requests = 0

    def mutate(self, path: bytes, args: bytes, due_ms: float) -> None:
        self.waiting.append(due_ms)
        self.send(b'{"type":"Mutation","requestId":%d,"udfPath":"%s","args":[%s]}' % (self.requests, path, args))
        self.requests += 1

    def answered(self, data: bytes, start: int, end: int) -> None:
        due_ms, tally = self.waiting.popleft(), self.tally
        tally.answers += 1
        if data.find(b'"success":true', start, end) < 0:
            tally.failed += 1
        elif tally.since_ms <= due_ms < tally.until_ms:
            tally.acknowledged.append(tally.now_ms() - due_ms)

    def opened(self) -> None:
        self.send(connect_message())

    def text(self, data: bytes, start: int, end: int) -> None:
        if data.startswith(b'{"type":"MutationResponse"', start):
            self.answered(data, start, end)


class Recorder(Member):
    """Starts a meeting, and appends to its transcript.

    Attributes:
        meeting: its id, once started.
    """

    meeting = b""

    def opened(self) -> None:
        super().opened()
        self.mutate(b"meetings:start", b'{"title":"Weekly"}', 0.0)

    def answered(self, data: bytes, start: int, end: int) -> None:
        super().answered(data, start, end)
        if not self.meeting:
            self.meeting = orjson.loads(data[start:end])["result"].encode()
            self.ready.set_result(None)

    def append(self, due_ms: float) -> None:
        args = b'{"meeting":"%s","speaker":"Ann","at":%r,"text":"%s"}' % (self.meeting, due_ms, SPEECH.encode())
        self.mutate(b"meetings:append", args, due_ms)


class Watcher(Member):
    """Watches a meeting.

    Attributes:
        results: what it was last shown, by query id: the message, and where in it the query's part is.
        newest_ms: of what it was shown of the transcript and of the chat.
        beats_ms: of the persons that it was shown.
    """

    def __init__(self, tally: Tally, meeting: bytes, person: bytes) -> None:
        super().__init__(tally)
        self.meeting = meeting
        self.person = person
        self.results: list[tuple[bytes, int, int]] = [(b"", 0, 0)] * len(QUERIES)
        self.newest_ms = [-1.0, -1.0]
        self.beats_ms: list[float] = []

    def opened(self) -> None:
        super().opened()
        self.beat(0.0)
        self.send(query_set([(path, {"meeting": self.meeting.decode()}) for path in QUERIES]))

    def beat(self, due_ms: float) -> None:
        self.mutate(b"meetings:beat", b'{"meeting":"%s","person":"%s","at":%r}' % (self.meeting, self.person, due_ms), due_ms)

    def say(self, due_ms: float) -> None:
        args = b'{"meeting":"%s","author":"%s","at":%r,"text":"I agree with that"}' % (self.meeting, self.person, due_ms)
        self.mutate(b"meetings:say", args, due_ms)

    def text(self, data: bytes, start: int, end: int) -> None:
        if data.startswith(b'{"type":"T', start):
            at = data.find(b'"type":"QueryUpdated","queryId":', start, end)
            while at >= 0:
                following = data.find(b'"type":"QueryUpdated","queryId":', at + 32, end)
                self.shown(data[at + 32] - 48, data, at, end if following < 0 else following)
                at = following
        else:
            super().text(data, start, end)

    def shown(self, query: int, data: bytes, start: int, end: int) -> None:
        self.results[query] = (data, start, end)
        times = _times(data, start, end)
        if query == PRESENT:
            # In the order of the persons, each with a time of its own.
            beats = list(times)
            news = [time for time, known in zip_longest(beats, self.beats_ms, fillvalue=-1.0) if time > known]
            self.beats_ms = beats
        else:
            # Newest first.
            news = list(takewhile(self.newest_ms[query].__lt__, times))
            self.newest_ms[query] = news[0] if news else self.newest_ms[query]
        tally = self.tally
        now = tally.now_ms()
        tally.delivered.extend([now - time for time in news if tally.since_ms <= time < tally.until_ms])
        if not self.ready.done() and all(data for data, _, _ in self.results):
            self.ready.set_result(None)

    def result(self, query: int) -> Any:
        """The value that it shows now."""
        data, start, end = self.results[query]
        value = data.index(b'"value":', start, end) + len(b'"value":')
        return orjson.loads(data[value : data.rindex(b',"logLines":', value, end)])


def _times(data: bytes, start: int, end: int) -> Iterator[float]:
    """Of the documents in ``data[start:end]``, in their order."""
    at = data.find(AT, start, end)
    while at >= 0:
        at += len(AT)
        yield float(data[at : data.find(b",", at, end)])
        at = data.find(AT, at, end)


class _Load:
    """A load under way."""

    def __init__(self, load: Meetings) -> None:
        self.load = load
        self.tally = Tally()
        self.random = random.Random(load.seed)  # noqa: S311 - repeatable on purpose
        self.recorders = [Recorder(self.tally) for _ in range(load.meetings)]
        self.watchers: list[list[Watcher]] = []
        self.http = [HttpConnection() for _ in range(HTTP_CONNECTIONS)]

    async def measure(self) -> Figures:
        load, tally = self.load, self.tally
        await open_all(self.recorders, load.server.port)
        self.watchers = [
            [Watcher(tally, recorder.meeting, b"person %d" % number) for number in range(WATCHERS)] for recorder in self.recorders
        ]
        await open_all([*chain(*self.watchers)], load.server.port)
        await asyncio.gather(*(http.open(load.server.port) for http in self.http))
        gc.collect()
        gc.freeze()
        gc.disable()
        began_ms = tally.now_ms() + 50
        tally.since_ms = began_ms + load.warmup_s * 1000
        tally.until_ms = tally.since_ms + load.seconds * 1000
        querying = asyncio.ensure_future(self.query(began_ms))
        sending = asyncio.ensure_future(self.send(began_ms))
        await asyncio.sleep((tally.since_ms - tally.now_ms()) / 1000)
        before = load.server.cpu_seconds(), time.process_time(), tally.now_ms(), tally.answers
        await asyncio.sleep((tally.until_ms - tally.now_ms()) / 1000)
        took, answers = (tally.now_ms() - before[2]) / 1000, tally.answers - before[3]
        server, generator = (load.server.cpu_seconds() - before[0]) / took, (time.process_time() - before[1]) / took
        await sending
        wrong = await self.wrong() if await self.settled() else None
        await querying
        for connection in (*self.recorders, *chain(*self.watchers)):
            connection.close()
        for http in self.http:
            http.close()
        offered = tally.offered / load.seconds
        return Figures(
            offered=offered,
            acknowledged=len(tally.acknowledged) / load.seconds,
            delivered=len(tally.delivered) / load.seconds,
            failed=tally.failed,
            missing=tally.offered * WATCHERS - len(tally.delivered),
            wrong=wrong,
            query_p50_ms=percentile(tally.queried, 50),
            query_p95_ms=percentile(tally.queried, 95),
            ack_p50_ms=percentile(tally.acknowledged, 50),
            ack_p95_ms=percentile(tally.acknowledged, 95),
            delivery_p50_ms=percentile(tally.delivered, 50),
            delivery_p95_ms=percentile(tally.delivered, 95),
            delivery_p99_ms=percentile(tally.delivered, 99),
            late_p99_ms=percentile(tally.late, 99),
            mutation_us=server * took / max(1, answers) * 1e6,
            server_cpu=server,
            generator_cpu=generator,
        )

    def schedule(self) -> list[tuple[float, Any]]:
        """Who sends what in a period, and when in it, in ms."""
        made: list[tuple[float, Any]] = []
        for recorder, watchers in zip(self.recorders, self.watchers, strict=True):
            phase = self.random.random() * PERIOD_S * 1000
            made += (((phase + number * PERIOD_S * 1000 / APPENDS) % (PERIOD_S * 1000), recorder.append) for number in range(APPENDS))
            made += ((self.random.random() * PERIOD_S * 1000, self.random.choice(watchers).say) for _ in range(LINES))
            made += ((self.random.random() * PERIOD_S * 1000, watcher.beat) for watcher in watchers)
        return sorted(made, key=lambda entry: entry[0])

    async def send(self, began_ms: float) -> None:
        """Send each message when it is due, until the measured time is over."""
        tally, schedule, at, period_ms = self.tally, self.schedule(), 0, began_ms
        while True:
            now = tally.now_ms()
            while (due := period_ms + schedule[at][0]) <= now:
                if due >= tally.until_ms:
                    return
                # Stored and shown with all its digits, and compared with nothing but itself.
                due = round(due, 3)
                if due >= tally.since_ms:
                    tally.offered += 1
                    tally.late.append(tally.now_ms() - due)
                schedule[at][1](due)
                at += 1
                if at == len(schedule):
                    at, period_ms = 0, period_ms + PERIOD_S * 1000
            await asyncio.sleep(TICK_S)

    async def query(self, began_ms: float) -> None:
        """Ask for a meeting's summary at fixed times, each on a free connection."""
        tally, rate = self.tally, self.load.queries_per_second
        asking: set[asyncio.Task[None]] = set()
        free: asyncio.Queue[HttpConnection] = asyncio.Queue()
        for http in self.http:
            free.put_nowait(http)

        async def ask(due_ms: float) -> None:
            http = await free.get()
            meeting = self.random.choice(self.recorders).meeting.decode()
            answer = await http.post("/api/query", {"path": "meetings:summary", "args": {"meeting": meeting}, "format": "json"})
            free.put_nowait(http)
            if answer["status"] != "success" or answer["value"]["present"] != WATCHERS:
                raise RuntimeError(str(answer))
            if due_ms >= tally.since_ms:
                tally.queried.append(tally.now_ms() - due_ms)

        due_ms = began_ms
        while due_ms < tally.until_ms:
            await asyncio.sleep(max(0.0, due_ms - tally.now_ms()) / 1000)
            asking.add(asyncio.ensure_future(ask(due_ms)))
            due_ms += 1000 / rate
        await asyncio.gather(*asking)

    async def settled(self) -> bool:
        """Wait until all that was sent was answered and shown, but not without an end: whether all was answered."""
        tally, members = self.tally, [*self.recorders, *chain(*self.watchers)]
        ended = progressed = tally.now_ms()
        seen = -1
        while (now := tally.now_ms()) < ended + GRACE_S * 1000 and now < progressed + SILENCE_S * 1000:
            if tally.answers + len(tally.delivered) != seen:
                seen, progressed = tally.answers + len(tally.delivered), now
            if len(tally.delivered) >= tally.offered * WATCHERS and not any(member.waiting for member in members):
                break
            await asyncio.sleep(0.02)
        return not any(member.waiting for member in members)

    async def wrong(self) -> int:
        """How many of the watchers' results are not what a fresh query gives."""
        wrong, free = 0, self.http[0]
        for watchers in self.watchers:
            args = {"meeting": watchers[0].meeting.decode()}
            asked = [{"path": path, "args": args, "format": "convex_encoded_json"} for path in QUERIES]
            answers = (await free.post("/api/query_batch", {"queries": asked}))["results"]
            for query, answer in enumerate(answers):
                wrong += sum(watcher.result(query) != answer["value"] for watcher in watchers)
        return wrong


def percentile(latencies: array[float], percent: int) -> float | None:
    """None when there are none."""
    ordered = sorted(latencies)
    return ordered[len(ordered) * percent // 100] if ordered else None


async def _measure(load: Meetings) -> Figures:
    return await _Load(load).measure()


def run(load: Meetings) -> Figures:
    """Measure from a process of its own.

    Raises:
        RuntimeError: it failed; it has said why.
    """
    return in_a_process(_measure, load, sockets=load.meetings * (WATCHERS + 1))
