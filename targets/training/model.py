"""A new DistilBERT of any size, started so that a narrow one learns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from targets.api import Task
from targets.training.settings import Settings


def new_model(task: Task, labels: Sequence[str], tokenizer: Any, settings: Settings) -> Any:
    """A DistilBERT of the wanted size with seeded random weights."""
    import torch
    import transformers

    names = {"num_labels": len(labels), "id2label": dict(enumerate(labels))} if labels else {}
    config = transformers.DistilBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=settings.max_length,
        dim=settings.hidden,
        n_layers=settings.layers,
        n_heads=settings.heads,
        hidden_dim=settings.feed_forward,
        attention_dropout=0.0,
        seq_classif_dropout=0.1,
        pad_token_id=tokenizer.pad_token_id,
        **names,
        **({"label2id": {label: index for index, label in enumerate(labels)}} if labels else {}),
    )
    model = getattr(transformers, f"AutoModelFor{task.head}").from_config(config)
    for name, weight in model.named_parameters():
        if name.endswith("weight") and weight.dim() == 2 and "embeddings" not in name:
            torch.nn.init.normal_(weight, std=settings.hidden**-0.5)  # BERT's 0.02 suits its width, not a small one
    place = model.distilbert.embeddings.position_embeddings.weight
    place.data.copy_(sinusoids(*place.shape) * config.initializer_range)
    return model


def sinusoids(positions: int, width: int) -> Any:
    """Sines and cosines of the position, (positions, width), of mean square 1 (Vaswani et al. 2017, section 3.5).

    A start from which a distance looks the same everywhere: learned from nothing, late positions never learn to look
    at their neighbours, because few texts are that long.
    """
    import torch

    angles = torch.arange(positions)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack((angles.sin(), angles.cos()), dim=2).reshape(positions, -1)[:, :width] * 2**0.5
