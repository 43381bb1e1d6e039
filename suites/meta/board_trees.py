"""Jetson boards as trees of sensor files that a test can play: what is set is what a probe should read.

Synthesised, none recorded on a board: paths, names and units follow NVIDIA's Jetson Linux Developer Guide ("Platform
Power and Performance"), proc(5), and the kernel's documentation of ina3221, ina238, devfreq, cpufreq, thermal and PSI.
Where a path moved between JetPacks, the boards differ in it on purpose. Values are round, and no board's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from suites.meta import trees
from suites.meta.board_files import ASLEEP, Files, Model, files
from suites.meta.trees import grow

NOTICE = f"SYNTHESISED, not recorded on a board. {__doc__}"
STATE = {
    "gpu_min_mhz": 306.0,
    "gpu_load": 0.0,
    "emc_mhz": 2133.0,
    "fan_pwm": 120.0,
    "nvmap_mb": 1024.0,
    "memory_available_mb": 5000.0,
    "swap_total_mb": 3810.0,
    "swap_used_mb": 0.0,
    "swap_in_mb": 0.0,
    "cpu_busy_s": 1000.0,
    "cpu_steal_s": 0.0,
    "context_switches": 100000.0,
    "pressure_cpu_s": 10.0,
    "pressure_memory_s": 0.0,
    "pressure_io_s": 1.0,
    **{f"oc_events.oc{number}": 0.0 for number in (1, 2, 3)},
}

Trace = tuple[tuple[float, Mapping[str, float | None]], ...]
"""What happens: at each second, channels and their new values; None for a sensor that vanishes."""
THROTTLING: Trace = (
    (0.0, {"gpu_load": 0.98, "power_w": 14.0, "temperature_c.tj": 85.0}),
    (1.0, {"temperature_c.tj": 99.0, "throttle.gpu": 1.0, "gpu_mhz": 612.0, "power_w": 9.0}),
    (2.0, {"temperature_c.tj": 96.0, "throttle.gpu": 0.0, "gpu_mhz": 816.0}),
)
SWAPPING: Trace = (
    (0.0, {"memory_available_mb": 300.0}),
    (1.0, {"memory_available_mb": 60.0, "swap_used_mb": 400.0, "swap_in_mb": 25.0, "pressure_memory_s": 0.4}),
    (2.0, {"memory_available_mb": 40.0, "swap_used_mb": 900.0, "swap_in_mb": 250.0, "pressure_memory_s": 1.1}),
)
OVER_CURRENT: Trace = (
    (0.0, {"gpu_load": 0.99, "power_w": 24.0, "oc_events.oc3": 40.0}),
    (1.0, {"oc_events.oc2": 3.0, "oc_events.oc3": 95.0, "gpu_mhz": 700.0}),
)
MISSING_SENSOR: Trace = ((0.0, {"power_w": 11.0}), (1.0, {"power_w": None}), (2.0, {"power_w": 12.0}))


ORIN_ZONES = ("cpu", "gpu", "cv0", "cv1", "cv2", "soc0", "soc1", "soc2", "tj")
ORIN_ALERTS = ("cpu", "gpu", "cv0", "cv1", "cv2", "soc0", "soc1", "soc2")
MODULE_RAILS = {"VDD_IN": 1.0, "VDD_CPU_GPU_CV": 0.5, "VDD_SOC": 0.25}
AGX_RAILS = {"VDD_GPU_SOC": 0.5, "VDD_CPU_CV": 0.25, "VIN_SYS_5V0": 0.25}
THOR_RAILS = {"VDD_GPU": 0.375, "VDD_CPU_SOC_MSS": 0.25, "VIN_SYS_5V0": 0.125}
GPU = "17000000.gpu"
MODELS: Mapping[str, Model] = {
    "orin-nano": Model(
        tree=trees.ORIN_NANO,
        devfreq=GPU,
        load=f"sys/class/devfreq/{GPU}/device/load",
        gpu_mhz=1020.0,
        cpu_mhz=1728.0,
        policies={0: "0 1 2 3", 4: "4 5"},
        zones=ORIN_ZONES,
        alerts=ORIN_ALERTS,
        rails=MODULE_RAILS,
    ),
    "orin-nx": Model(
        tree=trees.ORIN_NX,
        devfreq="17000000.ga10b",
        load="sys/devices/gpu.0/load",
        gpu_mhz=918.0,
        cpu_mhz=1984.0,
        policies={0: "0 1 2 3", 4: "4 5 6 7"},
        zones=ORIN_ZONES,
        alerts=ORIN_ALERTS,
        rails=MODULE_RAILS,
        suffix="-therm",
    ),
    "agx-orin": Model(
        tree=trees.AGX_ORIN,
        devfreq=GPU,
        load=f"sys/devices/platform/bus@0/{GPU}/load",
        gpu_mhz=1300.0,
        cpu_mhz=2201.0,
        policies={0: "0 1 2 3", 4: "4 5 6 7", 8: "8 9 10 11"},
        zones=ORIN_ZONES,
        alerts=ORIN_ALERTS,
        rails=AGX_RAILS,
    ),
    "thor": Model(
        tree=trees.THOR,
        devfreq="gpu-gpc-0",
        load="",
        gpu_mhz=1575.0,
        cpu_mhz=2601.0,
        policies={cpu: f"{cpu} {cpu + 1}" for cpu in range(0, 14, 2)},
        zones=("cpu", "gpu", "soc012", "soc345", "tj"),
        alerts=("cpu", "gpu", "soc012", "soc345"),
        rails=THOR_RAILS,
        ina238=True,
    ),
}


@dataclass
class Board:
    """A board below `root`; `set` changes its sensors as a probe names them, each file at one stroke."""

    root: Path
    model: Model
    state: dict[str, float] = field(default_factory=dict)
    _written: dict[str, str | None] = field(default_factory=dict)
    _lost: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        grow(self.root, self.model.tree, {"SYNTHESISED": NOTICE})
        clocks = {"gpu_mhz": 306.0, "gpu_max_mhz": self.model.gpu_mhz, "cpu_mhz": 1000.0, "cpu_min_mhz": 729.0}
        zones = {f"temperature_c.{zone}": ASLEEP if zone.startswith("cv") else 45.0 for zone in self.model.zones}
        alerts = {f"throttle.{alert}": 0.0 for alert in (*self.model.alerts, "hot-surface")}
        first = {**STATE, **clocks, **zones, **alerts, "cpu_max_mhz": self.model.cpu_mhz, "power_w": 8.0}
        self.set({**first, "emc_max_mhz": 3199.0})

    def set(self, values: Mapping[str, float | None] | None = None, **named: float | None) -> None:
        """New values by channel; None makes the sensor vanish, a later value brings it back. ASLEEP: a zone is off."""
        for channel, value in {**(values or {}), **named}.items():
            if value is None:
                self._lost += self.files_of(channel)
                continue
            if self._lost and channel in self.state:
                self._lost = [path for path in self._lost if path not in self.files_of(channel)]
            self.state[channel] = value
        self._write(files(self.model, self.state))

    def files_of(self, channel: str) -> list[str]:
        """The paths whose content depends on a channel. Raises KeyError where the board has no such sensor."""
        other = {**self.state, channel: 77.0 if self.state[channel] == 0 else 0.0}
        now, then = files(self.model, self.state), files(self.model, other)
        return [path for path in now if now[path] != then[path]]

    def play(self, trace: Trace) -> Iterator[float]:
        """Each second of a trace, after its values are set."""
        for second, values in trace:
            self.set(values)
            yield second

    def _write(self, tree: Files) -> None:
        for path, content in tree.items():
            file = self.root / path
            if path in self._lost:
                file.unlink(missing_ok=True)
                self._written.pop(path, None)
            elif self._written.get(path, "") != content:
                self._replace(file, content)
                self._written[path] = content

    def _replace(self, file: Path, content: str | None) -> None:
        """One file in place of another at once, so that a reader beside never meets half of it; None: a directory."""
        if file.is_dir():
            file.rmdir()
        if content is None:
            file.unlink(missing_ok=True)
            file.mkdir(parents=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}")
        draft.write_text(content, encoding="utf-8")
        draft.replace(file)


def board(root: Path, name: str = "orin-nano") -> Board:
    """A board of one of the MODELS, idle, below `root`."""
    return Board(root, MODELS[name])


@contextmanager
def playing(board: Board, trace: Sequence[tuple[float, Mapping[str, float | None]]]) -> Iterator[None]:
    """Play a trace in a thread of its own, in real time, while the body runs; what remains at its end is not played."""
    stop = threading.Event()

    def play() -> None:
        begun = 0.0
        for second, values in trace:
            if stop.wait(second - begun):
                return
            begun = second
            board.set(values)

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
