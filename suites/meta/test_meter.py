from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from fixtures.devices import planned
from fixtures.spans import Span
from fixtures.telemetry import own_cpu
from fixtures.telemetry import timeline as charts_timeline
from fixtures.telemetry.energy import energy
from fixtures.telemetry.energy_metrics import Work
from fixtures.telemetry.findings import Context
from fixtures.telemetry.meter import Meter, asks_gpu, context_of
from fixtures.telemetry.options import Price
from fixtures.telemetry.own_cpu import Key, Used, spent
from fixtures.telemetry.sampler import Telemetry
from fixtures.telemetry.timeline import MOST_POINTS, PANELS, rates, thinned, timeline
from fixtures.telemetry.window import window
from suites.meta.sensors import MS, SECOND, Clock, ScriptedProbe, rows, trace
from targets.api import Evidence

PNG = b"\x89PNG\r\n\x1a\n"
PYTEST: Key = (1, 0.0)
HOST: Key = (2, 5.0)
SERVER: Key = (3, 6.0)


class FakeTarget:
    """A target whose host has told these spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []


class Bench:
    """A meter over a board that draws 10 W, with time that passes by hand."""

    def __init__(self, own: tuple[float, float] = (0.0, 0.0), busy_cores: float = 0.5) -> None:
        self.clock = Clock(SECOND)
        self.target = FakeTarget()
        used = iter(own)
        self.telemetry = Telemetry(
            ScriptedProbe(lambda n: {"power_w": 10.0 + n % 2 / 100, "cpu_busy_s": self.clock.now / 1e9 * busy_cores}),
            20,
            clock=self.clock,
        )
        self.meter = Meter(
            self.telemetry,
            self.target,
            Context(2, "jetson"),
            Price(0.3, "EUR"),
            tree=lambda: {PYTEST: Used(next(used), 0)},
            clock=self.clock,
        )

    def work(self, phase: str, seconds: float) -> None:
        """The target is busy, and sensors are read meanwhile."""
        start = self.clock.now
        for _ in range(round(seconds * 20)):
            self.clock.sleep(0.05)
            self.telemetry.sample()
        self.target.spans.append(Span(phase, start, self.clock.now))


def test_a_block_is_seen_with_its_own_spans() -> None:
    """A block has the telemetry and spans of its time, and none of what came before."""
    bench = Bench(own=(3.0, 4.5))
    bench.work("load", 1.0)
    with bench.meter.watch() as seen:
        bench.work("warm-up", 1.0)
        bench.work("measure", 2.0)
    bench.work("measure", 1.0)
    assert [span.phase for span in seen.spans] == ["warm-up", "measure"]
    assert (seen.window.start_ns, seen.window.end_ns) == (2 * SECOND, 5 * SECOND)
    assert seen.part.seconds == 2.0
    assert seen.readings()["power_w"]["most"] == 10.01
    assert energy(seen.window, seen.context.timed).joules == pytest.approx(20.01, rel=1e-4)
    assert seen.context.own_cpu_s == 1.5
    assert seen.voids == []
    found = {each.metric: each for each in seen.energy(Work(4))}
    assert found["energy_j_per_request"].estimate("").value == pytest.approx(5.0, rel=1e-3)
    assert found["cost_per_1000_requests"].unit == "EUR"


def test_a_block_with_foreign_load_is_void() -> None:
    """What the machine did beyond our own tree is held against the block."""
    bench = Bench(own=(3.0, 3.1), busy_cores=1.0)
    with bench.meter.watch() as seen:
        bench.work("measure", 2.0)
    (void,) = seen.voids
    assert str(void).startswith("foreign load: other processes took 0.95 cores over 2 s")


def test_a_block_that_fails_is_seen_too() -> None:
    """A target that dies leaves what was seen until then."""
    bench = Bench()
    with suppress(RuntimeError), bench.meter.watch() as seen:
        bench.work("measure", 1.0)
        raise RuntimeError
    assert (seen.window.seconds, len(seen.spans)) == (1.0, 1)


def test_the_gpu_is_asked_after_in_the_end() -> None:
    """Whether the case runs on the GPU is asked when the block is over, and not of a target that failed in it."""
    bench = Bench(own=(0.0, 1.0))
    asked: list[int] = []

    def on_gpu() -> bool:
        asked.append(bench.clock.now)
        return True

    meter = Meter(
        bench.telemetry,
        bench.target,
        Context(2, "jetson"),
        tree=lambda: {PYTEST: Used(0.0, 0)},
        clock=bench.clock,
        on_gpu=on_gpu,
    )
    with meter.watch() as seen:
        bench.work("measure", 1.0)
        assert asked == []
    assert (seen.context.gpu_asked, asked) == (True, [2 * SECOND])
    with suppress(RuntimeError), meter.watch() as seen:
        raise RuntimeError
    assert (seen.context.gpu_asked, len(asked)) == (False, 1)


def test_the_picture_is_of_the_whole_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn begins with the case, not with the last block that was watched, and has all its phases."""
    bench = Bench(own=(0.0, 0.0))
    drawn: list[tuple[Any, ...]] = []

    def draw(*found: Any) -> bytes:
        drawn.append(found)
        return b"png"

    monkeypatch.setattr(charts_timeline, "timeline", draw)
    bench.work("load", 1.0)
    with bench.meter.watch():
        bench.work("measure", 1.0)
    assert bench.meter.timeline("a case") == b"png"
    ((seen, spans, title),) = drawn
    assert (seen.seconds, title) == (pytest.approx(3.0), "a case")
    assert [span.phase for span in spans] == ["load", "measure"]


