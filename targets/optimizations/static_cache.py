"""A static KV cache: allocated once at its full length, so that decoding compiles into one graph (CUDA graphs)."""

from __future__ import annotations

from typing import Any

from targets.optimization import Optimization
from targets.registry import optimizations


class StaticCache(Optimization):
    """Transformers compiles the decoding step by itself where the cache is static and the device a GPU."""

    def generate_options(self, model: Any) -> dict[str, Any]:
        """Shapes that do not change."""
        return {"cache_implementation": "static"}

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """The kind of cache that the last answer left, and the graph that Dynamo captured."""
        from torch._dynamo.utils import counters

        kind = type(getattr(module, "_cache", None)).__name__
        graph = "compiled" if counters["stats"]["unique_graphs"] else "eager"
        return {**super().torch_proof(module), "cache": ("StaticCache", kind), "graph": ("compiled", graph)}


optimizations.register("static-cache")(
    StaticCache(
        name="static-cache",
        group="cache",
        summary="static KV cache and compiled decoding",
        backends=frozenset({"huggingface"}),
        families=frozenset({"causal"}),
        tasks=frozenset({"generation"}),
        kinds=frozenset({"jetson", "cuda"}),
        needs=frozenset({"cuda"}),
        max_drop=0.0,
        min_agreement=1.0,
        logit_tolerance=1e-3,
        max_kl=1e-5,
    )
)
