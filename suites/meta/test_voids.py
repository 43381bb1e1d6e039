from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.spans import Span
from fixtures.telemetry.findings import Context, Untold
from fixtures.telemetry.voids import findings, voids
from fixtures.telemetry.window import Row, Window, window
from suites.meta.sensors import MS, SECOND, TRACES, rows, steady, trace
from suites.meta.traces.synthesise import FAULTS, lines

KINDS = {
    "clean": [],
    "throttling": ["throttling", "gpu clock"],
    "swapping": ["swap-in"],
    "over-current": ["over-current"],
    "missing-sensor": ["sensor missing"],
    "stuck-sensor": ["stuck sensor"],
    "cpu-fallback": ["gpu idle"],
    "foreign-load": ["foreign load"],
}
DECODE = (Span("decode", 0, 2 * SECOND),)


def whole(found: list[Row]) -> Window:
    return window(found, found[0][0], found[-1][0], 20)


def kinds(found: Window, context: Context) -> list[str]:
    return [void.kind for void in voids(found, context)]


def untold(found: Window, context: Context) -> dict[str, str]:
    return {each.kind: each.reason for each in findings(found, context) if isinstance(each, Untold)}


@pytest.mark.parametrize("name", KINDS)
def test_a_trace_is_void_for_its_reason(name: str) -> None:
    """Each trace with one thing wrong is void for just that; the clean one stands."""
    found = trace(name)
    assert kinds(found.window, found.context) == KINDS[name]


@pytest.mark.parametrize("name", KINDS)
def test_a_trace_says_that_it_was_made(name: str) -> None:
    """No trace passes for a recording, and each is what its script makes."""
    text = (TRACES / f"{name}.jsonl").read_text()
    assert trace(name).told.startswith("synthesised")
    assert text.splitlines() == lines(FAULTS[name])


def test_all_traces_are_replayed() -> None:
    """No trace lies about unused."""
    assert {path.stem for path in TRACES.glob("*.jsonl")} == set(KINDS) == set(FAULTS)


def test_a_void_tells_reading_bound_and_remedy() -> None:
    """What is printed says what was read, against which bound, and what to do."""
    found = {name: str(voids(trace(name).window, trace(name).context)[0]) for name in ("throttling", "swapping")}
    assert found["throttling"] == (
        "throttling: gpu was active in 28 of 40 samples, gpu at 100 °C; "
        "let it cool, and give it a fan or a lower power mode"
    )
    assert found["swapping"] == (
        "swap-in: 54.2 MB were read back from swap, and 1 MB is the most; "
        "free memory, or take a smaller model or context"
    )


def test_without_an_energy_limit_a_lost_power_sensor_voids_nothing() -> None:
    """A latency stands without a power sensor."""
    for name in ("missing-sensor", "stuck-sensor"):
        found = trace(name)
        assert kinds(found.window, replace(found.context, energy_limited=False)) == []


def test_a_sensor_that_was_never_there_is_told_with_its_reason() -> None:
    """A limit on energy without a sensor says why there is none."""
    there = whole(steady(2, gpu_load=0.9))
    found = replace(there, missing={"power_w": "hwmon0/in1_input: Permission denied; only root may read it"})
    (void,) = voids(found, Context(6, spans=DECODE, energy_limited=True))
    assert void.kind == "sensor missing"
    assert "only root may read it" in void.reading


def test_oc3_is_no_reason() -> None:
    """OC3 counts in normal work in the highest mode."""
    found = trace("clean").window
    assert (found.delta("oc_events.oc3") or 0) > 0
    assert kinds(found, trace("clean").context) == []


def test_what_happens_before_the_timed_part_voids_nothing() -> None:
    """Swapping and over-current while a model loads are not in the numbers."""
    found = trace("swapping")
    late = replace(found.context, spans=(Span("load", 0, 900 * MS), Span("decode", 600 * MS, 950 * MS)))
    assert kinds(found.window, late) == []


@pytest.mark.parametrize(
    ("cores", "foreign", "void"), [(2, 0.2, False), (2, 0.4, True), (16, 0.4, False), (16, 1, True)]
)
def test_foreign_load_has_a_bound_by_cores(cores: int, foreign: float, void: bool) -> None:
    """Others may take a quarter core, or 5 % of a machine of many cores."""
    found = whole(rows({"cpu_busy_s": 7.0 + (1.5 + foreign) * index / 20} for index in range(201)))
    assert kinds(found, Context(cores, own_cpu_s=15.0)) == (["foreign load"] if void else [])


def test_what_cannot_be_told_from_our_own_work_is_no_foreign_load() -> None:
    """Where the target is a server that was there before, its work voids nothing, and the reason is told."""
    found = whole(rows({"cpu_busy_s": 2.0 * index / 20} for index in range(201)))
    assert kinds(found, Context(2, own_cpu_s=0.0)) == ["foreign load"]
    assert kinds(found, Context(2, own_cpu_s=0.0, outside="the target is a server")) == []
    assert untold(found, Context(2, own_cpu_s=0.0, outside="the target is a server")) == {
        "foreign load": "the target is a server"
    }


