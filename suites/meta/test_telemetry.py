from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TypeAlias, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.telemetry.options import Price, TelemetryOptions, parse
from fixtures.telemetry.sampler import KEPT_S, Telemetry, following
from fixtures.telemetry.watch import LOST, STUCK, SensorWatch
from fixtures.telemetry.window import ALL
from suites.meta.runs import arguments, run
from suites.meta.sensors import MS, SECOND, Clock, ScriptedProbe
from targets.api import UserError
from targets.registry import probes

Readings: TypeAlias = Sequence[Mapping[str, float]]
PUNCTUAL: Mapping[int, float] = {}


def turned(
    probe: ScriptedProbe,
    clock: Clock,
    seconds: float,
    hz: float = 20.0,
    late: Mapping[int, float] = PUNCTUAL,
    cpu_s: float = 0.0,
) -> Telemetry:
    """Telemetry after so many seconds of its loop.

    `late`: by the number of a wait, how much longer it sleeps. `cpu_s`: what a sample costs.
    """
    end, waits, samples = clock.now + round(seconds * 1e9), count(), count()

    def wait(delay: float) -> bool:
        clock.sleep(delay + late.get(next(waits), 0.0))
        return clock.now > end

    found = Telemetry(probe, hz, clock=clock, wait=wait, cpu_clock=lambda: cpu_s * next(samples))
    found.loop()
    return found


def watched(values: Readings, hz: float = 20.0) -> SensorWatch:
    watch = SensorWatch()
    for index, reading in enumerate(values):
        watch.look(round(index * 1e9 / hz), reading)
    return watch


def test_samples_stand_on_a_grid() -> None:
    """Samples come at whole multiples of the period, however long the run."""
    clock = Clock(7 * SECOND)
    found = turned(ScriptedProbe(lambda _: {"power_w": 5.0}), clock, 10)
    stamps = [at for at, _ in found.window(0, clock.now).rows]
    assert stamps == [7 * SECOND + 50 * MS * index for index in range(201)]


