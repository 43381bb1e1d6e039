from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fixtures.guest import Guest
from fixtures.soak import chart as rate_chart
from fixtures.soak import load as soak
from fixtures.soak.endurance import Endurance, part
from fixtures.soak.load import LoadWindow, Soak, SoakPlan
from suites.meta.runs import Run, arguments, limits, run

S = 10**9


def endurance(
    rate: Callable[[float], float],
    memory: Callable[[float], float] = lambda _: 100.0,
    count: int = 200,
    every: float = 1.0,
) -> Endurance:
    """A soak of windows of `every` seconds; rate (1/s) and memory (MB) are given by the second."""
    found = Endurance()
    for index in range(count):
        at, spent = index * every, every
        requests = max(1, round(rate(at) * every * 100))
        found.windows.append(
            LoadWindow(round(at * S), round((at + spent) * S), requests, slowest_ms=1.0, memory_mb=memory(at))
        )
    return found


def noisy(rate: Callable[[float], float], sigma: float, seed: int = 0) -> Callable[[float], float]:
    """With noise of that standard deviation, as a share."""
    generator = np.random.default_rng(seed)
    return lambda at: rate(at) * float(1 + sigma * generator.standard_normal())


@pytest.mark.parametrize("drop", [0.9, 0.7, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_throttling_is_found_where_it_begins(drop: float, seed: int) -> None:
    """A lasting drop is dated to its first window, or one beside it, under noise smaller than the drop."""
    found = endurance(noisy(lambda at: 50.0 if at < 80 else 50.0 * drop, sigma=0.01, seed=seed))
    assert found.time_to_throttle.value == pytest.approx(80, abs=1)
    ratio = found.ratio
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low - 0.01 <= drop <= ratio.high + 0.01


@pytest.mark.parametrize("sigma", [0.0, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("seed", range(10))
def test_noise_is_no_throttling(sigma: float, seed: int) -> None:
    """A constant rate never counts as throttled, whatever its noise, and the reason says how far one can see."""
    drop = endurance(noisy(lambda _: 50.0, sigma, seed)).time_to_throttle
    assert drop.value is None
    assert drop.reason is not None
    assert "no drop by" in drop.reason
    assert "within 200 s" in drop.reason


def test_a_dip_is_no_throttling() -> None:
    """What is over within a few windows is a neighbour, not the device."""
    found = endurance(lambda at: 25.0 if 60 <= at < 65 else 50.0)
    assert found.time_to_throttle.value is None
    assert found.ratio.value == 1


def test_throttling_that_comes_and_goes_counts_from_its_first_time() -> None:
    """A governor that lets go again has throttled all the same."""
    found = endurance(lambda at: 30.0 if 60 <= at < 100 or at > 150 else 50.0)
    assert found.time_to_throttle.value == 60


def test_a_short_soak_says_nothing() -> None:
    """Fewer windows than a statement needs give no value, and the reason says what to do."""
    found = endurance(lambda _: 50.0, count=19)
    for estimate in (found.ratio, found.time_to_throttle):
        assert estimate.value is None
        assert estimate.reason == "n=19 windows; a soak needs 20: --soak longer"
    assert Endurance().length_s == 0


@pytest.mark.parametrize("slope", [-3.0, 0.5, 12.0])
def test_the_memory_slope_is_that_of_the_leak(slope: float) -> None:
    """Growth a minute is found under noise, with an interval that holds it and leaves 0 out."""
    generator = np.random.default_rng(1)
    found = endurance(lambda _: 9.0, lambda at: 500 + slope * at / 60 + 0.05 * float(generator.standard_normal()))
    got = found.memory_slope
    assert got.value == pytest.approx(slope, abs=0.05)
    assert got.low is not None
    assert got.high is not None
    assert got.low <= slope <= got.high
    assert not got.low <= 0 <= got.high


def test_a_step_is_no_leak() -> None:
    """An allocator that takes a block once has no slope: its interval holds 0."""
    got = endurance(lambda _: 9.0, lambda at: 500.0 if at < 40 else 564.0).memory_slope
    assert got.value == 0
    assert got.low is not None
    assert got.low <= 0


def test_memory_that_cannot_be_read_has_no_slope() -> None:
    """Without readings the slope is absent with its reason, not 0."""
    found = endurance(lambda _: 9.0)
    found.windows = [LoadWindow(each.start_ns, each.end_ns, 1, 1.0, None) for each in found.windows]
    assert found.memory_slope.value is None
    assert found.memory_slope.reason == "n=0 readings of memory after the burst"


@dataclass
class Summary:
    """A channel of telemetry over a window."""

    median: float


@dataclass
class Span:
    """What telemetry says of a slice."""

    readings: dict[str, float]

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(self.readings)

    def summary(self, channel: str) -> Summary:
        return Summary(self.readings[channel])


@dataclass
class Sensors:
    """Telemetry of a GPU that slows down after 100 s."""

    asked: list[int] = field(default_factory=list)

    def window(self, start_ns: int, end_ns: int) -> Span:
        self.asked.append(start_ns)
        hot = start_ns >= 100 * S
        return Span({"gpu_mhz": 612.0 if hot else 1020.0, "throttle.gpu": float(hot), "swap_used_mb": 1.0 + hot})


def test_the_cause_is_told_where_sensors_know_it() -> None:
    """With telemetry the note of a throttled soak names the channels that moved with it, and only those that tell."""
    whole, sensors = endurance(lambda at: 50.0 if at < 100 else 30.0), Sensors()
    found = Endurance()
    for start in range(0, 200, 5):
        found.add(whole.windows[start : start + 5], sensors)
    assert found.cause == "gpu_mhz 1020 -> 612, throttle.gpu 0 -> 1"
    assert len(sensors.asked) == 40
    assert whole.cause == ""


def test_windows_are_bounded() -> None:
    """However long a soak is, it has at most about 600 windows; none is shorter than its clock can tell."""
    assert Soak(60).window_s == 6
    assert Soak(60 * 24).seconds / Soak(60 * 24).window_s == 600
    assert Soak(0.1).window_s == soak.LEAST_WINDOW_S
    assert part(10, 0.05) == 5


class Counted:
    """A runner that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def run(self, batch: list[dict[str, str]]) -> list[dict[str, object]]:
        self.asked += batch
        return [{} for _ in batch]


def test_a_window_holds_whole_passes() -> None:
    """Windows hold whole passes over the requests, one after another, and their times do not overlap."""
    runner, guest = Counted(), Guest()
    guest.runner = runner  # type: ignore[assignment]
    requests = tuple({"text": str(n)} for n in range(7))
    found = soak.soak(guest, SoakPlan(requests, window_s=0.01, slice_s=0.05))
    assert len(found) >= 2
    assert all(each.requests % 7 == 0 for each in found)
    assert sum(each.requests for each in found) == len(runner.asked)
    assert all(each.end_ns - each.start_ns >= 0.01 * S for each in found)
    assert all(a.end_ns <= b.start_ns for a, b in pairwise(found))
    assert [span.phase for span in guest.spans.take()] == ["measure"]
    assert found[0].memory_mb is not None
    assert found[0].memory_mb > 1


def test_the_picture_is_a_png() -> None:
    """A soak is drawn with its throttling; one without windows cannot be."""
    found = endurance(lambda at: 50.0 if at < 80 else 30.0)
    assert rate_chart.rate_over_time(found, "a case").startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="without windows"):
        rate_chart.rate_over_time(Endurance(), "a case")


LIMITS = """\
    - cases: "sentiment/tiny/fake/*"
      source: "made up: what keeps its speed keeps three quarters of it"
      sustained_burst_ratio: {min: 0.75}
      memory_slope_mb_per_min: {max: 60}
"""


@pytest.fixture(scope="module")
def soaked(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Six seconds each of a target that tires and one that leaks."""
    folder = tmp_path_factory.mktemp("soak")
    words = arguments(folder, "tires", "leaks")
    limits(folder / "limits.yaml", LIMITS)
    return run(folder / "build", *words, "--targets=suites.meta.tiring", "--soak=0.1", "-pno:allure_pytest")


def test_a_tiring_target_is_caught(soaked: Run) -> None:
    """A target that takes twice as long after some requests keeps about half its speed, and is dated."""
    case = soaked.cases["tires"]
    assert soaked.code == 1
    assert case["status"] == "failed"
    assert case["reason"].startswith("FAIL sustained_burst_ratio")
    assert 0.3 < case["metrics"]["sustained_burst_ratio"] < 0.75
    assert 0 < case["metrics"]["time_to_throttle_s"] < 6
    assert any(note.startswith("soak of 6 s: sustained 0.") for note in case["notes"]), case["notes"]


def test_a_leaking_target_is_caught(soaked: Run) -> None:
    """A target that keeps what it was given grows by more than its limit."""
    case = soaked.cases["leaks"]
    assert "FAIL memory_slope_mb_per_min" in case["reason"] + " ".join(case["checks"].values())
    assert case["metrics"]["memory_slope_mb_per_min"] > 60


def test_a_soak_runs_nothing_else(soaked: Run) -> None:
    """With --soak nothing but the soak runs: it heats the device."""
    assert {name for case in soaked.results["cases"] for name in case["checks"]} == {
        "soak/test_soak.py::test_endurance"
    }


def test_a_soak_needs_its_minutes(tmp_path: Path) -> None:
    """Asked for without a time, the soak says which option is missing; a time that is none is refused."""
    words = arguments(tmp_path, "plain")
    found = run(tmp_path / "build", *words, "suites/soak")
    assert found.code == pytest.ExitCode.USAGE_ERROR
    assert found.errors == ["ERROR: suites/soak/test_soak.py needs to know for how long: --soak MINUTES"]
    for minutes in ("0", "-1", str(math.nan)):
        refused = run(tmp_path / "build", *words, f"--soak={minutes}")
        assert refused.code == pytest.ExitCode.USAGE_ERROR
        (error,) = refused.errors
        assert "should be a number of minutes, 0.1 or more" in error
