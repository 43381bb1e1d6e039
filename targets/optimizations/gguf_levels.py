"""The quantization levels of GGUF files, from single precision to two bits, each made by llama.cpp's own quantizer.

What a level may cost is twice what llama.cpp's authors measured for Llama 3 8B on Wikitext-2 (their table is in
tools/perplexity/README.md: KL divergence from FP16 without an importance matrix, and growth of perplexity), and no less
than a fiftieth of the score for 8 to 5 bits, where a single answer more or less is as much:

    level      Q8_0     Q6_K     Q5_K_M   Q4_K_M   Q4_0     Q3_K_M   Q2_K
    KL         0.00136  0.00545  0.0108   0.0313   0.0719   0.102    0.445
    growth     0.0004   0.0035   0.0091   0.028    0.075    0.105    0.565

FP16 against BF16 there: KL 0.000025; four times that is allowed. Single precision is exact: here KL 3e-13 to 3e-11
against PyTorch, if the KV cache is in single precision too (in FP16, llama.cpp's default: 7e-8 to 5e-6).
"""

from __future__ import annotations

from typing import Any

from targets.api import Device
from targets.optimization import Optimization
from targets.registry import optimizations

EVERY = frozenset({"llama-cpp-python", "llama-server", "openai", "ollama"})
"""The engines of the levels that people deploy most; the whole ladder is climbed once, in process."""
ONE = frozenset({"llama-cpp-python"})
GGML_F32 = 0
"""ggml's number of the type (ggml.h)."""


class GgufLevel(Optimization):
    """Weights at one level; activations as llama.cpp computes them."""


class SinglePrecision(GgufLevel):
    """Weights, KV cache and attention in single precision: what the other levels lose is lost against this."""

    def llama_options(self, device: Device, layers: int) -> dict[str, Any]:
        """Flash attention on CPUs computes in half precision whatever the cache holds, so it is off."""
        return {"type_k": GGML_F32, "type_v": GGML_F32, "flash_attn": False}


for level, kind, backends, max_kl, max_drop, min_agreement, summary in (
    ("F32", SinglePrecision, ONE, 1e-6, 1e-4, 1.0, "GGUF in single precision, KV cache too"),
    ("F16", GgufLevel, EVERY, 1e-4, 0.01, 0.95, "GGUF in half precision"),
    ("Q8_0", GgufLevel, ONE | {"ollama"}, 0.003, 0.02, 0.0, "GGUF, 8.5 bits a weight"),
    ("Q6_K", GgufLevel, ONE, 0.011, 0.02, 0.0, "GGUF, 6.6 bits a weight"),
    ("Q5_K_M", GgufLevel, ONE, 0.022, 0.02, 0.0, "GGUF, 5 bits and 6 where it matters more"),
    ("Q4_K_M", GgufLevel, EVERY, 0.063, 0.056, 0.0, "GGUF, 4 bits and 6 where it matters more"),
    ("Q4_0", GgufLevel, ONE, 0.144, 0.15, 0.0, "GGUF, 4.5 bits a weight, the plainest and often fastest"),
    ("Q3_K_M", GgufLevel, ONE, 0.204, 0.21, 0.0, "GGUF, 3 bits and 4 or 5 where it matters more"),
    ("Q2_K", GgufLevel, ONE, 0.89, 1.0, 0.0, "GGUF, 2 bits and 3 or 4 where it matters more"),
):
    optimizations.register(level.lower())(
        kind(
            name=level.lower(),
            group="gguf",
            summary=summary,
            backends=backends,
            max_drop=max_drop,
            min_agreement=min_agreement,
            max_kl=max_kl,
            families=frozenset({"causal"}),
            tasks=frozenset() if len(backends) > 1 else frozenset({"generation"}),
            gguf_type=level,
        )
    )
