"""Sensors of Jetson boards in sysfs and debugfs.

Sources: NVIDIA's Jetson Linux Developer Guide ("Platform Power and Performance"), the kernel's documentation of
ina3221 and ina238, of devfreq and of thermal cooling devices. A read of a power rail asks a chip on the I2C bus, twice:
some 45 bits at 400 kHz, 0.1 ms each, in which the reader waits without using the CPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from targets import machine
from targets.probe import Reading, Sensor
from targets.sensors import clocks
from targets.sensors.files import Absent, File, Table, Value, first, value

BOARD_RAILS = ("VDD_IN", "VIN")
"""Rails that carry everything: VDD_IN of the Nano's and NX's module, VIN of Thor's carrier board (its ina238)."""
MODULE_RAILS = frozenset({"VDD_GPU_SOC", "VDD_CPU_CV", "VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"})
"""Where no rail carries everything (AGX Orin; Thor on a carrier without ina238), these inputs of the module add up.
VDDQ_VDD2_1V8AO is fed by VIN_SYS_5V0 and would count twice. The carrier board's own draw is not in the sum."""
MODULE_INPUTS = 3
EMC_CLOCKS = ("sys/class/devfreq/bwmgr/cur_freq", "sys/kernel/debug/bpmp/debug/clk/emc/rate")
"""The memory controller's clock in Hz: Thor's devfreq node, or the firmware's debug file, which only root may read."""


def sensors(root: Path) -> Iterator[Sensor]:
    """All of them, below `root`; what this board lacks fails when it is tried, and says why."""
    yield from power(root)
    yield from gpu(root)
    yield first("emc_mhz", [root / path for path in EMC_CLOCKS], 1e-6)
    yield value("emc_max_mhz", root / "sys/kernel/nvpmodel_clk_cap/emc", 1e-6)
    yield from throttling(root)
    yield from over_current(root)
    yield Table(root / "sys/kernel/debug/nvmap/iovmm/clients", {"nvmap_mb": nvmap_mb})
    yield value("fan_pwm", next(iter(hwmon(root, "pwmfan")), root / "sys/class/hwmon/hwmon0") / "pwm1")


def hwmon(root: Path, *names: str) -> list[Path]:
    """The folders of monitors by the names of their drivers, in the order of their numbers, which change with boots."""
    found = sorted((root / "sys/class/hwmon").glob("hwmon*"), key=lambda path: (len(path.name), path.name))
    return [path for path in found if machine.text(path / "name") in names]


def rails(root: Path) -> dict[str, Callable[[str], Value]]:
    """For each power rail how to make its sensor, in watts, for a channel: mV x mA of an ina3221, uW of an ina238."""
    found: dict[str, Callable[[str], Value]] = {}
    for chip in hwmon(root, "ina3221"):
        for label in sorted(chip.glob("in[1-3]_label")):
            number, name = label.name[2], machine.text(label) or ""
            if name and name != "NC":  # NC: not connected
                found[name] = product(chip / f"in{number}_input", chip / f"curr{number}_input")
    for chip in hwmon(root, "ina238"):
        name = machine.text(chip / "in1_label") or machine.text(chip / "power1_label") or "VIN"
        found[name] = product(chip / "power1_input", None)
    return found


def product(left: Path, right: Path | None) -> Callable[[str], Value]:
    """A maker of sensors: two files multiplied, in mV and mA, or one alone, in uW; both are 1e-6 of a watt."""
    files = (left,) if right is None else (left, right)
    return lambda channel: Value(channel, tuple(File(path) for path in files), 1e-6, multiply)


def multiply(numbers: list[float]) -> float:
    """The product of one or two numbers."""
    return numbers[0] * (numbers[1] if len(numbers) == 2 else 1.0)


