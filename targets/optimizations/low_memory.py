"""Memory-efficient loading: shard by shard, placed by accelerate within the device's memory budget."""

from __future__ import annotations

from typing import Any

from targets.api import Device, Requirement
from targets.optimization import Optimization
from targets.registry import optimizations


class LowMemory(Optimization):
    """What the budget does not hold goes to the host's memory, and what that does not hold is refused by accelerate."""

    def torch_options(self, device: Device) -> dict[str, Any]:
        """Automatic placement, the budget as the bound; a Jetson's GPU has no memory beside the host's."""
        budget = f"{device.memory_budget_mb}MiB"
        bounds: dict[int | str, str] = {0: budget} if device.torch_device == "cuda" else {"cpu": budget}
        if device.kind == "cuda" and "host_memory_mb" in device.facts:
            bounds["cpu"] = f"{device.facts['host_memory_mb']}MiB"
        return {"low_cpu_mem_usage": True, "device_map": "auto", "max_memory": bounds}

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """The map that accelerate made."""
        found = "made" if getattr(module, "hf_device_map", None) else "none"
        return {**super().torch_proof(module), "device map": ("made", found)}

    def torch_details(self, module: Any) -> dict[str, Any]:
        """Where the parts of the model are."""
        return {"device_map": {name or "all": str(place) for name, place in module.hf_device_map.items()}}


optimizations.register("low-memory")(
    LowMemory(
        name="low-memory",
        group="loading",
        summary="loading by accelerate within the memory budget",
        backends=frozenset({"huggingface"}),
        families=frozenset({"causal"}),
        tasks=frozenset({"generation"}),
        requires=(Requirement("accelerate", "pip install '.[quantization]'"),),
        max_drop=0.0,
        min_agreement=1.0,
        logit_tolerance=1e-3,
        max_kl=1e-6,
    )
)
