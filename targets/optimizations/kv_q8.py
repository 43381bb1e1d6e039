"""KV cache in 8 bits: half the memory that each token of context takes, where contexts are long and memory is short."""

from __future__ import annotations

from typing import Any

from targets.api import Device
from targets.optimization import Optimization
from targets.registry import optimizations

GGML_Q8_0 = 8
"""ggml's number of the type (ggml.h)."""


class KvQ8(Optimization):
    """Keys and values in Q8_0; llama.cpp quantizes values with flash attention only."""

    def llama_options(self, device: Device, layers: int) -> dict[str, Any]:
        """Both caches, and the attention that they need."""
        return {"type_k": GGML_Q8_0, "type_v": GGML_Q8_0, "flash_attn": True}


optimizations.register("kv-q8")(
    KvQ8(
        name="kv-q8",
        group="kv cache",
        summary="KV cache in 8 bits, weights in Q4_K_M (or a GGUF's own)",
        backends=frozenset({"llama-cpp-python"}),
        max_drop=0.076,  # of Q4_K_M and of Q8_0, whose rounding the cache has
        min_agreement=0.0,
        max_kl=0.066,
        families=frozenset({"causal"}),
        tasks=frozenset({"generation"}),
        formats=frozenset({"safetensors", "gguf"}),
        gguf_type="Q4_K_M",
    )
)
