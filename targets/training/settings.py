"""The size of a model and the length of its training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from targets.api import UserError


class Usual(Protocol):
    """The usual settings of a head."""

    steps: int
    learning_rate: float
    noise: float
    lowercase: bool


@dataclass(frozen=True)
class Settings:
    """The size of the model and the length of its training. None: the head's usual value."""

    steps: int | None = None
    batch: int = 64
    learning_rate: float | None = None
    noise: float | None = None
    lowercase: bool | None = None
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    feed_forward: int = 384
    max_length: int = 128
    vocabulary: int = 3000
    seed: int = 0
    threads: int = 2
    device: str = "cpu"

    def with_defaults(self, head: Usual) -> Settings:
        """The same with every None filled in."""
        names = ("steps", "learning_rate", "noise", "lowercase")
        return replace(self, **{name: getattr(head, name) for name in names if getattr(self, name) is None})


def check(settings: Settings) -> None:
    """Refuse sizes that no model can have.

    Raises:
        UserError: names the option.
    """
    import torch

    rules = {
        f"--hidden {settings.hidden}: should be a multiple of --heads {settings.heads}": settings.hidden
        % settings.heads,
        f"--vocabulary {settings.vocabulary}: should be at least 170, to hold every letter": settings.vocabulary < 170,
        f"--max-length {settings.max_length}: should be at least 16 tokens": settings.max_length < 16,
        f"--learning-rate {settings.learning_rate}: should be above 0": (settings.learning_rate or 1) <= 0,
        f"--device {settings.device}: should be cpu or cuda": settings.device not in ("cpu", "cuda"),
        "--device cuda: PyTorch finds no CUDA device here": settings.device == "cuda" and not torch.cuda.is_available(),
    }
    for sentence, broken in rules.items():
        if broken:
            raise UserError(sentence)
