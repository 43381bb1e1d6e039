"""The probe of a Mac with Apple's own processor: what any user may read."""

from __future__ import annotations

from pathlib import Path

from targets import machine
from targets.probe import Sensors
from targets.registry import probes
from targets.sensors import psutil as psutil_sensors

POWERMETRICS = "macOS tells it to powermetrics only, which needs root"
NOT_HERE = dict.fromkeys(("power_w", "gpu_mhz", "gpu_load", "temperature_c"), POWERMETRICS)


def probe(root: Path) -> Sensors:
    """Processor and memory of this machine, by psutil; a recorded tree holds nothing of it."""
    if machine.is_live(root):
        return Sensors(psutil_sensors.sensors(), NOT_HERE | psutil_sensors.NOT_HERE)
    recorded = dict.fromkeys(psutil_sensors.CHANNELS, "psutil reads a live machine only")
    return Sensors([], NOT_HERE | psutil_sensors.NOT_HERE | recorded)


probes.register("apple_silicon")(probe)
