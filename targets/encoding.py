"""What encoder tasks share: from a tokenizer's rows to model features, and from logits to probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from targets.api import Encoded, Floats, Request, Tokenizer

LONGEST = 512
"""Encoders here read at most this many tokens; a tokenizer that states no length gets it."""


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
