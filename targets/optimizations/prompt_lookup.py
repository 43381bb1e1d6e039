"""Prompt lookup: speculative decoding whose drafts are copied from the text so far (Saxena 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from targets.api import Device
from targets.optimization import Optimization
from targets.registry import optimizations
from targets.speculation import Acceptance

DRAFTED = 10
"""Tokens copied at a time: Transformers' and llama-cpp-python's own default."""


class PromptLookup(Optimization):
    """After the last tokens' earlier occurrence, what followed it then is proposed now, and verified in one pass."""

    def rewrite_torch(self, model: Any, features: Mapping[str, Any]) -> Any:
        """Count what is accepted."""
        Acceptance().watch(model)
        return model

    def generate_options(self, model: Any) -> dict[str, Any]:
        """As many tokens as are copied at a time."""
        return {"prompt_lookup_num_tokens": DRAFTED}

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """The candidates of the last answer were looked up."""
        return {**super().torch_proof(module), "drafts": ("PromptLookupCandidateGenerator", module.acceptance.kind)}

    def torch_details(self, module: Any) -> dict[str, Any]:
        """The acceptance rate."""
        return {"acceptance": module.acceptance.as_json()}

    def llama_options(self, device: Device, layers: int) -> dict[str, Any]:
        """The same length for llama.cpp's binding."""
        return {"draft_model_tokens": DRAFTED}


optimizations.register("prompt-lookup")(
    PromptLookup(
        name="prompt-lookup",
        group="speculative",
        summary="speculative decoding, drafts looked up in the text so far",
        backends=frozenset({"huggingface", "llama-cpp-python"}),
        families=frozenset({"causal"}),
        tasks=frozenset({"generation"}),
        rows=1,
        max_drop=1e-3,  # llama.cpp verifies with F16 weights, whose perplexity is not quite FP32's
        min_agreement=1.0,
        max_kl=1e-4,
    )
)
