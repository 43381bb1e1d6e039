"""What jtop (jetson-stats, AGPL-3.0, an optional extra) knows of a live Jetson, for what sysfs does not show.

jtop's service refreshes its numbers once a second; they are late, which is why sysfs goes first. Fields and units: the
reference of class jtop, checked against jetson-stats 7.2.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from targets.probe import Reading

HINT = "jtop may know it: pip install jetson-stats, and its service must run"
INTERVAL_S = 1.0
"""jtop's default: a shorter one, where ours is its first client, makes its service take more of the board's CPU."""


def gpu_status(client: Any) -> Any:
    """The first GPU's entry, with `status` and `freq`."""
    return next(iter(client.gpu.values()))


FIELDS: Mapping[str, Callable[[Any], float]] = {
    "power_w": lambda client: client.power["tot"]["power"] / 1000,
    "gpu_load": lambda client: gpu_status(client)["status"]["load"] / 100,
    "gpu_mhz": lambda client: gpu_status(client)["freq"]["cur"] / 1000,
    "gpu_max_mhz": lambda client: gpu_status(client)["freq"]["max"] / 1000,
    "emc_mhz": lambda client: client.memory["EMC"]["cur"] / 1000,
    "nvmap_mb": lambda client: client.memory["RAM"]["shared"] / 1024,
}
"""How each channel is read from a connected client: powers in mW, loads in percent, clocks in kHz, memory in KB."""


class Jtop:
    """Channels of jtop's service; the connection is opened by the first read."""

    def __init__(self, channels: Iterable[str]) -> None:
        self.channels = tuple(channel for channel in channels if channel in FIELDS)
        self._client: Any = None

    def read(self) -> Reading:
        """What jtop last got of each channel. Raises ValueError where it knows none, or is not there."""
        client = self._connected()
        reading: Reading = {}
        for channel in self.channels:
            try:
                reading[channel] = float(FIELDS[channel](client))
            except (KeyError, TypeError, StopIteration):
                continue  # jtop leaves out, or gives None for, what it does not know of this board
        if not reading:
            raise ValueError("jtop does not know it either")
        return reading

    def close(self) -> None:
        """Leave the service; the next read connects again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> Any:
        if self._client is None:
            try:
                jtop = importlib.import_module("jtop")
            except ModuleNotFoundError:
                raise ValueError(HINT) from None
            client = jtop.jtop(interval=INTERVAL_S)
            try:
                client.start()
            except jtop.JtopException as error:
                raise ValueError(f"jtop: {error.args[0]}") from None
            self._client = client
        return self._client
