"""What a probe is: the sensors of a machine, read beside a run. One file a device kind in `targets/probes/`.

Channels, with their unit in the name (MB is 2**20 bytes; a counter only grows, and its difference is what counts):

- `power_w`: the board, or a discrete GPU; `power_w.RAIL`: one rail. `rapl_j`: energy of the CPU packages, a counter.
- `gpu_mhz`, `gpu_max_mhz` (what the power mode allows), `gpu_load` (0 to 1), `gpu_memory_mb`, `nvmap_mb`.
- `cpu_mhz`, `cpu_max_mhz` (each a mean over the online cores), `emc_mhz`, `emc_max_mhz` (the memory's clock).
- `temperature_c.ZONE`, `throttle.ALERT` (0 or 1), `gpu_power_capped` (0 or 1), `oc_events.NAME` (counter), `fan_pwm`.
- `memory_available_mb`, `swap_used_mb`, `swap_in_mb` (counter since boot).
- `cpu_busy_s`, `cpu_steal_s`, `context_switches`, `pressure_cpu_s`, `pressure_memory_s`, `pressure_io_s`: counters of
  the whole machine; seconds of all cores are added up, and a pressure is the time in which some task waited.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

Reading: TypeAlias = dict[str, float]
"""Values by channel at one moment; what cannot be read now is absent, never 0."""

TOTALS = ("rapl_j", "swap_in_mb", "context_switches", "cpu_busy_s", "cpu_steal_s")
PRESSURES = ("pressure_cpu_s", "pressure_memory_s", "pressure_io_s")
COUNTERS = frozenset({*TOTALS, *PRESSURES})
ASLEEP = frozenset({errno.EAGAIN, errno.EISDIR})
"""A sensor of a unit that is powered off answers EAGAIN, and wakes later. In a recorded tree, where a file cannot, a
directory in its place answers EISDIR and means the same."""


def is_counter(channel: str) -> bool:
    """Whether only the difference of two readings of this channel means something."""
    return channel in COUNTERS or channel.startswith("oc_events.")


class Probe(Protocol):
    """The sensors of one machine."""

    @property
    def channels(self) -> tuple[str, ...]:
        """What can be read here; a channel that sleeps now (see ASLEEP) is among them."""
        ...

    @property
    def missing(self) -> Mapping[str, str]:
        """Why each of the other channels that one would look for cannot be read, and what to do about it."""
        ...

    def read(self) -> Reading:
        """All channels now, but for those that fail now. Never raises for a sensor."""
        ...

    def close(self) -> None:
        """Give files and libraries back."""
        ...


ProbeFactory: TypeAlias = Callable[[Path], Probe]
"""Opens the probe of the machine below a root: `/`, or a recorded tree."""


class Sensor(Protocol):
    """One reading of one or several channels."""

    @property
    def channels(self) -> tuple[str, ...]:
        """What it would read."""
        ...

    def read(self) -> Reading:
        """Its channels now. Raises OSError or ValueError where there is no value, with the file in its words."""
        ...

    def close(self) -> None:
        """Give its files back."""
        ...


class Sensors:
    """A probe made of sensors. Each is tried once; of two for one channel, the first that can be read gives it.

    `missing` holds reasons that are known beforehand.
    """

    def __init__(self, sensors: Iterable[Sensor], missing: Mapping[str, str] | None = None) -> None:
        self._sensors: list[Sensor] = []
        self._channels: dict[str, None] = {}
        self._missing = dict(missing or {})
        self.add(sensors)

    def add(self, sensors: Iterable[Sensor]) -> None:
        """Try more sensors, for what is still missing."""
        for sensor in sensors:
            self._try(sensor)

    def _try(self, sensor: Sensor) -> None:
        if self._channels.keys() >= set(sensor.channels):
            sensor.close()
            return
        readable: Iterable[str] = ()
        reason = "there is no such value in it"
        try:
            readable = sensor.read()
        except (OSError, ValueError) as error:
            reason = explain(error)
            readable = sensor.channels if isinstance(error, OSError) and error.errno in ASLEEP else ()
        for channel in sensor.channels:
            if channel in readable:
                self._channels[channel] = None
            elif channel not in self._channels:
                self._missing[channel] = "; ".join(filter(None, (self._missing.get(channel), reason)))
        if readable:
            self._sensors.append(sensor)
        else:
            sensor.close()

    @property
    def channels(self) -> tuple[str, ...]:
        """What can be read here."""
        return tuple(self._channels)

    @property
    def missing(self) -> Mapping[str, str]:
        """Why the others cannot; a channel that a later sensor gave is not missing."""
        return {channel: reason for channel, reason in self._missing.items() if channel not in self._channels}

    def read(self) -> Reading:
        """All channels now."""
        reading: Reading = {}
        for sensor in self._sensors:
            try:
                reading.update(sensor.read())
            except (OSError, ValueError):
                continue  # absent: whoever looks at coverage sees it
        return reading

    def close(self) -> None:
        """Close every sensor; reading afterwards opens them again."""
        for sensor in self._sensors:
            sensor.close()


def explain(error: OSError | ValueError) -> str:
    """Why a sensor has no value, with the file, and the remedy where it is a matter of rights."""
    if not isinstance(error, OSError):
        return str(error)
    said = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
    return f"{said}; only root may read it" if error.errno in (errno.EACCES, errno.EPERM) else said
