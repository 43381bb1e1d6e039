"""Models of the real shape with seeded random weights: what they say means nothing, how long they take does."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targets.api import Task, UserError

LONGEST = 512
"""Positions of both architectures, as published."""
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "distilbert-base": (
        "distilbert",
        {"vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072},
    ),
    "bert-base": (
        "bert",
        {
            "vocab_size": 30522,
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
    ),
}
"""Published dimensions (DistilBERT: Sanh et al. 2019; BERT: Devlin et al. 2019), by name of the configuration."""


def build(config: str, task: Task, seed: int, out: Path, donor: Path, sizes: Mapping[str, int] | None = None) -> None:
    """Write the model to `out`, whole or not at all.

    Args:
        config: a key of SHAPES.
        task: whose head the model gets.
        seed: of the weights; the same seed gives the same weights.
        out: the directory to make.
        donor: a model whose tokenizer and labels are used. Its token ids are below the shape's vocabulary size, and
            what a token is does not change how long it takes.
        sizes: dimensions that override the published ones.
    """
    import torch
    import transformers

    if config not in SHAPES:
        raise UserError(f"unknown architecture {config!r}; known: {', '.join(SHAPES)}")
    kind, shape = SHAPES[config]
    labels = {int(index): label for index, label in json.loads((donor / "config.json").read_text())["id2label"].items()}
    settings = transformers.AutoConfig.for_model(
        kind,
        **{**shape, **(sizes or {})},
        max_position_embeddings=LONGEST,
        id2label=labels,
        label2id={label: index for index, label in labels.items()},
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"AutoModelFor{task.head}").from_config(settings)
    tokenizer = transformers.AutoTokenizer.from_pretrained(donor, model_max_length=LONGEST, local_files_only=True)
    if kind == "bert":
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{config}-", dir=out.parent))
    try:
        model.save_pretrained(draft, safe_serialization=True)
        tokenizer.save_pretrained(draft)
        shutil.rmtree(out, ignore_errors=True)
        draft.replace(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
