"""``/metrics``: what Prometheus asks a server.

All that is told are plain numbers on the objects that measure. A scrape copies them on the event loop, which takes little time, and
writes them out in a thread, so that the server goes on meanwhile. Of several node processes on one port the one that is asked asks
the others (``reactor.server.siblings``): each series then has the label ``worker``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import orjson
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from reactor.engine.committer import GROUP_SIZES
from reactor.engine.store import DURATION_S as STORE_DURATION_S
from reactor.errors import AuthenticationError, StoreError
from reactor.functions.run_counts import DURATION_S
from reactor.functions.runner import Runner
from reactor.histogram import Histogram
from reactor.server.admin import Authenticator
from reactor.server.http_api import Call, Reply
from reactor.server.siblings import Siblings
from reactor.server.websocket import Connections
from reactor.services.scheduler import LATENESS_S, ScheduledRuns

__all__ = ["FAMILIES", "PATH", "Access", "Family", "Metrics"]

PATH = "/metrics"

#: Who may read them: everybody; who shows a key; nobody.
Access: TypeAlias = Literal["open", "key", "off"]

#: Scrapes run one after another; above so many that wait, they are refused.
WAITING = 8

#: How long the database may take to say what is due.
DUE_S = 1.0

#: A series' labels and its value: a number, or the counts and the sum of a histogram.
Sample: TypeAlias = tuple[list[str], Any]

#: What one process has to tell: the samples of each family by its name. Goes between processes as JSON.
Reading: TypeAlias = Mapping[str, list[Sample]]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: all series of one name.

    Attributes:
        labels: their names.
        bounds: of a histogram's buckets.
    """

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


#: Every metric there is, by name, in the order in which they are told.
FAMILIES: Mapping[str, Family] = {
    "reactor_function_duration_seconds": Family(
        "histogram", "How long runs of a function took, all attempts of a mutation together.", ("function", "kind"), DURATION_S
    ),
    "reactor_function_errors_total": Family(
        "counter", "Runs of a function that failed, by the error's code.", ("function", "kind", "code")
    ),
    "reactor_function_retries_total": Family("counter", "Attempts of a mutation beyond its first.", ("function", "kind")),
    "reactor_function_cached_total": Family(
        "counter", "Calls answered with the result of an earlier run, so that nothing ran.", ("function", "kind")
    ),
    "reactor_sessions": Family("gauge", "Clients that are connected over a WebSocket."),
    "reactor_subscriptions": Family("gauge", "Queries that clients watch, counted for each client."),
    "reactor_live_queries": Family("gauge", "Queries that clients watch, those that share a result counted once."),
    "reactor_reruns_total": Family("counter", "Runs that were made again, of queries and mutations, by cause.", ("kind", "cause")),
    "reactor_conflicts_total": Family(
        "counter", "Runs of mutations that came to nothing because of another commit, by the table it wrote.", ("table",)
    ),
    "reactor_commit_group_size": Family("histogram", "Mutations that were made durable at a time.", (), tuple(map(float, GROUP_SIZES))),
    "reactor_commits_behind_seconds": Family("gauge", "For how long this node may have missed what other nodes committed."),
    "reactor_scheduler_lateness_seconds": Family("histogram", "How long after their time scheduled functions began.", (), LATENESS_S),
    "reactor_scheduler_lag_seconds": Family("gauge", "How long the oldest scheduled function that has not ended has been due."),
    "reactor_store_duration_seconds": Family("histogram", "How long the database's steps took.", ("step",), STORE_DURATION_S),
    "reactor_worker_up": Family("gauge", "Whether a node process of this server told its numbers."),
    "process_cpu_seconds_total": Family("counter", "Time of the processor that the process used."),
    "process_resident_memory_bytes": Family("gauge", "Memory that the process takes."),
    "process_virtual_memory_bytes": Family("gauge", "Addresses that the process has."),
    "process_open_fds": Family("gauge", "Files and sockets that the process has open."),
    "process_max_fds": Family("gauge", "How many it may have open."),
    "process_start_time_seconds": Family("gauge", "When the process began, seconds since the epoch."),
}


