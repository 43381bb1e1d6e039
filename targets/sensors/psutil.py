"""Sensors of systems without /proc, as macOS: what psutil reads there without special rights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from targets import machine
from targets.probe import Reading


@dataclass(frozen=True)
class Call:
    """Channels that one call of psutil gives. Raises OSError as psutil does; None of it is a ValueError."""

    channels: tuple[str, ...]
    call: Callable[[], Reading]

    def read(self) -> Reading:
        """The channels now."""
        return self.call()

    def close(self) -> None:
        """There is nothing to give back."""


NOT_HERE = {"swap_in_mb": "this system counts pages read from files with those read from swap"}
"""Of macOS (psutil's documentation of swap_memory); a model that is mapped into memory would look like swapping."""


CHANNELS = ("cpu_busy_s", "context_switches", "memory_available_mb", "swap_used_mb", "cpu_mhz", "cpu_max_mhz")


def sensors() -> Iterator[Call]:
    """Processor time, context switches, memory, swap in use and, where the system tells it, the clock."""
    yield Call(("cpu_busy_s",), busy)
    yield Call(("context_switches",), lambda: {"context_switches": float(psutil.cpu_stats().ctx_switches)})
    yield Call(
        ("memory_available_mb",), lambda: {"memory_available_mb": psutil.virtual_memory().available / machine.MB}
    )
    yield Call(("swap_used_mb",), lambda: {"swap_used_mb": psutil.swap_memory().used / machine.MB})
    yield Call(("cpu_mhz", "cpu_max_mhz"), clock)


def busy() -> Reading:
    """CPU seconds of all cores in programs and in the kernel, interrupts included where they are told apart."""
    times = psutil.cpu_times()._asdict()
    return {"cpu_busy_s": float(sum(times.get(name, 0.0) for name in ("user", "nice", "system", "irq", "softirq")))}


def clock() -> Reading:
    """Raises ValueError where the system tells no clock, as on Apple's processors with an old psutil."""
    frequency = psutil.cpu_freq()
    if frequency is None:
        raise ValueError("this system tells no clock of its processor")
    return {"cpu_mhz": float(frequency.current), "cpu_max_mhz": float(frequency.max)}
