"""Probes on Jetson boards: every channel, sensors that sleep, vanish or are forbidden, and what a reading costs."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from fixtures import devices
from suites.meta.board_files import ASLEEP
from suites.meta.board_trees import MISSING_SENSOR, MODELS, OVER_CURRENT, SWAPPING, THROTTLING, Board, board, playing
from targets import registry
from targets.probe import Probe, is_counter

NO_CHANNEL = {"gpu_min_mhz", "cpu_min_mhz", "swap_total_mb"}


@pytest.fixture(params=MODELS)
def played(request: pytest.FixtureRequest, tmp_path: Path) -> Board:
    """Each of the boards."""
    return board(tmp_path, request.param)


@pytest.fixture
def nano(tmp_path: Path) -> Board:
    """An Orin Nano."""
    return board(tmp_path)


@pytest.fixture
def opened() -> Iterator[Callable[[Board], Probe]]:
    """Opens the probe of a board, and closes it in the end."""
    found: list[Probe] = []

    def open_probe(board: Board) -> Probe:
        found.append(registry.probes["jetson"](board.root))
        return found[-1]

    yield open_probe
    for probe in found:
        probe.close()


def test_every_device_kind_has_a_probe() -> None:
    """A machine of any kind that is detected can be probed."""
    assert set(registry.probes) == set(registry.devices)


def test_what_is_set_is_read(played: Board, opened: Callable[[Board], Probe]) -> None:
    """Every channel of every board gives the value of its own sensor, in the unit of its name, at every reading."""
    probe = opened(played)
    for step in (1, 2):
        for number, channel in enumerate(sorted(played.state)):
            state = played.state[channel]
            played.set({channel: state if state == ASLEEP else 8.0 * (number + 50 * step)})
        alerts = [channel for channel in played.state if channel.startswith("throttle.")]
        played.set(dict.fromkeys(alerts, step - 1.0), gpu_load=0.25 * step)
        expected = {
            channel: value
            for channel, value in played.state.items()
            if value != ASLEEP and channel not in NO_CHANNEL and channel not in probe.missing
        }
        reading = probe.read()
        assert {channel: value for channel, value in reading.items() if not channel.startswith("power_w.")} == (
            pytest.approx(expected, abs=0.006)
        )
    assert set(probe.missing) == {"gpu_memory_mb", "rapl_j"} | ({"gpu_load"} if not played.model.load else set())


def test_the_rails_beside_the_boards(played: Board, opened: Callable[[Board], Probe]) -> None:
    """Each rail has its own channel, but for the one that carries everything, which is the board's power itself."""
    played.set(power_w=20.0)
    reading = opened(played).read()
    assert reading["power_w"] == pytest.approx(20.0)
    rails = {f"power_w.{rail}": 20 * share for rail, share in played.model.rails.items() if share < 1}
    assert {channel: value for channel, value in reading.items() if channel.startswith("power_w.")} == (
        pytest.approx(rails)
    )


def test_boards_say_that_they_are_synthesised(played: Board) -> None:
    """A tree that could pass for a recording says what it is, and after which documentation; the suite knows it."""
    assert "SYNTHESISED, not recorded" in (played.root / "SYNTHESISED").read_text()
    assert "Jetson Linux Developer Guide" in (played.root / "SYNTHESISED").read_text()
    assert devices.detect(played.root).kind == "jetson"


def test_a_zone_that_sleeps_is_absent_and_wakes(nano: Board, opened: Callable[[Board], Probe]) -> None:
    """The zone of a unit that is off is among the channels but in no reading, never as 0, until the unit is on."""
    probe = opened(nano)
    assert "temperature_c.cv0" in probe.channels
    assert "temperature_c.cv0" not in probe.read()
    assert "temperature_c.cv0" not in probe.missing
    nano.set({"temperature_c.cv0": 51.0, "temperature_c.gpu": ASLEEP})
    reading = probe.read()
    assert reading["temperature_c.cv0"] == 51.0
    assert "temperature_c.gpu" not in reading


