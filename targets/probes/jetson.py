"""The probe of a Jetson board: sysfs first, jtop (jetson-stats) for what sysfs lacks."""

from __future__ import annotations

from pathlib import Path

from targets import machine
from targets.probe import Sensors
from targets.registry import probes
from targets.sensors import cpu as cpu_sensors
from targets.sensors import jtop as jtop_sensors
from targets.sensors import tegra as tegra_sensors

NOT_HERE = {"gpu_memory_mb": "GPU and CPU share one memory here: see memory_available_mb and nvmap_mb"}


def probe(root: Path) -> Sensors:
    """Sensors of the board, then those of any machine, below `root`; on this machine jtop's for what remains."""
    found = Sensors([*tegra_sensors.sensors(root), *cpu_sensors.sensors(root)], NOT_HERE)
    if machine.is_live(root):
        found.add([jtop_sensors.Jtop(found.missing)])
    return found


probes.register("jetson")(probe)