def test_an_open_block_has_no_window() -> None:
    """What is asked too early is a mistake of ours."""
    bench = Bench()
    with bench.meter.watch() as seen, pytest.raises(ValueError, match="has not ended"):
        _ = seen.window


def test_without_telemetry_spans_remain() -> None:
    """Off: spans and time, no readings, no picture, energy absent with its reason, and no void made up."""
    clock, target = Clock(), FakeTarget()
    meter = Meter(None, target, Context(2), clock=clock)
    with meter.watch() as seen:
        clock.sleep(1.0)
        target.spans.append(Span("measure", 0, SECOND))
    assert seen.spans == (Span("measure", 0, SECOND),)
    assert (seen.voids, seen.readings(), meter.timeline("off")) == ([], {}, None)
    assert [str(each) for each in seen.untold] == ["telemetry: not checked, it is off (--telemetry-hz 0)"]
    assert "telemetry is off" in (seen.energy(Work(1))[0].estimate("").reason or "")


def test_a_device_gives_the_context() -> None:
    """Cores, kind and mode are the device's; what the case knows goes beside them."""
    board = replace(planned("jetson-orin-nano"), power_mode="15W")
    found = context_of(board, expected_mode="25W")
    assert (found.kind, found.cores, found.power_mode, found.expected_mode) == ("jetson", board.cores, "15W", "25W")


@pytest.mark.parametrize(
    ("evidence", "asked"),
    [
        (Evidence({"device": "cuda"}, {"device": "cpu"}), True),
        (Evidence({"provider": "TensorrtExecutionProvider"}, {}), True),
        (Evidence({"provider": "CPUExecutionProvider"}, {}), False),
        (Evidence({"device": "gpu"}, {"device": "cpu"}), True),
        (Evidence({"threads": "4"}, {}, {"gpu layers": {"asked": 25, "offloaded": 25}}), True),
        (Evidence({"threads": "4"}, {}, {"gpu layers": {"asked": 0, "offloaded": 0}}), False),
    ],
    ids=[
        "torch on CUDA",
        "TensorRT",
        "ONNX Runtime on the CPU",
        "Ollama",
        "llama.cpp with layers on the GPU",
        "without",
    ],
)
def test_evidence_tells_whether_the_gpu_was_asked_for(evidence: Evidence, asked: bool) -> None:
    """What was asked of the engine says whether an idle GPU is wrong, whatever it got."""
    assert asks_gpu(evidence) == asked


