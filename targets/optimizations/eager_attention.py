"""Eager attention: the scores matrix written out, against Transformers' default, PyTorch's fused attention (SDPA)."""

from __future__ import annotations

from typing import Any

from targets.api import Device
from targets.optimization import Optimization
from targets.registry import optimizations


class EagerAttention(Optimization):
    """Shows what fused attention saves."""

    def torch_options(self, device: Device) -> dict[str, Any]:
        """Transformers' own implementation."""
        return {"attn_implementation": "eager"}

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """What the model's configuration says it uses."""
        return {**super().torch_proof(module), "attention": ("eager", str(module.config._attn_implementation))}


optimizations.register("eager-attention")(
    EagerAttention(
        name="eager-attention",
        group="attention",
        summary="attention without a fused kernel",
        backends=frozenset({"huggingface"}),
        families=frozenset({"causal"}),
        tasks=frozenset({"generation"}),
        max_drop=0.0,
        min_agreement=1.0,
        logit_tolerance=1e-3,
        max_kl=1e-6,
    )
)
