"""The probe of a machine without an accelerator that the suite knows."""

from __future__ import annotations

from pathlib import Path

from targets import machine
from targets.probe import Sensors
from targets.registry import probes
from targets.sensors import cpu as cpu_sensors
from targets.sensors import psutil as psutil_sensors

NOT_HERE = {"power_w": "a CPU has no sensor of the whole board's power; rapl_j is its packages' energy"}


def probe(root: Path) -> Sensors:
    """Files of Linux below `root`; on other systems what psutil reads."""
    if machine.is_live(root) and not (root / "proc/stat").exists():
        return Sensors(psutil_sensors.sensors(), NOT_HERE | psutil_sensors.NOT_HERE)
    return Sensors(cpu_sensors.sensors(root), NOT_HERE)


probes.register("cpu")(probe)
