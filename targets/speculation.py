"""Speculative decoding in Transformers: how many drafted tokens are accepted, and a draft of a model's own layers."""

from __future__ import annotations

import copy
from typing import Any

DRAFTED = 5
"""Tokens a draft model proposes at a time, held constant, so that no call depends on an earlier one."""


class Acceptance:
    """Counts over all calls of `generate` since the model was loaded. `kind`: the class that proposed last."""

    def __init__(self) -> None:
        self.kind = "none yet"
        self.rounds = 0
        self.drafted = 0
        self.accepted = 0

    def as_json(self) -> dict[str, Any]:
        """The counts, and the share of drafted tokens that were accepted (None where none were drafted)."""
        rate = self.accepted / self.drafted if self.drafted else None
        return {"rounds": self.rounds, "drafted": self.drafted, "accepted": self.accepted, "rate": rate}

    def watch(self, model: Any) -> None:
        """Count what passes between `generate` and the generators of candidates it makes for a model.

        Candidates are cut to the length asked for: those that Transformers 4.57 looks up may pass it, and come out as
        tokens too many.
        """
        make = model._get_candidate_generator  # the only place that all kinds of speculation come through

        def watched(*arguments: Any, **named: Any) -> Any:
            return self._wrapped(make(*arguments, **named))

        model._get_candidate_generator = watched
        model.acceptance = self

    def _wrapped(self, generator: Any) -> Any:
        self.kind = type(generator).__name__
        propose, learn = generator.get_candidates, generator.update_candidate_strategy

        def get_candidates(input_ids: Any) -> Any:
            candidates, logits = propose(input_ids)
            longest = getattr(generator, "max_length", None)
            if longest is not None and logits is None:
                candidates = candidates[:, : max(longest - 1, input_ids.shape[1])]
            self.rounds += 1
            self.drafted += candidates.shape[1] - input_ids.shape[1]
            return candidates, logits

        def update_candidate_strategy(input_ids: Any, scores: Any, num_matches: Any) -> None:
            self.accepted += int(num_matches)
            learn(input_ids, scores, num_matches)

        generator.get_candidates, generator.update_candidate_strategy = get_candidates, update_candidate_strategy
        return generator


def first_half(model: Any) -> Any:
    """A model of the first half of a model's layers (at least one) with its embeddings and head, all weights shared.

    What such a draft is worth without training it for the purpose is what the acceptance rate tells.
    """
    from transformers.modeling_utils import no_init_weights

    config = copy.deepcopy(model.config)
    config.num_hidden_layers = max(1, config.num_hidden_layers // 2)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    with no_init_weights():
        draft = type(model)(config).to(model.dtype).to(model.device).eval()
    missing = draft.load_state_dict(model.state_dict(), strict=False, assign=True).missing_keys
    assert not missing, f"the draft has weights that the model has not: {missing}"
    settings = draft.generation_config
    settings.num_assistant_tokens, settings.num_assistant_tokens_schedule = DRAFTED, "constant"
    settings.assistant_confidence_threshold = None
    return draft
