"""What encoder tasks share: from a tokenizer's rows to model features, and from logits to probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from targets.api import Answer, Floats, Labels, Request, Task

LONGEST = 512
"""Encoders here read at most this many tokens; a tokenizer that states no length gets it."""


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that tasks use."""

    model_max_length: int
    model_input_names: list[str]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A BatchEncoding; see transformers.PreTrainedTokenizerFast.__call__."""
        ...


@dataclass(frozen=True)
class Encoded:
    """A batch ready for a model.

    `features`: int64 arrays (rows, sequence length) by model input name, `attention_mask` among them. `owner`: for each
    row, the index of its request (question answering cuts one request into several rows). `tokens` and `truncated`: per
    request. `rows`: what the tokenizer knows of each row (tokenizers.Encoding), for tasks that quote the text.
    """

    features: Mapping[str, NDArray[np.int64]]
    owner: Sequence[int]
    tokens: Sequence[int]
    truncated: Sequence[bool]
    rows: Sequence[Any]


@runtime_checkable
class EncoderTask(Task, Protocol):
    """A task that one forward pass answers."""

    fields: tuple[str, ...]
    """The keys of a request, each a string; the last one is the one that may be long."""
    per_token: bool
    """Whether each output has one row of numbers per token (else one per input row)."""

    def encode(self, tokenizer: Tokenizer, requests: Sequence[Request]) -> Encoded:
        """Tokenize a batch; longer inputs than the model reads are cut by tokens and say so, or windowed."""
        ...

    def decode(
        self, outputs: Sequence[Floats], encoded: Encoded, requests: Sequence[Request], labels: Labels
    ) -> list[Answer]:
        """Turn the model's outputs (one array a head, each (rows, ...)) into one answer per request, in order."""
        ...


def as_encoder(task: Task) -> EncoderTask:
    """The task, known to be an encoder's."""
    assert isinstance(task, EncoderTask), f"{task.name} is of the family {task.family}"
    return task


def max_length(tokenizer: Tokenizer, cap: int = LONGEST) -> int:
    """Tokens the model reads, special tokens included."""
    return min(tokenizer.model_max_length, cap)


def encode_texts(tokenizer: Tokenizer, requests: Sequence[Request]) -> Encoded:
    """One row a text, padded to the batch's longest, cut by tokens where the model reads no more."""
    batch = tokenizer(
        [request["text"] for request in requests], truncation=True, max_length=max_length(tokenizer), padding=True
    )
    rows = batch.encodings
    return Encoded(
        features=features(tokenizer, rows),
        owner=range(len(rows)),
        tokens=[sum(row.attention_mask) for row in rows],
        truncated=[bool(row.overflowing) for row in rows],
        rows=rows,
    )


def features(tokenizer: Tokenizer, rows: Sequence[Any]) -> dict[str, Any]:
    """The arrays that the model takes, each (rows, sequence length) int64."""
    values = {
        "input_ids": [row.ids for row in rows],
        "attention_mask": [row.attention_mask for row in rows],
    }
    if "token_type_ids" in tokenizer.model_input_names:
        values["token_type_ids"] = [row.type_ids for row in rows]
    return {name: np.array(value, dtype=np.int64) for name, value in values.items()}


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis, same shape, in float64. NaN stays NaN, so that the laws can see it."""
    exact = logits.astype(np.float64)
    raised = np.exp(exact - exact.max(axis=-1, keepdims=True))
    result: Floats = raised / raised.sum(axis=-1, keepdims=True)
    return result


def safe_ratio(numerator: Floats, denominator: Floats, empty: float = 0.0) -> Floats:
    """Numerator / denominator elementwise, `empty` where the denominator is 0."""
    result: Floats = np.where(denominator == 0, empty, numerator / np.where(denominator == 0, 1, denominator))
    return result
