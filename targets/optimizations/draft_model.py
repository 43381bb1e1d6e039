"""A draft model: speculative decoding (Leviathan et al. 2023) whose drafts come from the model's own first layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from targets.optimization import Optimization
from targets.registry import optimizations
from targets.speculation import Acceptance, first_half


class DraftModel(Optimization):
    """The first half of the layers drafts, the whole model verifies: any model has such a draft, of its own tokenizer.

    It shares every weight, so it costs a KV cache and no more. A draft trained for it would be accepted more often.
    """

    def rewrite_torch(self, model: Any, features: Mapping[str, Any]) -> Any:
        """Count what is accepted."""
        Acceptance().watch(model)
        return model

    def generate_options(self, model: Any) -> dict[str, Any]:
        """The draft, made once."""
        return {"assistant_model": first_half(model)}

    def torch_proof(self, module: Any) -> dict[str, tuple[str, str]]:
        """The candidates of the last answer were drafted by a model."""
        return {**super().torch_proof(module), "drafts": ("AssistedCandidateGenerator", module.acceptance.kind)}

    def torch_details(self, module: Any) -> dict[str, Any]:
        """The acceptance rate."""
        return {"acceptance": module.acceptance.as_json()}


optimizations.register("draft-model")(
    DraftModel(
        name="draft-model",
        group="speculative",
        summary="speculative decoding, drafts by the model's own first half of layers",
        backends=frozenset({"huggingface"}),
        families=frozenset({"causal"}),
        tasks=frozenset({"generation"}),
        rows=1,
        max_drop=0.0,
        min_agreement=1.0,
        max_kl=1e-6,
    )
)