def test_eagain_is_sleep(nano: Board, opened: Callable[[Board], Probe], monkeypatch: pytest.MonkeyPatch) -> None:
    """A sensor whose read fails with EAGAIN, as sysfs has it, is asleep, as the directory that stands for it in trees."""
    zones = list(nano.root.glob("sys/class/thermal/thermal_zone*/temp"))
    inodes = {path.stat().st_ino for path in zones}
    pread = os.pread

    def asleep(descriptor: int, size: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino in inodes:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", asleep)
    probe = opened(nano)
    assert {"temperature_c.tj", "temperature_c.cpu"} <= set(probe.channels)
    assert not any(channel.startswith("temperature_c.") for channel in (*probe.read(), *probe.missing))
    monkeypatch.undo()
    assert probe.read()["temperature_c.tj"] == 45.0


def test_a_sensor_that_vanishes_and_returns(played: Board, opened: Callable[[Board], Probe]) -> None:
    """A sensor that is gone in the middle of a run is absent from then on, takes no other along, and may come back."""
    probe = opened(played)
    whole = set(probe.read())
    readings = [probe.read() for _ in played.play(MISSING_SENSOR)]
    assert [reading.get("power_w") for reading in readings] == [pytest.approx(11.0), None, pytest.approx(12.0)]
    gone = {channel for channel in whole if channel.startswith("power_w")}
    assert whole - gone <= set(readings[1])


def test_a_sum_is_whole_or_absent(tmp_path: Path, opened: Callable[[Board], Probe]) -> None:
    """Where one of the rails that add up to the board's power fails, the board's power is absent, not smaller."""
    agx = board(tmp_path, "agx-orin")
    probe = opened(agx)
    (agx.root / "sys/class/hwmon/hwmon1/curr2_input").unlink()
    reading = probe.read()
    assert "power_w" not in reading
    assert "power_w.VDD_GPU_SOC" in reading


def test_a_board_without_a_rail_of_all(nano: Board, opened: Callable[[Board], Probe]) -> None:
    """Where no rail carries the whole board, its power is missing, and the reason names the rails that there are."""
    (nano.root / "sys/class/hwmon/hwmon1/in1_label").write_text("NC\n")
    probe = opened(nano)
    assert "rails: VDD_CPU_GPU_CV, VDD_SOC" in probe.missing["power_w"]
    assert "power_w.VDD_SOC" in probe.channels


def test_what_only_root_may_read(
    nano: Board, opened: Callable[[Board], Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sensor that this user may not open is missing, and the reason says so with its path."""
    open_file = os.open

    def forbidden(path: Any, *rest: Any) -> int:
        if "kernel/debug" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_file(path, *rest)

    monkeypatch.setattr(os, "open", forbidden)
    missing = opened(nano).missing
    for channel, path in (("nvmap_mb", "nvmap/iovmm/clients"), ("emc_mhz", "clk/emc/rate")):
        assert f"{path}: Permission denied; only root may read it" in missing[channel]


@pytest.mark.parametrize("content", ["", "N/A\n", "<unsupported>\n", "12 34\n"])
def test_what_is_no_number_is_absent(content: str, nano: Board, opened: Callable[[Board], Probe]) -> None:
    """Text where a number should be is no reading, at the start (then it is missing) and later."""
    probe = opened(nano)
    fan = nano.root / "sys/class/hwmon/hwmon0/pwm1"
    fan.write_text(content)
    assert "fan_pwm" not in probe.read()
    assert f"{content.strip()!r} is no number" in opened(nano).missing["fan_pwm"]


def test_the_mean_clock_counts_cores_that_run(nano: Board, opened: Callable[[Board], Probe]) -> None:
    """The CPU's clock is a mean over cores, not over policies, and over those that are online."""
    policies = nano.root / "sys/devices/system/cpu/cpufreq"
    (policies / "policy0/scaling_cur_freq").write_text("1000000\n")
    (policies / "policy4/scaling_cur_freq").write_text("1600000\n")
    probe = opened(nano)
    assert probe.read()["cpu_mhz"] == pytest.approx((4 * 1000 + 2 * 1600) / 6)
    (policies / "policy4/scaling_cur_freq").unlink()
    assert probe.read()["cpu_mhz"] == pytest.approx(1000)
    (policies / "policy0/scaling_cur_freq").unlink()
    assert "cpu_mhz" not in probe.read()


def test_clocks_are_locked_as_jetson_clocks_locks_them(played: Board) -> None:
    """A board's facts say whether GPU and CPU stand at one clock: what a baseline must not mix."""
    assert devices.detect(played.root).facts["clocks"] == "dynamic"
    played.set(cpu_min_mhz=played.state["cpu_max_mhz"])
    assert devices.detect(played.root).facts["clocks"] == "dynamic"
    played.set(gpu_min_mhz=played.state["gpu_max_mhz"])
    assert devices.detect(played.root).facts["clocks"] == "locked"


def test_the_traces_do_what_they_are_called(nano: Board, opened: Callable[[Board], Probe]) -> None:
    """Throttling shows an alert and a low clock, swapping grows its counter, over-current counts events."""
    probe = opened(nano)
    throttled = [probe.read() for _ in nano.play(THROTTLING)]
    assert [reading["throttle.gpu"] for reading in throttled] == [0.0, 1.0, 0.0]
    assert throttled[1]["gpu_mhz"] < 0.95 * throttled[1]["gpu_max_mhz"]
    swapped = [probe.read()["swap_in_mb"] for _ in nano.play(SWAPPING)]
    assert swapped == [0.0, 25.0, 250.0]
    events = [probe.read()["oc_events.oc2"] for _ in nano.play(OVER_CURRENT)]
    assert events == [0.0, 3.0]


def test_a_trace_plays_beside_a_reader(nano: Board, opened: Callable[[Board], Probe]) -> None:
    """A board that changes in a thread is read whole at every moment: a value is the old one or the new one."""
    probe = opened(nano)
    trace = tuple((step / 500, {"power_w": 10.0 + step % 2, "temperature_c.tj": 60.0 + step % 2}) for step in range(50))
    seen = []
    with playing(nano, trace):
        until = time.monotonic() + 0.11
        while time.monotonic() < until:
            seen.append(probe.read())
    assert {round(reading["power_w"], 3) for reading in seen} <= {8.0, 10.0, 11.0}
    assert {reading["temperature_c.tj"] for reading in seen} <= {45.0, 60.0, 61.0}
    assert len({reading["power_w"] for reading in seen}) > 1


def test_a_reading_is_cheap(played: Board, opened: Callable[[Board], Probe]) -> None:
    """All sensors of a board are read within a millisecond (median), so that 20 readings a second disturb nothing."""
    probe = opened(played)
    assert median(timed(probe) for _ in range(100)) < 1e-3


def timed(probe: Probe) -> float:
    begun = time.perf_counter()
    probe.read()
    return time.perf_counter() - begun


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="only Linux lists a process's open files there")
def test_files_are_given_back(played: Board) -> None:
    """A probe that is closed holds no file open, and opens them again when it is read."""
    before = open_files()
    probe = registry.probes["jetson"](played.root)
    whole = probe.read()
    assert open_files() > before + 20
    probe.close()
    assert open_files() == before
    assert probe.read() == whole
    probe.close()


def test_counters_are_known(nano: Board, opened: Callable[[Board], Probe]) -> None:
    """It can be told which channels count since boot, of which only a difference means something."""
    counters = {channel for channel in opened(nano).channels if is_counter(channel)}
    assert counters == {
        *("swap_in_mb", "cpu_busy_s", "cpu_steal_s", "context_switches"),
        *("pressure_cpu_s", "pressure_memory_s", "pressure_io_s", "oc_events.oc1", "oc_events.oc2", "oc_events.oc3"),
    }
