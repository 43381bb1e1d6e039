"""What the server measures, for Prometheus. Each app has a registry of its own.

Counters and histograms are fed as requests pass; what can be asked for at any time (queue depth, engine state, memory)
is read when Prometheus asks, and costs a request nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from targets.probe import Probe
from targets.server.gauges import DeviceCollector, EngineCollector, Watched

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper bounds of the latency histogram: the limits that verdicts speak of (50, 100, 200 ms) are among them."""
SIZES = (1, 2, 4, 8, 16, 32, 64)
PHASES = ("queue", "tokenize", "run", "first_token", "total")
"""`first_token`: of a stream, from when it was asked for to its first piece of text; `queue` is part of it."""
KINDS = ("read", "written")
RESULTS = ("hit", "miss", "error", "joined")


class TaskMetrics:
    """The metrics of one task; a `BatchObserver`."""

    def __init__(self, task: str, metrics: Metrics) -> None:
        self.task = task
        self._requests = metrics.requests
        self._statuses: dict[int, Counter] = {}
        self._phases = {phase: metrics.seconds.labels(task, phase) for phase in PHASES}
        self._sizes = metrics.batch_size.labels(task)
        self._tokens = [metrics.tokens.labels(task, kind) for kind in KINDS]

    def answered(self, status: int, total_s: float) -> None:
        """A request was answered with this HTTP status, so long after it arrived."""
        counter = self._statuses.get(status)
        if counter is None:
            counter = self._statuses[status] = self._requests.labels(self.task, str(status))
        counter.inc()
        self._phases["total"].observe(total_s)

    def ran(self, queued_s: Sequence[float], run_s: float) -> None:
        """A batch was answered: how long each of its requests had waited, and how long the engine took."""
        self._sizes.observe(len(queued_s))
        run, queue = self._phases["run"], self._phases["queue"]
        for waited in queued_s:
            queue.observe(waited)
            run.observe(run_s)

    def tokenized(self, seconds: float) -> None:
        """A request's texts were made into tokens in so long."""
        self._phases["tokenize"].observe(seconds)

    def streamed(self, first_s: float, run_s: float, whole_s: float) -> None:
        """A stream was answered: when its first piece came, how long the engine took, and how long all of it took."""
        for phase, seconds in (("first_token", first_s), ("run", run_s), ("queue", max(whole_s - run_s, 0.0))):
            self._phases[phase].observe(seconds)

    def tokens(self, *counts: int) -> None:
        """An engine read so many tokens for an answer, and wrote so many."""
        for counter, count in zip(self._tokens, counts, strict=True):
            counter.inc(count)


class Metrics:
    """Everything at `/metrics`."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        histogram = partial(Histogram, registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        self.requests = counter("nlp_requests", "Requests by task and HTTP status.", ("task", "status"))
        self.seconds = histogram(
            "nlp_request_seconds", "Seconds of requests by phase.", ("task", "phase"), buckets=SECONDS
        )
        self.batch_size = histogram("nlp_batch_size", "Requests in a batch.", ("task",), buckets=SIZES)
        self.tokens = counter("nlp_tokens", "Tokens that engines read and wrote.", ("task", "kind"))
        cache = counter("nlp_cache_requests", "Requests to the cache of answers.", ("result",))
        self.cache = {result: cache.labels(result) for result in RESULTS}
        self._engines = EngineCollector()
        self.registry.register(self._engines)
        ProcessCollector(registry=self.registry)
        self._tasks: dict[str, TaskMetrics] = {}

    def task(self, name: str) -> TaskMetrics:
        """The metrics of a task."""
        if name not in self._tasks:
            self._tasks[name] = TaskMetrics(name, self)
        return self._tasks[name]

    def watch(self, engine: Watched) -> None:
        """Read an engine's state whenever Prometheus asks."""
        self._engines.watched.append(engine)

    def device(self, probe: Probe) -> None:
        """Read the device's sensors too, whenever Prometheus asks."""
        self.registry.register(DeviceCollector(probe))

    def render(self) -> bytes:
        """The text that Prometheus reads. Safe in a thread; with device telemetry it reads sensors."""
        return generate_latest(self.registry)
