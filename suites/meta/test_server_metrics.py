from __future__ import annotations

import os
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from targets.probe import Reading
from targets.server.gauges import Watched
from targets.server.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of the page, as Prometheus reads it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, tuple(sorted(labels.items()))))


def test_requests_are_counted_by_task_and_status() -> None:
    """One count a request, under its own status; their total time goes into a histogram."""
    metrics = Metrics()
    task = metrics.task("qa")
    for status, seconds in ((200, 0.004), (200, 0.06), (429, 0.001)):
        task.answered(status, seconds)
    assert value(metrics, "nlp_requests_total", task="qa", status="200") == 2
    assert value(metrics, "nlp_requests_total", task="qa", status="429") == 1
    assert value(metrics, "nlp_request_seconds_count", task="qa", phase="total") == 3
    assert value(metrics, "nlp_request_seconds_sum", task="qa", phase="total") == pytest.approx(0.065)
    assert value(metrics, "nlp_request_seconds_bucket", task="qa", phase="total", le="0.05") == 2


def test_batches_tell_sizes_and_phases() -> None:
    """A batch counts once as a size, and for each of its requests in the phases queue and run."""
    metrics = Metrics()
    task = metrics.task("ner")
    task.ran([0.001, 0.002, 0.003], 0.01)
    task.tokenized(0.0004)
    task.tokens(30, 7)
    assert value(metrics, "nlp_batch_size_bucket", task="ner", le="2.0") == 0
    assert value(metrics, "nlp_batch_size_bucket", task="ner", le="4.0") == 1
    for phase, count, total in (("queue", 3, 0.006), ("run", 3, 0.03), ("tokenize", 1, 0.0004)):
        assert value(metrics, "nlp_request_seconds_count", task="ner", phase=phase) == count
        assert value(metrics, "nlp_request_seconds_sum", task="ner", phase=phase) == pytest.approx(total)
    assert value(metrics, "nlp_tokens_total", task="ner", kind="read") == 30
    assert value(metrics, "nlp_tokens_total", task="ner", kind="written") == 7


def test_a_stream_tells_its_first_token() -> None:
    """A stream counts in the phases run and first_token, and as queued for what the engine did not take."""
    metrics = Metrics()
    metrics.task("chat").streamed(0.2, 1.5, 1.75)
    for phase, seconds in (("first_token", 0.2), ("run", 1.5), ("queue", 0.25)):
        assert value(metrics, "nlp_request_seconds_sum", task="chat", phase=phase) == pytest.approx(seconds)


def test_the_cache_is_counted_by_result() -> None:
    """Each result is there from the start, so that a rate can be told from the first request on."""
    metrics = Metrics()
    metrics.cache["hit"].inc()
    found = {r: value(metrics, "nlp_cache_requests_total", result=r) for r in ("hit", "miss", "error", "joined")}
    assert found == {"hit": 1, "miss": 0, "error": 0, "joined": 0}


def test_engines_are_looked_at_when_asked() -> None:
    """Depth, state, restarts and memory are those of the moment; a process that has ended has no memory."""
    metrics = Metrics()
    state = {"depth": 3, "ready": 1, "restarts": 0}
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    metrics.watch(
        Watched(
            "qa",
            depth=lambda: state["depth"],
            ready=lambda: bool(state["ready"]),
            restarts=lambda: state["restarts"],
            pid=lambda: child.pid,
        )
    )
    assert value(metrics, "nlp_queue_depth", task="qa") == 3
    assert value(metrics, "nlp_engine_ready", task="qa") == 1
    assert (value(metrics, "nlp_engine_resident_memory_bytes", task="qa") or 0) > 0
    child.communicate(b"\n")
    state.update(depth=0, ready=0, restarts=2)
    assert value(metrics, "nlp_queue_depth", task="qa") == 0
    assert value(metrics, "nlp_engine_ready", task="qa") == 0
    assert value(metrics, "nlp_engine_restarts_total", task="qa") == 2
    assert value(metrics, "nlp_engine_resident_memory_bytes", task="qa") is None


class Sensors:
    """A probe that reads what the test says."""

    channels = ("power_w", "power_w.VDD_IN", "rapl_j", "oc_events.cpu", "gpu_load")
    missing: dict[str, str] = {}  # noqa: RUF012 - as a Probe has it

    def __init__(self) -> None:
        self.now: Reading = {"power_w": 7.5, "power_w.VDD_IN": 9.0, "rapl_j": 12.0, "oc_events.cpu": 1.0}

    def read(self) -> Reading:
        return self.now

    def close(self) -> None:
        """Nothing is open."""


def test_the_device_is_read_when_monitoring_is_on() -> None:
    """Channels become gauges or counters by their kind, parts become labels; what cannot be read now is absent."""
    metrics, sensors = Metrics(), Sensors()
    assert not [name for name, _ in samples(metrics) if name.startswith("nlp_device")]
    metrics.device(sensors)
    assert value(metrics, "nlp_device_power_w", part="") == 7.5
    assert value(metrics, "nlp_device_power_w", part="VDD_IN") == 9.0
    assert value(metrics, "nlp_device_rapl_j_total", part="") == 12.0
    assert value(metrics, "nlp_device_oc_events_total", part="cpu") == 1.0
    assert value(metrics, "nlp_device_gpu_load", part="") is None
    sensors.now = {"gpu_load": 0.5}
    assert value(metrics, "nlp_device_gpu_load", part="") == 0.5
    assert value(metrics, "nlp_device_power_w", part="") is None


def test_two_servers_in_one_process_do_not_share_metrics() -> None:
    """Each has a registry of its own."""
    one, other = Metrics(), Metrics()
    one.task("qa").answered(200, 0.1)
    assert value(other, "nlp_requests_total", task="qa", status="200") is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the library reads a process's memory on Linux only")
def test_the_servers_own_process_is_told() -> None:
    """Memory and open descriptors of the process that serves, which a soak test looks at."""
    metrics = Metrics()
    before = value(metrics, "process_open_fds") or 0
    with open(os.devnull), open(os.devnull):  # noqa: PTH123
        assert value(metrics, "process_open_fds") == before + 2
    assert (value(metrics, "process_resident_memory_bytes") or 0) > 1e6
