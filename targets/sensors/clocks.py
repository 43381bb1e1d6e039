"""Clock policies: cpufreq's and the GPU's devfreq, and whether they are locked, as jetson_clocks locks them."""

from __future__ import annotations

import re
from pathlib import Path

from targets import machine

GPU = re.compile(r"^(gpu-gpc-0|[0-9a-f]+\.(gpu|gp10b|gv11b|ga10b))$")
"""devfreq nodes of Jetson GPUs: 17000000.gpu (Orin, JetPack 6; .ga10b in 5), .gv11b (Xavier), gpu-gpc-0 (Thor)."""


def gpu(root: Path) -> Path | None:
    """The devfreq folder of a Jetson's GPU, with cur_freq, min_freq and max_freq in Hz; None where there is none."""
    folder = root / "sys/class/devfreq"
    return next((path for path in sorted(folder.glob("*")) if GPU.match(path.name)), None)


def cpu(root: Path) -> list[Path]:
    """The folders of cpufreq, one for each set of cores that share a clock, in the order of their numbers."""
    found = (root / "sys/devices/system/cpu/cpufreq").glob("policy[0-9]*")
    return sorted(found, key=lambda path: int(path.name.removeprefix("policy")))


def policy(root: Path) -> str | None:
    """Whether the lowest allowed clock equals the highest everywhere: "locked" or "dynamic"; None where none is told.

    jetson_clocks raises the lowest clock of the CPU's policies and of the GPU to the highest. The governor's name does
    not tell: under "performance" a processor still boosts as far as its temperature allows.
    """
    ranges = [(path / "scaling_min_freq", path / "scaling_max_freq") for path in cpu(root)]
    devfreq = gpu(root)
    if devfreq:
        ranges.append((devfreq / "min_freq", devfreq / "max_freq"))
    told = [(machine.text(low), machine.text(high)) for low, high in ranges]
    known = [(low, high) for low, high in told if low and high]
    if not known:
        return None
    return "locked" if all(low == high for low, high in known) else "dynamic"