def test_a_delay_moves_no_later_sample() -> None:
    """A thread that is woken late goes on on the old grid: the points it missed are not made up in a burst."""
    clock = Clock()
    found = turned(ScriptedProbe(lambda _: {"power_w": 5.0}), clock, 1, late={3: 0.12, 8: 0.01})
    stamps = [at // MS for at, _ in found.window(0, clock.now).rows]
    assert stamps[:8] == [0, 50, 100, 270, 300, 350, 400, 450]
    assert stamps[8:10] == [510, 550]


@given(due=st.integers(0, 10**12), late=st.integers(-(10**9), 10**9), period=st.integers(1, 10**8))
def test_the_next_point_is_the_first_after_now(due: int, late: int, period: int) -> None:
    """The next point lies on the grid, after the last point and after now, and no earlier one does."""
    found = following(due, due + late, period)
    assert (found - due) % period == 0
    assert found > max(due, due + late)
    assert found - period <= max(due, due + late)


def test_a_probe_that_fails_is_noted_and_the_run_goes_on() -> None:
    """A probe that raises leaves no rows for that time, one note of when and why, and recovers."""
    error = OSError(19, "No such device", "hwmon1/in1_input")
    clock = Clock()
    found = turned(ScriptedProbe(lambda n: error if 10 <= n < 16 else {"power_w": 5.0 + n}), clock, 2)
    seen = found.window(0, 2 * SECOND)
    assert len(seen.inside) == 41 - 6
    (trouble,) = seen.troubles
    assert (trouble.channel, trouble.since_ns, trouble.until_ns) == (ALL, 500 * MS, 800 * MS)
    assert "No such device" in trouble.reason
    assert found.facts()["troubles"] == [str(trouble)]
    assert found.window(SECOND, 2 * SECOND).troubles == ()


def test_a_lost_channel_is_noted_from_its_first_absence() -> None:
    """A channel that was read and is absent for some samples is noted; a single absence is not, nor one never read."""
    both: Mapping[str, float] = {"power_w": 1.0, "cpu_mhz": 2.0}
    one: Mapping[str, float] = {"cpu_mhz": 2.0}
    assert watched([one] * 30).troubles == []
    assert watched([both] * 5 + [one] * (LOST - 1) + [both] * 5).troubles == []
    (lost,) = watched([both] * 5 + [one] * 10).troubles
    assert (lost.channel, lost.since_ns, lost.until_ns) == ("power_w", 250 * MS, None)
    (back,) = watched([both] * 5 + [one] * 10 + [both]).troubles
    assert back.until_ns == 750 * MS


def test_a_stuck_sensor_is_noted_under_load_only() -> None:
    """Power that stands still while the GPU or the processor works is stuck; at rest it may stand still."""
    at_rest: Readings = [{"power_w": 5.0, "gpu_load": 0.0}] * (2 * STUCK)
    by_gpu: Readings = [{"power_w": 5.0, "gpu_load": 0.9}] * (STUCK + 1)
    by_cpu: Readings = [{"power_w": 5.0, "cpu_busy_s": 0.05 * index} for index in range(STUCK + 2)]
    moving: Readings = [{"power_w": 5.0 + index % 2, "gpu_load": 0.9} for index in range(2 * STUCK)]
    assert watched(at_rest).troubles == watched(moving).troubles == watched(by_gpu[:STUCK]).troubles == []
    for found in (by_gpu, by_cpu, [*at_rest, *by_gpu]):
        (trouble,) = watched(found).troubles
        assert trouble.stuck
        assert f"the same 5 in {STUCK + 1} samples in a row under load" in trouble.reason
    (freed,) = watched([*by_gpu, {"power_w": 6.0, "gpu_load": 0.9}]).troubles
    assert freed.until_ns == (STUCK + 1) * 50 * MS


def test_a_value_that_is_no_number_is_left_out() -> None:
    """NaN and infinity are no readings."""
    assert SensorWatch().look(0, {"a": float("nan"), "b": float("inf"), "c": 0.0}) == {"c": 0.0}


def test_memory_is_bounded() -> None:
    """Rows older than the bound go by themselves, and what is forgotten leaves one row as an edge."""
    clock = Clock()
    found = turned(ScriptedProbe(lambda n: {"power_w": float(n)}), clock, KEPT_S + 300, hz=1)
    kept = found.window(0, clock.now).rows
    assert KEPT_S <= (kept[-1][0] - kept[0][0]) / 1e9 <= KEPT_S + 1
    found.forget(clock.now - 10 * SECOND)
    assert 10 <= len(found.window(0, clock.now).rows) <= 12
    assert found.window(clock.now - 10 * SECOND, clock.now).coverage() == 1


def test_idle_power_is_taken_where_there_is_a_sensor() -> None:
    """The device rests before the first case so that its power is known; without a sensor no time is spent."""
    clock = Clock()
    metered = Telemetry(ScriptedProbe(lambda _: {"power_w": 4.5}), 20, clock=clock)

    def asleep(seconds: float) -> None:
        for _ in range(round(seconds * 20)):
            clock.sleep(0.05)
            metered.sample()

    assert metered.rest(1.0, asleep).watts == metered.idle.watts == 4.5
    assert metered.facts()["idle_power_w"] == 4.5
    blind = Telemetry(ScriptedProbe(lambda _: {"cpu_mhz": 4.5}), 20, clock=Clock())
    assert blind.rest(1.0, lambda _: pytest.fail("slept")).reason == "no power sensor"


def test_facts_tell_rate_channels_and_what_is_missing() -> None:
    """What results.json keeps says what was read, what was not and why."""
    probe = ScriptedProbe(lambda _: {"power_w": 4.5}, {"gpu_mhz": "no GPU"})
    found = turned(probe, Clock(), 1).facts()
    assert (found["hz"], found["samples"], found["channels"], found["missing"]) == (
        20,
        21,
        ["power_w"],
        {"gpu_mhz": "no GPU"},
    )
    assert found["idle_power_w"] == "idle power was not taken"


def test_a_heavy_observer_is_told() -> None:
    """Telemetry that takes more than 1 % of a core says so, and what to do."""
    light, heavy = (
        turned(ScriptedProbe(lambda _: {}), Clock(), 10, cpu_s=seconds).facts() for seconds in (0.0004, 0.001)
    )
    assert light["own_cpu_share"] == pytest.approx(0.008, rel=0.02)
    assert light["troubles"] == []
    assert heavy["troubles"] == ["telemetry took 2.0% of a core, and 1% is the most: lower --telemetry-hz"]


def test_telemetry_needs_a_rate() -> None:
    """Off is no Telemetry at all."""
    with pytest.raises(ValueError, match="more often than never"):
        Telemetry(ScriptedProbe(lambda _: {}), 0)


def test_the_thread_samples_this_machine_lightly() -> None:
    """On this machine's own probe the thread keeps its rate, takes about 1 % of a core, and ends when closed."""
    found = Telemetry(probes["cpu"](Path("/")), 20).start()
    began = found.sample()
    time.sleep(1.0)
    seen = found.window(began, found.sample())
    found.close()
    assert len(seen.inside) >= 10  # 20 on a machine with a core to spare
    assert (seen.delta("cpu_busy_s") or 0) > 0
    assert 0 < found.own_cpu_share < 0.03  # measured: 0.6 %; threefold room for a machine that is busy
    assert all(thread.name != "telemetry" for thread in threading.enumerate())


def test_a_bad_option_ends_the_run_with_one_sentence(tmp_path: Path) -> None:
    """A rate that is none ends the run before it starts, with what was allowed."""
    found = run(tmp_path / "build", *arguments(tmp_path, "plain"), "--telemetry-hz=-1", "--collect-only")
    assert found.errors == ["ERROR: --telemetry-hz -1: should be from 0 (off) to 100 samples a second"]


@pytest.mark.parametrize(
    ("hz", "kwh", "said"),
    [
        (1000.0, None, "--telemetry-hz 1000: should be from 0 (off) to 100 samples a second"),
        (math.nan, None, "--telemetry-hz nan: should be from 0 (off) to 100 samples a second"),
        (20.0, "much", "--kwh-price 'much': should be an amount of 0 or more and its currency, such as 0.30 EUR"),
    ],
)
def test_a_bad_option_is_refused(hz: float, kwh: str | None, said: str) -> None:
    """A rate or price that is none is told in one sentence with what was allowed."""
    asked = SimpleNamespace(getoption={"telemetry_hz": hz, "kwh_price": kwh}.get)
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        parse(cast(pytest.Config, asked))


def test_options_are_kept() -> None:
    """What was asked is what the run uses."""
    asked = SimpleNamespace(getoption={"telemetry_hz": 0.0, "kwh_price": "0.30 EUR"}.get)
    assert parse(cast(pytest.Config, asked)) == TelemetryOptions(0.0, Price(0.30, "EUR"))
