"""Sensors of this machine, of recorded x86 machines, and of libraries that stand-ins play: NVML, jtop, psutil."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from fixtures import devices
from suites.meta import trees
from suites.meta.board_trees import board
from suites.meta.trees import grow
from targets import machine
from targets.probe import Sensors
from targets.registry import probes
from targets.sensors import jtop as jtop_sensors
from targets.sensors import nvml as nvml_sensors
from targets.sensors import psutil as psutil_sensors
from targets.sensors.files import Absent, Value, value
from targets.sensors.jtop import Jtop
from targets.sensors.nvml import Nvml

RAPL = "sys/class/powercap/intel-rapl"


@pytest.fixture
def here() -> Iterator[Sensors]:
    """The CPU probe of this machine."""
    probe = probes["cpu"](Path("/"))
    assert isinstance(probe, Sensors)
    yield probe
    probe.close()


def test_this_machine_agrees_with_psutil(here: Sensors) -> None:
    """Processor time, memory and swap are those that psutil reads from the same kernel."""
    reading, times, memory = here.read(), psutil.cpu_times(), psutil.virtual_memory()
    if sys.platform == "linux":
        busy = times.user + times.nice + times.system + times.irq + times.softirq
        assert reading["cpu_busy_s"] == pytest.approx(busy, abs=2.0)
        assert reading["cpu_steal_s"] == pytest.approx(times.steal, abs=2.0)
    assert reading["memory_available_mb"] == pytest.approx(memory.available / 2**20, rel=0.2)
    assert reading["swap_used_mb"] == pytest.approx(psutil.swap_memory().used / 2**20, rel=0.2, abs=50)


def test_work_is_seen(here: Sensors) -> None:
    """CPU seconds that this process burns are among the busy seconds of the machine."""
    before, burnt = here.read()["cpu_busy_s"], time.process_time()
    while time.process_time() - burnt < 0.15:
        sum(range(1000))
    assert here.read()["cpu_busy_s"] - before >= 0.1


def test_a_reading_of_this_machine_is_cheap(here: Sensors) -> None:
    """This machine's own sensors are read within a millisecond (median)."""
    spent = []
    for _ in range(100):
        begun = time.perf_counter()
        here.read()
        spent.append(time.perf_counter() - begun)
    assert median(spent) < 1e-3


def test_what_is_missing_says_why(tmp_path: Path) -> None:
    """Of a machine that shows nothing, each channel is missing with a reason that names its file."""
    probe = probes["cpu"](tmp_path)
    assert probe.channels == ()
    assert probe.read() == {}
    for channel, file in (
        ("cpu_busy_s", "proc/stat"),
        ("swap_in_mb", "proc/vmstat"),
        ("pressure_io_s", "proc/pressure/io"),
        ("cpu_mhz", "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq"),
        ("rapl_j", f"{RAPL}:0/energy_uj"),
    ):
        assert probe.missing[channel] == f"{tmp_path / file}: No such file or directory"
    assert "no sensor of the whole board" in probe.missing["power_w"]


