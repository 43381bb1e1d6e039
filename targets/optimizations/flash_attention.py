"""FlashAttention 2 (Dao 2023), by the package flash-attn, in half precision."""

from __future__ import annotations

from typing import Any

from targets.api import Device, Requirement
from targets.optimization import Optimization
from targets.registry import optimizations


class FlashAttention(Optimization):
    """The package's own kernel, and not SDPA's of that name: SDPA takes it only where no mask is given, in silence."""

    def unavailable(self, device: Device) -> str | None:
        """The profile says which boards it is for."""
        if not device.flash_attention:
            return f"{self.name} is not offered by the profile of {device.name}"
        return super().unavailable(device)

    def torch_options(self, device: Device) -> dict[str, Any]:
        """The package's kernel."""
        return {"attn_implementation": "flash_attention_2"}

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """What the model's configuration says it uses."""
        found = str(module.config._attn_implementation)
        return {**super().torch_proof(module), "attention": ("flash_attention_2", found)}


optimizations.register("flash-attention")(
    FlashAttention(
        name="flash-attention",
        group="attention",
        summary="FlashAttention 2 in half precision",
        backends=frozenset({"huggingface"}),
        families=frozenset({"causal"}),
        tasks=frozenset({"generation"}),
        kinds=frozenset({"jetson", "cuda"}),
        needs=frozenset({"cuda", "half"}),
        requires=(
            Requirement("flash_attn", "pip install flash-attn --no-build-isolation (on a Jetson: NVIDIA's wheel)"),
        ),
        dtype="float16",
        max_drop=0.01,
        min_agreement=0.0,
        max_kl=1e-3,
    )
)
