"""Answers of a trained generator on held-out examples, as the suite itself would get them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from targets.api import Answer, Evidence, Example
from targets.generation import GeneratorTask
from targets.transformers_generator import TransformersGenerator

BATCH = 32
"""Requests answered at once."""


def answers_of(task: GeneratorTask, model: Any, tokenizer: Any, examples: Sequence[Example]) -> list[Answer]:
    """Greedy answers, in order; those of the task `generation` with the likelihood of the example's own text."""
    runner = TransformersGenerator(
        task=task, model=model, tokenizer=tokenizer, options={}, evidence=lambda: Evidence({}, {}), close=lambda: None
    )
    requests = [example.request for example in examples]
    found = [answer for at in range(0, len(requests), BATCH) for answer in runner.run(requests[at : at + BATCH])]
    if "perplexity" in {score.name for score in task.scores}:
        found = [{**answer, **likelihood(runner, example)} for answer, example in zip(found, examples, strict=True)]
    return found


def likelihood(runner: TransformersGenerator, example: Example) -> dict[str, float]:
    """`nll`, in nats, and `scored_tokens` of the whole text: every token but the first."""
    request = {"prompt": f"{example.request['prompt']} {example.gold}".strip()}
    ids = np.array(runner.tokens({**request, "max_tokens": 1}))
    logits = runner.logits([request])[0][0][:-1].astype(np.float64)
    chosen = logits[np.arange(len(ids) - 1), ids[1:]]
    top = logits.max(axis=-1)
    nll = float((top + np.log(np.exp(logits - top[:, None]).sum(axis=-1)) - chosen).sum())
    return {"nll": nll, "scored_tokens": len(ids) - 1}