def test_a_kernel_without_a_line(tmp_path: Path) -> None:
    """Where a table is there but not the line, only what stands in that line is missing."""
    grow(
        tmp_path, {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 2048 kB\n", "proc/vmstat": "pgpgin 1\nnot_pswpin 5\n"}
    )
    probe = probes["cpu"](tmp_path)
    assert probe.read() == {"memory_available_mb": 2.0}
    assert "no such value" in probe.missing["swap_used_mb"]
    assert "proc/vmstat: none of the lines" in probe.missing["swap_in_mb"]


def package(number: int, energy_uj: int, name: str = "package-") -> dict[str, str]:
    folder = f"{RAPL}:{number}"
    return {
        f"{folder}/name": f"{name}{number}\n",
        f"{folder}/energy_uj": f"{energy_uj}\n",
        f"{folder}/max_energy_range_uj": "262143328850\n",
    }


def test_the_energy_of_packages_wraps(tmp_path: Path) -> None:
    """The packages' counters start again after their range, each at its own time; their sum goes on growing."""
    core = {f"{RAPL}:0:0/name": "core\n", f"{RAPL}:0:0/energy_uj": "77000000\n"}
    grow(tmp_path, package(0, 262_140_000_000), package(1, 5_000_000), package(2, 9_000_000, "psys-"), core)
    probe = probes["cpu"](tmp_path)
    first = probe.read()["rapl_j"]
    assert first == pytest.approx(262_145)
    grow(tmp_path, package(0, 1_671_150), package(1, 7_000_000))
    assert probe.read()["rapl_j"] - first == pytest.approx(3.328850 + 1.671150 + 2.0)
    assert probe.read()["rapl_j"] - first == pytest.approx(7.0)
    grow(tmp_path, package(1, 1_000_000))
    assert probe.read()["rapl_j"] - first == pytest.approx(7.0 + 262_143.328850 - 6.0)


def test_zones_of_one_type_are_told_apart(tmp_path: Path) -> None:
    """Several zones may have one type: each has a channel of its own, in the order of their numbers."""
    for number, kind in ((0, "acpitz"), (2, "x86_pkg_temp"), (3, "acpitz"), (10, "acpitz")):
        zone = f"sys/class/thermal/thermal_zone{number}"
        grow(tmp_path, {f"{zone}/type": f"{kind}\n", f"{zone}/temp": f"{30000 + 1000 * number}\n"})
    assert probes["cpu"](tmp_path).read() == {
        "temperature_c.acpitz": 30.0,
        "temperature_c.x86_pkg_temp": 32.0,
        "temperature_c.acpitz-2": 33.0,
        "temperature_c.acpitz-3": 40.0,
    }


def test_a_cpu_says_whether_its_clock_is_locked(tmp_path: Path) -> None:
    """The policy of a CPU's clocks is a fact where cpufreq tells it, and no fact where it does not."""
    assert "clocks" not in devices.detect(grow(tmp_path, trees.X86)).facts
    policy = "sys/devices/system/cpu/cpufreq/policy0"
    for low, word in (("800000", "dynamic"), ("3000000", "locked")):
        grow(tmp_path, {f"{policy}/scaling_min_freq": f"{low}\n", f"{policy}/scaling_max_freq": "3000000\n"})
        assert devices.detect(tmp_path).facts["clocks"] == word


def test_the_first_sensor_that_can_be_read_wins(tmp_path: Path) -> None:
    """Sensors of one channel are an order of preference; the reasons of all stand in `missing` where none can."""
    grow(tmp_path, {"second": "2\n", "third": "3\n"})
    sensors = [value("x_mhz", tmp_path / name) for name in ("first", "second", "third")]
    probe = Sensors([*sensors, Absent("y_w", "no file"), Absent("y_w", "no library")], {"y_w": "no sensor"})
    assert probe.read() == {"x_mhz": 2.0}
    assert dict(probe.missing) == {"y_w": "no sensor; no file; no library"}
    assert isinstance(sensors[0], Value)


class NVMLError(Exception):
    """As pynvml's."""


def nvml(**answers: Any) -> ModuleType:
    """A stand-in for pynvml of one GPU; an answer that is an exception is raised."""
    module = ModuleType("pynvml")
    defaults: dict[str, Any] = {
        "Init": None,
        "Shutdown": None,
        "DeviceGetHandleByIndex": "gpu",
        "DeviceGetPowerUsage": 151_500,
        "DeviceGetClockInfo": 1785,
        "DeviceGetUtilizationRates": SimpleNamespace(gpu=88, memory=20),
        "DeviceGetMemoryInfo": SimpleNamespace(total=8 * 2**30, used=3 * 2**30, free=5 * 2**30),
        "DeviceGetTemperature": 71,
        "DeviceGetCurrentClocksThrottleReasons": 0x04 | 0x20,
    }

    def answering(answer: Any) -> Any:
        def call(*_: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    constants = {"NVMLError": NVMLError, "NVML_CLOCK_SM": 1, "NVML_TEMPERATURE_GPU": 0}
    calls = {f"nvml{name}": answering(answer) for name, answer in (defaults | answers).items()}
    vars(module).update(constants | calls)
    return module


def test_a_card_by_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """A discrete GPU's power, clock, load, memory, temperature and alerts come from NVML, in our units."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    probe = probes["cuda"](Path("/"))
    reading = probe.read()
    assert {channel: reading[channel] for channel in nvml_sensors.CHANNELS} == {
        "power_w": 151.5,
        "gpu_mhz": 1785.0,
        "gpu_load": 0.88,
        "gpu_memory_mb": 3072.0,
        "temperature_c.gpu": 71.0,
        "gpu_power_capped": 1.0,
        "throttle.hw-slowdown": 0.0,
        "throttle.sw-thermal": 1.0,
        "throttle.hw-thermal": 0.0,
        "throttle.hw-power-brake": 0.0,
    }
    assert "cpu_busy_s" in reading
    assert "no power mode" in probe.missing["gpu_max_mhz"]
    probe.close()


def test_a_card_that_tells_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU answers NotSupported to is missing; the rest is read; what fails later is absent."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml(DeviceGetPowerUsage=NVMLError("Not Supported")))
    probe = Sensors([Nvml()])
    assert "power_w" in probe.missing
    assert probe.read()["gpu_load"] == 0.88
    probe.close()
    monkeypatch.setitem(sys.modules, "pynvml", nvml(DeviceGetUtilizationRates=NVMLError("GPU is lost")))
    assert "gpu_load" not in probe.read()
    probe.close()


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (None, "pip install nvidia-ml-py"),
        (nvml(Init=NVMLError("Driver Not Loaded")), "NVML: Driver Not Loaded"),
        (nvml(DeviceGetHandleByIndex=NVMLError("Invalid Argument")), "NVML: Invalid Argument"),
    ],
    ids=["no-module", "no-driver", "no-gpu"],
)
def test_a_machine_without_nvml(module: ModuleType | None, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library, the driver or the GPU, each of its channels is missing and says which."""
    monkeypatch.setitem(sys.modules, "pynvml", module)
    probe = probes["cuda"](Path("/"))
    assert all(reason in probe.missing[channel] for channel in nvml_sensors.CHANNELS)
    assert "cpu_busy_s" in probe.channels
    probe.close()


def test_a_recorded_card_has_no_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded tree is never mixed with the GPU of the machine that studies it."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    missing = probes["cuda"](grow(tmp_path, trees.RTX)).missing
    assert missing["power_w"] == "NVML answers on a live machine only"


class Client:
    """A stand-in for jtop's connection to its service."""

    gpu: dict[str, Any]
    power: dict[str, Any]
    memory: dict[str, Any]

    def __init__(self, interval: float) -> None:
        self.gpu = {"gpu": {"status": {"load": 37.5}, "freq": {"cur": 1575000, "max": None}}}
        self.power = {"tot": {"power": 41_250}}
        self.memory = {"EMC": {"cur": 4266000}, "RAM": {}}
        self.open = False

    def start(self) -> None:
        self.open = True

    def close(self) -> None:
        self.open = False


class JtopException(Exception):
    """As jtop's."""


def jtop(client: type[Client] = Client) -> ModuleType:
    module = ModuleType("jtop")
    vars(module).update(jtop=client, JtopException=JtopException)
    return module


def test_jtop_for_what_sysfs_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only jtop's service knows is read from it, in our units; what it does not know stays missing."""
    monkeypatch.setitem(sys.modules, "jtop", jtop())
    probe = Sensors([Absent("gpu_load", "no load file"), Absent("fan_pwm", "no fan")])
    probe.add([Jtop([*probe.missing, *jtop_sensors.FIELDS])])
    assert probe.read() == {"gpu_load": 0.375, "gpu_mhz": 1575.0, "power_w": 41.25, "emc_mhz": 4266.0}
    assert {"gpu_max_mhz", "nvmap_mb", "fan_pwm"} == set(probe.missing)
    probe.close()


class Refused(Client):
    """A connection to a service that does not run."""

    def start(self) -> None:
        raise JtopException("The jtop.service is not active.\nPlease run:\nsudo jtop --install-service")


@pytest.mark.parametrize(
    ("module", "reason"),
    [(None, "pip install jetson-stats"), (jtop(Refused), "jtop: The jtop.service is not active. Please run: sudo")],
)
def test_jtop_may_be_absent(module: ModuleType | None, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jtop or its service the reason of sysfs stands, and how jtop could help after it."""
    monkeypatch.setitem(sys.modules, "jtop", module)
    probe = Sensors([Absent("gpu_load", "no load file"), Jtop(["gpu_load"])])
    assert probe.missing["gpu_load"].startswith("no load file; ")
    assert reason in probe.missing["gpu_load"]


def test_a_live_jetson_asks_jtop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a live board jtop is asked for what its sysfs lacks, as Thor's load, and for no more; never for a tree."""
    monkeypatch.setitem(sys.modules, "jtop", jtop())
    thor = board(tmp_path, "thor")
    assert "gpu_load" in probes["jetson"](thor.root).missing
    monkeypatch.setattr(machine, "is_live", lambda root: root == thor.root)
    probe = probes["jetson"](thor.root)
    reading = probe.read()
    assert (reading["gpu_load"], reading["power_w"]) == (0.375, 8.0)
    probe.close()


def test_a_mac_reads_what_any_user_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Mac psutil reads processor and memory; power is missing with the command that could tell it."""
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    probe = probes["apple_silicon"](Path("/"))
    assert set(probe.read()) == {"cpu_busy_s", "context_switches", "memory_available_mb", "swap_used_mb"}
    assert "powermetrics" in probe.missing["power_w"]
    assert "no clock" in probe.missing["cpu_mhz"]
    assert "swap_in_mb" in probe.missing
    recorded = probes["apple_silicon"](tmp_path)
    assert recorded.read() == {}
    assert set(psutil_sensors.CHANNELS) <= set(recorded.missing)
