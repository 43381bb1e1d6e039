"""Generation: a prompt in, its continuation out; judged by likelihood, and beside the reference token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from targets.api import Answer, Example, Floats, Request, Score
from targets.generation import required
from targets.generation_formats import read_continuations
from targets.registry import tasks
from targets.text_task import TextTask


class Generation(TextTask):
    """Scored by perplexity: the exponential of the mean negative log-likelihood a token of the examples' own texts.

    There is no single right continuation, so what a model makes of a prompt is compared with the reference's only.
    """

    name = "generation"
    family = "causal"
    head = "CausalLM"
    architectures: tuple[str, ...] = ("ForCausalLM", "LMHeadModel")
    primary = "perplexity"
    scores: tuple[Score, ...] = (Score("perplexity", higher_is_better=False, top=None),)
    max_tokens = 48

    def read(self, path: Path) -> list[Example]:
        """Text, or jsonl of prompts with continuations."""
        return read_continuations(path)

    def ask(self, text: str) -> Request:
        """The text as prompt."""
        return {"prompt": text}

    def prompt(self, request: Request) -> str:
        """The prompt as it is."""
        return required(request, "prompt")

    def tally(self, gold: str, answer: Answer, labels: Sequence[str]) -> tuple[float, ...]:
        """(sum of negative log-likelihoods, tokens they are of), which the harness has put into the answer."""
        return float(answer.get("nll", 0.0)), float(answer.get("scored_tokens", 0))

    def totals_to_scores(self, totals: Floats) -> dict[str, Floats]:
        """Perplexity, NaN where nothing was scored."""
        tokens = np.where(totals[..., 1] == 0, np.nan, totals[..., 1])
        return {"perplexity": np.exp(totals[..., 0] / tokens)}


tasks.register("generation")(Generation())