def whole(rails: Iterable[str]) -> list[str]:
    """The rails that make up the board's power: the one that carries everything, or the module's inputs; else none."""
    names = list(rails)
    board = [name for name in BOARD_RAILS if name in names]
    parts = [name for name in names if name in MODULE_RAILS]
    return board[:1] or (parts if len(parts) == MODULE_INPUTS else [])


def board_power(watts: Mapping[str, float]) -> Reading:
    """`power_w` where the rails tell it, and each rail but the one that carries everything, from watts by rail."""
    summed = whole(watts)
    total = {"power_w": sum(watts[name] for name in summed)} if summed else {}
    return total | {f"power_w.{name}": value for name, value in watts.items() if summed != [name]}


def power(root: Path) -> Iterator[Sensor]:
    """`power_w` of the board, then each rail by its name but the one that carries everything."""
    found = rails(root)
    summed = whole(found)
    if summed:
        yield Total("power_w", [found[name]("power_w") for name in summed])
    else:
        named = ", ".join(found) or "none"
        yield Absent("power_w", f"no power rail of the whole board under {root / 'sys/class/hwmon'} (rails: {named})")
    for name, make in found.items():
        if summed != [name]:
            yield make(f"power_w.{name}")


class Total:
    """The sum of sensors of one channel; where one of them fails, so does the sum: a part would pass for the whole."""

    def __init__(self, channel: str, parts: list[Value]) -> None:
        self.channels: tuple[str, ...] = (channel,)
        self._parts = parts

    def read(self) -> Reading:
        """The sum now. Raises OSError or ValueError."""
        return {self.channels[0]: sum(part.read()[self.channels[0]] for part in self._parts)}

    def close(self) -> None:
        """Close the parts' files."""
        for part in self._parts:
            part.close()


def gpu(root: Path) -> Iterator[Value]:
    """Clock, the highest clock that the power mode allows, and load in parts of 1000, wherever this JetPack has it."""
    devfreq = clocks.gpu(root) or root / "sys/class/devfreq/17000000.gpu"
    yield value("gpu_mhz", devfreq / "cur_freq", 1e-6)
    yield value("gpu_max_mhz", devfreq / "max_freq", 1e-6)
    device = root / "sys/devices/platform" / devfreq.name
    homes = (devfreq / "device", device, device.parent / "bus@0" / devfreq.name, device.parent / "gpu.0")
    yield first("gpu_load", [path / "load" for path in (*homes, root / "sys/devices/gpu.0")], 1e-3)


def throttling(root: Path) -> Iterator[Sensor]:
    """1 where a thermal alert slows a unit down now, by cooling device; the hot-surface alert is among them."""
    devices = (root / "sys/class/thermal").glob("cooling_device[0-9]*")
    for device in sorted(devices, key=lambda path: int(path.name.removeprefix("cooling_device"))):
        alert = re.match(r"(.+)-throttle-alert$|(hot-surface)-alert$", machine.text(device / "type") or "")
        if alert:
            yield Value(f"throttle.{alert[1] or alert[2]}", (File(device / "cur_state"),), combine=above_zero)


def above_zero(numbers: list[float]) -> float:
    """1 for a state above 0, else 0."""
    return float(numbers[0] > 0)


def over_current(root: Path) -> Iterator[Value]:
    """Events since boot: oc1 under-voltage, oc2 average over-current, oc3 momentary over-current."""
    folder = root / "sys/devices/platform/soctherm-oc-event/hwmon"
    for counter in sorted(folder.glob("hwmon*/oc[0-9]*_event_cnt")):
        yield value(f"oc_events.{counter.name.partition('_')[0]}", counter)


def nvmap_mb(content: bytes) -> float:
    """The last line of the list of clients, `total  123456K`. Raises ValueError where there is none."""
    words = content[content.rindex(b"\ntotal") :].split()
    if len(words) < 2 or not words[-1].endswith(b"K"):
        raise ValueError("nvmap's list of clients has no total in K")
    return int(words[-1][:-1]) / 1024
