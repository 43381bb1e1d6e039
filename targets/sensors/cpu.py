"""Sensors that every Linux machine has: processor, memory, swap, pressure, clocks, temperatures, package energy.

Formats: proc(5), and the kernel's documentation of PSI, cpufreq, the thermal sysfs interface and powercap.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from targets import machine
from targets.probe import Reading, Sensor
from targets.sensors import clocks
from targets.sensors.files import File, Table, Value, Wrapping, field, value

KB_IN_MB = 1 / 1024
POLICIES = "sys/devices/system/cpu/cpufreq"


def sensors(root: Path) -> Iterator[Sensor]:
    """All of them, below `root`; what this machine lacks fails when it is tried, and says why."""
    yield Table(root / "proc/stat", stat())
    yield Table(root / "proc/meminfo", MEMINFO)
    yield Table(root / "proc/vmstat", {"swap_in_mb": swap_in_mb})
    for resource in ("cpu", "memory", "io"):
        yield Table(root / "proc/pressure" / resource, {f"pressure_{resource}_s": stalled_s})
    yield CoreClock(root, "cpu_mhz", "scaling_cur_freq")
    yield CoreClock(root, "cpu_max_mhz", "scaling_max_freq")
    yield from temperatures(root)
    yield rapl(root)


def stat() -> dict[str, Callable[[bytes], float]]:
    """/proc/stat: user, nice, system, idle, iowait, irq, softirq and steal in ticks, then context switches.

    Time of guests is part of user and nice; idle, iowait and steal are not busy.
    """
    tick_s = 1 / os.sysconf("SC_CLK_TCK")

    def busy(content: bytes) -> float:
        ticks = [int(word) for word in content[4 : content.index(b"\n")].split()]
        return (sum(ticks[:3]) + ticks[5] + ticks[6]) * tick_s

    return {
        "cpu_busy_s": busy,
        "cpu_steal_s": lambda content: field(content, b"cpu ", 7) * tick_s,
        "context_switches": lambda content: field(content, b"ctxt "),
    }


MEMINFO: dict[str, Callable[[bytes], float]] = {
    "memory_available_mb": lambda content: field(content, b"MemAvailable:") * KB_IN_MB,
    "swap_used_mb": lambda content: (field(content, b"SwapTotal:") - field(content, b"SwapFree:")) * KB_IN_MB,
}


def swap_in_mb(content: bytes) -> float:
    """Pages swapped in since boot, as MB."""
    return field(content, b"pswpin ") * os.sysconf("SC_PAGE_SIZE") / machine.MB


def stalled_s(content: bytes) -> float:
    """The total of the line `some avg10=.. avg60=.. avg300=.. total=MICROSECONDS`, in seconds."""
    some = content[: content.index(b"\n")]
    return int(some[some.index(b"total=") + 6 :]) / 1e6


class CoreClock:
    """Mean MHz over the cores that are online, from a file in kHz of each policy.

    A policy whose cores are all offline answers an error and is left out; all answering errors is one.
    """

    def __init__(self, root: Path, channel: str, name: str) -> None:
        self.channels: tuple[str, ...] = (channel,)
        found = clocks.cpu(root) or [root / POLICIES / "policy0"]
        self._files = [(File(path / name), self._cores(path)) for path in found]

    def _cores(self, policy: Path) -> int:
        """How many online cores share the clock."""
        return max(1, len((machine.text(policy / "affected_cpus") or "").split()))

    def read(self) -> Reading:
        """The mean now. Raises OSError or ValueError where no policy tells its clock."""
        khz, cores, trouble = 0.0, 0, None
        for file, count in self._files:
            try:
                khz += file.number() * count
                cores += count
            except (OSError, ValueError) as error:
                trouble = error
        if trouble and not cores:
            raise trouble
        return {self.channels[0]: khz / cores / 1000}

    def close(self) -> None:
        """Close the files."""
        for file, _ in self._files:
            file.close()


def temperatures(root: Path) -> Iterator[Value]:
    """Thermal zones in m°C, by their type without -thermal or -therm; a second zone of one type is TYPE-2."""
    seen: dict[str, int] = {}
    zones = (root / "sys/class/thermal").glob("thermal_zone[0-9]*")
    for zone in sorted(zones, key=lambda path: int(path.name.removeprefix("thermal_zone"))):
        name = re.sub(r"-therm(al)?$", "", (machine.text(zone / "type") or zone.name).lower()).replace(" ", "-")
        seen[name] = seen.get(name, 0) + 1
        yield value(f"temperature_c.{name}" + (f"-{seen[name]}" if seen[name] > 1 else ""), zone / "temp", 1e-3)


def rapl(root: Path) -> Sensor:
    """Energy of the CPU packages (Intel's and AMD's RAPL), summed; since 2020 only root may read it (CVE-2020-8694)."""
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*"))
    packages = [zone for zone in zones if (machine.text(zone / "name") or "").startswith("package-")]
    counters = [
        (zone / "energy_uj", float(machine.text(zone / "max_energy_range_uj") or 2**32))
        for zone in packages or [root / "sys/class/powercap/intel-rapl:0"]
    ]
    return Wrapping("rapl_j", counters, 1e-6)
