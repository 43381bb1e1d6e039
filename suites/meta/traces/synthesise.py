"""Writes the traces beside it: `python -m suites.meta.traces.synthesise`. Nothing in them was measured.

A board like an Orin Nano decodes for three seconds: rail power, GPU load and clock, temperature, alerts, counters and
memory have the names and units of targets/probe.py and plausible sizes. Each trace but `clean` has one thing wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

HZ, SECONDS = 20, 3.0
TOLD = (
    "synthesised by suites/meta/traces/synthesise.py, not recorded: channels as targets/probe.py names them, sizes "
    "made up to resemble a Jetson Orin Nano that decodes"
)
LOAD_S, END_S = 0.5, 2.8
"""The GPU works from the one to the other; decode is timed within."""


def reading(second: float) -> dict[str, float]:
    """A board that works as it should; ripples keep any two readings apart."""
    ripple = math.sin(17 * second) + 0.3 * math.sin(41 * second)
    works = LOAD_S <= second <= END_S
    return {
        "power_w": (11.5 + 0.4 * ripple) if works else (5.1 + 0.05 * ripple),
        "gpu_mhz": 624.75 if works else 306.0,
        "gpu_max_mhz": 624.75,
        "gpu_load": (0.93 + 0.02 * ripple) if works else 0.0,
        "cpu_mhz": 1510.4,
        "emc_mhz": 2133.0,
        "temperature_c.gpu": 52.0 + 1.5 * second,
        "throttle.gpu": 0.0,
        "throttle.hot-surface": 0.0,
        "oc_events.oc1": 0.0,
        "oc_events.oc2": 0.0,
        "oc_events.oc3": 3.0 + math.floor(second),
        "memory_available_mb": 3100.0 - 20 * second,
        "swap_used_mb": 12.0,
        "swap_in_mb": 40.0,
        "cpu_busy_s": 500.0 + 1.1 * second,
        "cpu_steal_s": 0.0,
    }


Fault = Callable[[float, dict[str, float]], None]


def clean(_second: float, _values: dict[str, float]) -> None:
    """Nothing is wrong."""


def throttling(second: float, values: dict[str, float]) -> None:
    """From 1.2 s on the GPU is hot, its alert is up and its clock is down."""
    if second >= 1.2:
        values |= {"throttle.gpu": 1.0, "temperature_c.gpu": 97.5 + second, "gpu_mhz": 306.0}


def swapping(second: float, values: dict[str, float]) -> None:
    """Weights come back from swap while it decodes."""
    values["swap_in_mb"] = 40.0 + 35.0 * max(0.0, second - 1.0)
    values["swap_used_mb"] = 900.0


def over_current(second: float, values: dict[str, float]) -> None:
    """The supply trips twice."""
    values["oc_events.oc2"] = float(second >= 1.3) + float(second >= 2.1)


def missing_sensor(second: float, values: dict[str, float]) -> None:
    """The INA3221 is gone after 1.4 s."""
    if second >= 1.4:
        del values["power_w"]


def stuck_sensor(second: float, values: dict[str, float]) -> None:
    """The INA3221 repeats one value from the start of the load on."""
    if second >= LOAD_S:
        values["power_w"] = 7.25


def cpu_fallback(second: float, values: dict[str, float]) -> None:
    """The case was to run on the GPU, and the processor did the work."""
    values |= {"gpu_load": 0.0, "gpu_mhz": 306.0, "cpu_busy_s": 500.0 + 1.5 * second}


def foreign(second: float, values: dict[str, float]) -> None:
    """Another process keeps two cores busy."""
    values["cpu_busy_s"] = 500.0 + 3.1 * second


FAULTS: dict[str, Fault] = {
    "clean": clean,
    "throttling": throttling,
    "swapping": swapping,
    "over-current": over_current,
    "missing-sensor": missing_sensor,
    "stuck-sensor": stuck_sensor,
    "cpu-fallback": cpu_fallback,
    "foreign-load": foreign,
}


def lines(fault: Fault) -> list[str]:
    """The head and a row a sample."""
    busy = 1.5 if fault is cpu_fallback else 1.1
    decode = [["decode", round((0.6 + 0.5 * n) * 1e9), round((1.05 + 0.5 * n) * 1e9)] for n in range(4)]
    context: dict[str, Any] = {
        "cores": 6,
        "kind": "jetson",
        "own_cpu_s": busy * SECONDS - 0.1,
        "power_mode": "15W",
        "expected_mode": "15W",
        "gpu_asked": True,
        "energy_limited": True,
    }
    found: list[Any] = [{"told": TOLD, "hz": HZ, "spans": decode, "missing": {}, "context": context}]
    for index in range(int(SECONDS * HZ) + 1):
        values = reading(index / HZ)
        fault(index / HZ, values)
        found.append([round(index * 1e9 / HZ), {name: round(value, 4) for name, value in values.items()}])
    return [json.dumps(each) for each in found]


def main() -> None:
    """Write all of them."""
    for name, fault in FAULTS.items():
        Path(__file__).with_name(f"{name}.jsonl").write_text("\n".join(lines(fault)) + "\n")


if __name__ == "__main__":
    main()
