"""What is read when Prometheus asks: the state of the engines, and the sensors of the device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from targets.probe import Probe, is_counter


@dataclass(frozen=True)
class Watched:
    """Where to ask for the state of one task's engine."""

    task: str
    depth: Callable[[], int]
    ready: Callable[[], bool]
    restarts: Callable[[], int]
    pid: Callable[[], int | None]


class EngineCollector(Collector):
    """Queue depth, state, restarts and memory of each engine."""

    def __init__(self) -> None:
        self.watched: list[Watched] = []

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        depth = GaugeMetricFamily("nlp_queue_depth", "Requests that wait for an engine.", labels=("task",))
        ready = GaugeMetricFamily("nlp_engine_ready", "1 if the engine can answer.", labels=("task",))
        restarts = CounterMetricFamily("nlp_engine_restarts", "Restarts after the engine died.", labels=("task",))
        memory = GaugeMetricFamily(
            "nlp_engine_resident_memory_bytes",
            "Resident memory of the engine's process, what it shares with its fork server included.",
            labels=("task",),
        )
        for engine in self.watched:
            task = (engine.task,)
            depth.add_metric(task, engine.depth())
            ready.add_metric(task, float(engine.ready()))
            restarts.add_metric(task, engine.restarts())
            if (resident := resident_bytes(engine.pid())) is not None:
                memory.add_metric(task, resident)
        yield from (depth, ready, restarts, memory)


class DeviceCollector(Collector):
    """The channels of a probe: `power_w.VDD_IN` becomes `nlp_device_power_w{part="VDD_IN"}`.

    A channel that has no value now is absent, as in the probe.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._alone = threading.Lock()

    def describe(self) -> list[Metric]:
        """Nothing beforehand: the sensors need not be read to be registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The sensors now."""
        with self._alone:
            reading = self._probe.read()
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for channel, value in sorted(reading.items()):
            name, _, part = channel.partition(".")
            family = families.get(name)
            if family is None:
                kind = CounterMetricFamily if is_counter(channel) else GaugeMetricFamily
                family = families[name] = kind(f"nlp_device_{name}", f"The device's sensor {name}.", labels=("part",))
            family.add_metric((part,), value)
        yield from families.values()


def resident_bytes(pid: int | None) -> int | None:
    """Resident memory of a process; None when there is none."""
    if pid is None:
        return None
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # it has ended, or is another user's
        return None
