"""Sensors of the first NVIDIA GPU on a card, by NVML (package nvidia-ml-py, module pynvml), imported when first read.

Units and functions: NVIDIA's NVML API reference. Never for a Jetson: there NVML opens and answers NotSupported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from targets import machine
from targets.probe import Reading

HINT = "NVML needs a module: pip install nvidia-ml-py"
REASONS = {
    "gpu_power_capped": 0x04,
    "throttle.hw-slowdown": 0x08,
    "throttle.sw-thermal": 0x20,
    "throttle.hw-thermal": 0x40,
    "throttle.hw-power-brake": 0x80,
}
"""Bits of nvmlClocksEventReasons. That the power limit holds the clock down is usual under full load on many cards, and
so no alert; no healthy run shows the others."""
FIELDS: Mapping[str, Callable[[Any, Any], float]] = {
    "power_w": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    "gpu_mhz": lambda nvml, gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
    "gpu_load": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    "gpu_memory_mb": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used / machine.MB,
    "temperature_c.gpu": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
}


def lowered(nvml: Any, gpu: Any) -> Reading:
    """For each reason whether it holds the clock down now, 1 or 0; one call tells all."""
    reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    return {channel: float(bool(reasons & bit)) for channel, bit in REASONS.items()}


CHANNELS = (*FIELDS, *REASONS)


class Nvml:
    """The channels of the first GPU, which is CUDA's default too."""

    channels: tuple[str, ...] = CHANNELS

    def __init__(self) -> None:
        self._nvml: Any = None
        self._gpu: Any = None

    def read(self) -> Reading:
        """Those channels that this GPU has. Raises ValueError where NVML or the GPU is not there."""
        if self._nvml is None:
            self._open()
        reading: Reading = {}
        trouble = None
        for channel, ask in FIELDS.items():
            try:
                reading[channel] = float(ask(self._nvml, self._gpu))
            except self._nvml.NVMLError as error:
                trouble = error
        try:
            reading.update(lowered(self._nvml, self._gpu))
        except self._nvml.NVMLError as error:
            trouble = error
        if trouble and not reading:
            raise ValueError(f"NVML: {trouble}")
        return reading

    def close(self) -> None:
        """Shut NVML down; the next read opens it again."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = self._gpu = None

    def _open(self) -> None:
        try:
            nvml = importlib.import_module("pynvml")
        except ModuleNotFoundError:
            raise ValueError(HINT) from None
        try:
            nvml.nvmlInit()
            self._gpu = nvml.nvmlDeviceGetHandleByIndex(0)
        except nvml.NVMLError as error:
            raise ValueError(f"NVML: {error}") from None
        self._nvml = nvml