def test_a_short_window_cannot_tell_foreign_load() -> None:
    """Ticks of 10 ms do not tell a quarter core in 0.2 s, and the check says how long it needs."""
    found = whole(rows({"cpu_busy_s": index * 0.1, "cpu_steal_s": index * 0.1} for index in range(5)))
    assert kinds(found, Context(2, own_cpu_s=0.0)) == []
    assert untold(found, Context(2, own_cpu_s=0.0)) == {
        "foreign load": "0.2 s are too short to tell 0.25 cores: 0.24 s are needed",
        "steal": "0.2 s are too short to tell 0.25 cores: 0.24 s are needed",
    }


def test_ticks_are_no_foreign_load() -> None:
    """In 0.3 s a difference within the resolution of the counters does not void; a core that is taken does."""
    quiet = whole(rows({"cpu_busy_s": 0.3 * index / 6} for index in range(7)))
    assert kinds(quiet, Context(2, own_cpu_s=0.18)) == []
    assert kinds(quiet, Context(2, own_cpu_s=0.0)) == ["foreign load"]


def test_unknown_cpu_time_is_told() -> None:
    """Where our own share is not known, foreign load is not guessed."""
    found = whole(rows({"cpu_busy_s": float(index)} for index in range(41)))
    assert "our own CPU time" in untold(found, Context(2))["foreign load"]
    assert "busy time is not known" in untold(whole(steady(2, power_w=3.0)), Context(2, own_cpu_s=1.0))["foreign load"]


def test_stolen_time_voids() -> None:
    """A hypervisor that takes half a core spoils the number."""
    found = whole(rows({"cpu_steal_s": 0.5 * index / 20} for index in range(41)))
    assert kinds(found, Context(2)) == ["steal"]


def test_a_gap_voids() -> None:
    """Sensors that were silent for a fifth of the time void the number, whatever they said before and after."""
    every = steady(2, power_w=5.0)
    gappy = [row for row in every if not 700 * MS < row[0] < 1200 * MS]
    assert kinds(whole(every), Context(2, spans=DECODE)) == []
    (void,) = voids(whole(gappy), Context(2, spans=DECODE))
    assert void.kind == "telemetry gap"
    assert "read over 80% of 2 s" in void.reading


def test_a_gpu_that_is_not_asked_for_may_rest() -> None:
    """An idle GPU matters to a case that runs on it, and only there."""
    found = whole(steady(2, gpu_load=0.0))
    assert kinds(found, Context(6, "jetson", spans=DECODE)) == []
    assert kinds(found, Context(6, "jetson", spans=DECODE, gpu_asked=True)) == ["gpu idle"]


def test_a_clock_counts_under_load_on_a_board() -> None:
    """A GPU at rest may be slow, a discrete one boosts as it can; a board under load reaches its mode's clock."""
    asked = Context(6, "jetson", spans=DECODE, gpu_asked=True)
    slow = whole(steady(2, gpu_load=0.9, gpu_mhz=550.0, gpu_max_mhz=624.75))
    assert kinds(slow, asked) == ["gpu clock"]
    assert kinds(slow, replace(asked, kind="cuda")) == []
    assert kinds(whole(steady(2, gpu_load=0.3, gpu_mhz=306.0, gpu_max_mhz=624.75)), asked) == []
    assert kinds(whole(steady(2, gpu_load=0.9, gpu_mhz=600.0, gpu_max_mhz=624.75)), asked) == []


def test_few_samples_of_the_gpu_tell_nothing() -> None:
    """A timed part of two samples says nothing of the GPU, and that is told."""
    short = Context(6, "jetson", spans=(Span("decode", 0, 60 * MS),), gpu_asked=True)
    said = untold(whole(steady(2, gpu_load=0.0, gpu_mhz=306.0, gpu_max_mhz=624.75)), short)
    assert said["gpu idle"] == "2 samples of its load, and 5 are needed"
    assert "5 are needed" in said["gpu clock"]


def test_a_wrong_mode_voids_without_telemetry() -> None:
    """A board in another mode than the limit is for voids with telemetry off too."""
    off = Window(0, SECOND, 0.0)
    context = Context(2, expected_mode="15W", power_mode="MAXN_SUPER")
    assert kinds(off, context) == ["power mode"]
    assert untold(off, context)["telemetry"] == "it is off (--telemetry-hz 0)"


def test_an_unknown_mode_is_told() -> None:
    """Where the device does not tell its mode, no mode is called wrong."""
    assert "does not tell its mode" in untold(Window(0, SECOND, 0.0), Context(2, expected_mode="15W"))["power mode"]