class Metrics:
    """Answers ``/metrics``.

    Args:
        scheduled: what runs scheduled functions beside the server.
        access: None: everybody in development, whoever shows a key in production.
        key: a secret that may read metrics and nothing else, beside the admin keys.
    """

    def __init__(
        self,
        runner: Runner,
        connections: Connections,
        authenticator: Authenticator,
        *,
        scheduled: ScheduledRuns | None = None,
        access: Access | None = None,
        key: str | None = None,
    ) -> None:
        self._runner = runner
        self._connections = connections
        self._authenticator = authenticator
        self._scheduled = scheduled
        self._access: Access = access or ("key" if runner.production else "open")
        self._key = key
        self._process = ProcessCollector(registry=None)
        self._siblings: Siblings | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    def serves(self, path: str) -> bool:
        return path == PATH and self._access != "off"

    @contextlib.asynccontextmanager
    async def among(self, siblings: Siblings | None) -> AsyncIterator[None]:
        """Inside, the other node processes of this port are asked too, and answered."""
        if siblings is None:
            yield
            return
        async with siblings.answering(self._told):
            self._siblings = siblings
            try:
                yield
            finally:
                self._siblings = None

    async def reply(self, call: Call) -> Reply:
        """The answer to a request."""
        if call.scope["method"] not in ("GET", "HEAD"):
            return _refusal(405, "MethodNotAllowed", f"{PATH} takes GET.")
        if self._access == "key":
            try:
                self._check(call.headers.get(b"authorization"))
            except AuthenticationError as error:
                return _refusal(403 if error.code == "BadDeployKey" else 401, error.code, error.message)
        if self._waiting >= WAITING:
            return _refusal(503, "TooManyScrapes", f"{WAITING} others wait for {PATH}. Ask less often.")
        self._waiting += 1
        try:
            async with self._turn:
                body, content_type = await asyncio.to_thread(_written, await self._readings(), call.headers.get(b"accept", b""))
        finally:
            self._waiting -= 1
        return Reply(body, content_type=content_type.encode())

    def _check(self, authorization: bytes | None) -> None:
        """Raise AuthenticationError unless it may read metrics."""
        scheme, _, shown = (authorization or b"").decode("latin-1").strip().partition(" ")
        shown = shown.strip()
        if not shown or scheme.lower() not in ("bearer", "convex"):
            raise AuthenticationError(f"{PATH} takes a key: 'Authorization: Bearer <key>', the one of REACTOR_METRICS_KEY or an admin key.")
        if self._key is None or not hmac.compare_digest(shown.encode(), self._key.encode()):
            self._authenticator.admin(shown)

    # --- reading

    async def _readings(self) -> dict[str | None, Reading]:
        """What each process tells, by the number of its worker; of one alone, by None."""
        siblings = self._siblings
        if siblings is None:
            return {None: await self.read()}
        own, others = await asyncio.gather(self.read(), siblings.ask())
        readings: dict[str | None, Reading] = {str(siblings.number): own, **others}
        return {
            worker: {**reading, "reactor_worker_up": [([], 1.0 if reading else 0.0)]}
            for worker, reading in sorted(readings.items(), key=lambda item: int(item[0] or 0))
        }

    async def _told(self) -> bytes:
        return orjson.dumps(await self.read())

    async def read(self) -> Reading:
        """What this process has to tell, now."""
        engine = self._runner.engine
        reading: dict[str, list[Sample]] = {name: [] for name in FAMILIES}
        for path, counts in self._runner.counts:
            labels = [path, counts.kind]
            reading["reactor_function_duration_seconds"].append((labels, _copied(counts.durations)))
            for code, number in counts.errors.items():
                reading["reactor_function_errors_total"].append(([*labels, code], number))
            if counts.kind == "mutation":
                reading["reactor_function_retries_total"].append((labels, counts.retries))
            if counts.cached:
                reading["reactor_function_cached_total"].append((labels, counts.cached))
        reading["reactor_sessions"].append(([], len(self._connections)))
        reading["reactor_subscriptions"].append(([], self._connections.subscriptions))
        reading["reactor_live_queries"].append(([], len(engine.live)))
        for kind, reruns in (("query", engine.live.reruns), ("mutation", engine.reruns)):
            reading["reactor_reruns_total"] += [([kind, cause], number) for cause, number in reruns.items()]
        reading["reactor_conflicts_total"] += [([table], number) for table, number in engine.conflicts.items()]
        reading["reactor_commit_group_size"].append(([], _copied(engine.group_sizes)))
        reading["reactor_commits_behind_seconds"].append(([], engine.behind_s))
        reading["reactor_store_duration_seconds"] += [([step], _copied(durations)) for step, durations in engine.store_durations.items()]
        for metric in self._process.collect():
            for sample in metric.samples:
                if sample.name in FAMILIES:
                    reading[sample.name].append(([], sample.value))
        if self._scheduled is not None:
            reading["reactor_scheduler_lateness_seconds"].append(([], _copied(self._scheduled.lateness)))
            # A database that does not answer is not waited for: what it would have said is left out.
            with contextlib.suppress(TimeoutError, StoreError):
                async with asyncio.timeout(DUE_S):
                    reading["reactor_scheduler_lag_seconds"].append(([], await self._scheduled.overdue_s()))
        return reading


def _copied(histogram: Histogram) -> tuple[list[int], float]:
    return [*histogram.counts], histogram.sum


# --- writing


class _Readings(Collector):
    """What was read, as Prometheus's library wants it."""

    def __init__(self, readings: Mapping[str | None, Reading]) -> None:
        self._readings = readings

    def collect(self) -> list[Metric]:
        metrics = [self._metric(name, family) for name, family in FAMILIES.items()]
        return [metric for metric in metrics if metric.samples]

    def _metric(self, name: str, family: Family) -> Metric:
        names = family.labels if None in self._readings else (*family.labels, "worker")
        made: Metric
        if family.kind == "histogram":
            made = HistogramMetricFamily(name, family.help, labels=names)
        else:
            made = (CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily)(name, family.help, labels=names)
        for worker, reading in self._readings.items():
            for labels, value in reading.get(name, ()):
                values = labels if worker is None else [*labels, worker]
                if isinstance(made, HistogramMetricFamily):
                    made.add_metric(values, _cumulative(family.bounds, value[0]), value[1])
                elif isinstance(made, CounterMetricFamily | GaugeMetricFamily):
                    made.add_metric(values, value)
        return made


def _cumulative(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


def _written(readings: Mapping[str | None, Reading], accept: bytes) -> tuple[bytes, str]:
    """The text of a scrape, in the format that the scraper takes, and the type of its content. In a thread."""
    registry = CollectorRegistry()
    registry.register(_Readings(readings))
    encode, content_type = choose_encoder(accept.decode("latin-1"))
    return encode(registry), content_type


def _refusal(status: int, code: str, message: str) -> Reply:
    headers = ((b"www-authenticate", b"Bearer"),) if status == 401 else ()
    return Reply(orjson.dumps({"code": code, "message": message}), status, headers=headers)
