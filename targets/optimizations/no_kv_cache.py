"""No KV cache: every step reads the whole text again. It shows what the cache is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from targets.optimization import Optimization
from targets.registry import optimizations


class NoKvCache(Optimization):
    """The same arithmetic, done anew for every token: the text must not change."""

    def rewrite_torch(self, model: Any, features: Mapping[str, Any]) -> Any:
        """Note of each pass whether it was given a cache."""
        model.passes_with_cache = 0

        def note(module: Any, _: Any, named: Mapping[str, Any]) -> None:
            module.passes_with_cache += named.get("past_key_values") is not None

        model.register_forward_pre_hook(note, with_kwargs=True)
        return model

    def generate_options(self, model: Any) -> dict[str, Any]:
        """Without a cache."""
        return {"use_cache": False}

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """No pass was given a cache."""
        found = f"used in {module.passes_with_cache} passes" if module.passes_with_cache else "unused"
        return {**super().torch_proof(module), "KV cache": ("unused", found)}


optimizations.register("no-kv-cache")(
    NoKvCache(
        name="no-kv-cache",
        group="cache",
        summary="generation without a KV cache",
        backends=frozenset({"huggingface"}),
        families=frozenset({"causal"}),
        tasks=frozenset({"generation"}),
        max_drop=0.0,
        min_agreement=1.0,
        logit_tolerance=1e-3,
        max_kl=1e-6,
    )
)
