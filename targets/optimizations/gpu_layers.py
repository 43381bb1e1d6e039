"""Offloading to the GPU: how much each further quarter of the layers brings, on devices that have one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from targets.api import Device
from targets.optimization import Optimization
from targets.registry import optimizations


@dataclass(frozen=True, kw_only=True)
class GpuLayers(Optimization):
    """A share of the layers on the GPU; with all of them goes the output, which llama.cpp counts as one more."""

    share: float

    def llama_options(self, device: Device, layers: int) -> dict[str, Any]:
        """At least one layer unless none is wanted."""
        if self.share == 1:
            return {"n_gpu_layers": layers + 1}
        return {"n_gpu_layers": max(1, round(self.share * layers)) if self.share else 0}


for name, share, summary in (
    ("gpu-0", 0.0, "no layer on the GPU"),
    ("gpu-quarter", 0.25, "a quarter of the layers on the GPU"),
    ("gpu-half", 0.5, "half of the layers on the GPU"),
    ("gpu-all", 1.0, "all layers and the output on the GPU"),
):
    optimizations.register(name)(
        GpuLayers(
            name=name,
            group="offload",
            summary=f"{summary}, weights in Q4_K_M (or a GGUF's own)",
            backends=frozenset({"llama-cpp-python"}),
            max_drop=0.056,  # that of Q4_K_M: where it is computed changes no more than rounding
            min_agreement=0.0,
            max_kl=0.063,
            kinds=frozenset({"jetson", "cuda"}),
            families=frozenset({"causal"}),
            tasks=frozenset({"generation"}),
            formats=frozenset({"safetensors", "gguf"}),
            gguf_type="Q4_K_M",
            share=share,
        )
    )