@pytest.mark.parametrize(
    ("before", "after", "seconds"),
    [
        ({PYTEST: Used(1.0, 0), HOST: Used(2.0, 1)}, {PYTEST: Used(1.5, 0), HOST: Used(4.0, 1)}, 2.5),
        ({PYTEST: Used(1.0, 0)}, {PYTEST: Used(1.0, 0), HOST: Used(4.0, 1)}, 4.0),
        ({PYTEST: Used(1.0, 0), HOST: Used(2.0, 1)}, {PYTEST: Used(4.0, 0)}, 1.0),
        ({PYTEST: Used(1.0, 0), HOST: Used(2.0, 1), SERVER: Used(5.0, 2)}, {PYTEST: Used(9.0, 0)}, None),
        ({PYTEST: Used(1.0, 0), HOST: Used(2.0, 1)}, {PYTEST: Used(1.0, 0)}, None),
        ({PYTEST: Used(1.0, 0), (2, 1.0): Used(2.0, 1)}, {PYTEST: Used(4.0, 0), HOST: Used(0.5, 1)}, 1.5),
    ],
    ids=["both live", "one is born", "one is waited for", "one is orphaned", "one is lost", "an id comes again"],
)
def test_our_own_time_is_that_of_the_tree(
    before: dict[Key, Used], after: dict[Key, Used], seconds: float | None
) -> None:
    """CPU time of the tree is told over births and deaths, and is unknown where a count went with its process."""
    assert spent(before, after) == seconds


def test_the_tree_has_children_and_those_waited_for() -> None:
    """On this machine: work of a child counts while it runs, and after it was waited for."""
    before = own_cpu.tree()
    command = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during = own_cpu.tree()
        child.communicate(b"\n")
    after = own_cpu.tree()
    assert any(pid == child.pid and used.parent == os.getpid() for (pid, _), used in during.items())
    assert (spent(before, during) or 0) >= 0.15
    assert (spent(before, after) or 0) >= 0.15


@pytest.mark.parametrize("name", ["clean", "throttling", "missing-sensor"])
def test_a_timeline_is_drawn(name: str) -> None:
    """A trace is drawn, with a sensor that was lost too."""
    found = trace(name)
    assert timeline(found.window, found.context.spans, name).startswith(PNG)


def test_a_panel_shows_what_there_is() -> None:
    """Panels name the channels that were read, the hottest zones first, and none that were not."""
    seen = window(rows([{"power_w": 5.0, "temperature_c.cpu": 40.0, "temperature_c.gpu": 60.0}] * 3), 0, 100 * MS, 20)
    shown = {panel.label: panel.channels(seen) for panel in PANELS if panel.channels(seen)}
    assert shown == {"power, W": ["power_w"], "temperature, °C": ["temperature_c.gpu", "temperature_c.cpu"]}
    with pytest.raises(ValueError, match="at least one channel"):
        timeline(window(rows([{"fan_pwm": 1.0}] * 3), 0, 100 * MS, 20), [], "nothing to draw")


def test_thinning_keeps_the_peaks() -> None:
    """A long series is drawn with fewer points, in order, and its peak and its trough are among them."""
    series = [(index, float(index % 97)) for index in range(20_000)]
    series[7777], series[12345] = (7777, 1e6), (12345, -1e6)
    found = thinned(series)
    assert len(found) <= MOST_POINTS
    assert found == sorted(found)
    assert {(7777, 1e6), (12345, -1e6)} <= set(found)
    assert thinned(series[:100]) == series[:100]


def test_a_counter_is_drawn_as_its_rate() -> None:
    """Busy seconds are drawn as cores, over steps that are long enough for ticks of 10 ms."""
    series = [(index * 50 * MS, 0.075 * index) for index in range(11)]
    found = rates(series)
    assert [at // MS for at, _ in found] == [200, 400]
    assert [value for _, value in found] == pytest.approx([1.5, 1.5])
    assert rates([]) == rates(series[:1]) == []
