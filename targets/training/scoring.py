"""Scores of a trained model on held-out examples, by the task's own encoding, decoding and tallies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from targets.api import Example, Floats, Task
from targets.encoding import EncoderTask

BATCH = 32
"""Requests answered at once."""


def predict(task: EncoderTask, model: Any, tokenizer: Any, examples: Sequence[Example]) -> list[Any]:
    """The model's answers, in order."""
    import torch

    answers: list[Any] = []
    labels = model.config.id2label
    for begin in range(0, len(examples), BATCH):
        requests = [example.request for example in examples[begin : begin + BATCH]]
        encoded = task.encode(tokenizer, requests)
        with torch.inference_mode():
            output = model(**{name: torch.from_numpy(values) for name, values in encoded.features.items()})
        outputs: list[Floats] = [tensor.float().numpy() for tensor in output.to_tuple()]
        answers += task.decode(outputs, encoded, requests, labels)
    return answers


def scores(task: Task, examples: Sequence[Example], answers: Sequence[Any]) -> dict[str, dict[str, float]]:
    """The task's scores over all examples and over each slice."""
    labels = task.labels_of(examples)
    tallies = np.array([task.tally(e.gold, answer, labels) for e, answer in zip(examples, answers, strict=True)])
    groups = {"all": list(range(len(examples)))}
    for name in sorted({name for example in examples for name in example.slices}):
        groups[name] = [index for index, example in enumerate(examples) if name in example.slices]
    result = {}
    for name, members in groups.items():
        totals = task.totals_to_scores(tallies[members].sum(axis=0))
        result[name] = {"examples": len(members), **{score: round(float(value), 4) for score, value in totals.items()}}
    return result
