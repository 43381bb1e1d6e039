"""What a model learns from a labelled example: one object a head, with its targets, its loss and its usual settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from targets.api import Example, Task, UserError
from targets.registry import did_you_mean

IGNORED = -100
"""The target of a token that teaches nothing (cross-entropy's own convention)."""
Row = Mapping[str, NDArray[np.int64]]


class Head(Protocol):
    """How one kind of model is trained. `noise` is the share of tokens masked while training."""

    steps: int
    learning_rate: float
    noise: float
    lowercase: bool

    def labels(self, task: Task, examples: Sequence[Example]) -> list[str]:
        """The names of the model's outputs, in order; empty where outputs are positions."""
        ...

    def targets(self, example: Example, row: Any, labels: Sequence[str]) -> Row:
        """Arrays by name, each (sequence length,) or (1,), for one row of the tokenizer (tokenizers.Encoding)."""
        ...

    def loss(self, output: Any, targets: Mapping[str, Any]) -> Any:
        """The mean loss of a batch: a scalar tensor."""
        ...


class SequenceClassification:
    """One label a text."""

    steps, learning_rate, noise, lowercase = 2800, 1e-3, 0.0, True

    def labels(self, task: Task, examples: Sequence[Example]) -> list[str]:
        """The labels that occur."""
        found = list(task.labels_of(examples))
        if len(found) < 2:
            raise UserError(f"{task.name}: the training data has one label only ({', '.join(found)}); two are needed")
        return found

    def targets(self, example: Example, row: Any, labels: Sequence[str]) -> Row:
        """The label's index."""
        return {"label": np.array([labels.index(example.gold)])}

    def loss(self, output: Any, targets: Mapping[str, Any]) -> Any:
        """Cross-entropy."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(output.logits, targets["label"][:, 0])


class TokenClassification:
    """One BIO tag a word, taught at the word's first token."""

    steps, learning_rate, noise, lowercase = 900, 2e-3, 0.05, False

    def labels(self, task: Task, examples: Sequence[Example]) -> list[str]:
        """O, then B and I of each entity type that occurs."""
        kinds = task.labels_of(examples)
        if not kinds:
            raise UserError(f"{task.name}: the training data has no entity, only O tags; use tags such as B-PER, I-PER")
        return ["O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")]

    def targets(self, example: Example, row: Any, labels: Sequence[str]) -> Row:
        """The tag's index at each first token of a word of the tokenizer, which may be a part of the data's word."""
        owner = [index for index, word in enumerate(example.gold["words"]) for _ in f"{word} "]
        result = np.full(len(row.ids), IGNORED)
        last = None
        for index, (word, (start, _)) in enumerate(zip(row.word_ids, row.offsets, strict=True)):
            if word is not None and word != last:
                tag = example.gold["tags"][owner[start]]
                inside = start > 0 and owner[start - 1] == owner[start]
                result[index] = labels.index(f"I-{tag[2:]}" if inside and tag != "O" else tag)
            last = word
        return {"tags": result}

    def loss(self, output: Any, targets: Mapping[str, Any]) -> Any:
        """Cross-entropy over the taught tokens."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(output.logits.flatten(0, 1), targets["tags"].flatten(), ignore_index=IGNORED)


class QuestionAnswering:
    """The first and last token of the answer, or neither where a window of a long context does not hold it.

    "Neither" is a constant logit of 0 beside those of the context's tokens. It makes logits comparable between the
    windows of one context: the answer's lie above 0, all others below.
    """

    steps, learning_rate, noise, lowercase = 2200, 2e-3, 0.0, True

    def labels(self, task: Task, examples: Sequence[Example]) -> list[str]:
        """Positions have no names."""
        return []

    def targets(self, example: Example, row: Any, labels: Sequence[str]) -> Row:
        """`inside`: 1 at tokens of the context. `span`: first and last token of the answer, or twice IGNORED."""
        first = example.gold["starts"][0]
        last = first + len(example.gold["answers"][0]) - 1
        inside = np.array([kind == 1 for kind in row.sequence_ids], dtype=np.int64)
        ends = [
            index
            for char in (first, last)
            for index, (start, end) in enumerate(row.offsets)
            if inside[index] and start <= char < end
        ]
        return {"inside": inside, "span": np.array(ends if len(ends) == 2 else [IGNORED, IGNORED])}

    def loss(self, output: Any, targets: Mapping[str, Any]) -> Any:
        """Cross-entropy of both ends over the context's tokens and "neither"."""
        from torch import cat, where
        from torch.nn.functional import cross_entropy

        losses = []
        for side, logits in enumerate((output.start_logits, output.end_logits)):
            allowed = logits.masked_fill(targets["inside"] == 0, float("-inf"))
            wanted = targets["span"][:, side]
            neither = wanted == IGNORED
            wanted = where(neither, logits.shape[1], wanted)
            losses.append(cross_entropy(cat([allowed, logits.new_zeros(len(logits), 1)], dim=1), wanted))
        return sum(losses) / 2


HEADS: Mapping[str, Head] = {
    "SequenceClassification": SequenceClassification(),
    "TokenClassification": TokenClassification(),
    "QuestionAnswering": QuestionAnswering(),
}


def head_of(task: Task) -> Head:
    """The head that the task's models have.

    Raises:
        UserError: there is no recipe for it.
    """
    if task.head not in HEADS:
        raise UserError(
            f"task {task.name!r} cannot be trained: no recipe for {task.head}.{did_you_mean(task.head, HEADS)}"
        )
    return HEADS[task.head]
