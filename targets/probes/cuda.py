"""The probe of a machine with an NVIDIA GPU on a card: NVML's sensors and those of any machine."""

from __future__ import annotations

from pathlib import Path

from targets import machine
from targets.probe import Sensors
from targets.registry import probes
from targets.sensors import cpu as cpu_sensors
from targets.sensors import nvml as nvml_sensors
from targets.sensors.files import Absent

NOT_HERE = {"gpu_max_mhz": "no power mode promises a card a clock; throttle.* and gpu_power_capped say what lowers it"}


def probe(root: Path) -> Sensors:
    """The GPU of this machine; a recorded tree has no NVML, and so the files of Linux only."""
    if machine.is_live(root):
        return Sensors([nvml_sensors.Nvml(), *cpu_sensors.sensors(root)], NOT_HERE)
    recorded = [Absent(channel, "NVML answers on a live machine only") for channel in nvml_sensors.CHANNELS]
    return Sensors([*cpu_sensors.sensors(root), *recorded], NOT_HERE)


probes.register("cuda")(probe)
