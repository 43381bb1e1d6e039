"""Sentiment: which label a text carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from targets.api import Answer, Example, Floats, Labels, Request, Score
from targets.encoding import Encoded, Tokenizer, encode_texts, safe_ratio, softmax
from targets.formats import read_labelled_text
from targets.labels import match
from targets.registry import tasks

SYNONYMS = {"pos": "positive", "neg": "negative", "neu": "neutral"}
BINARY = {"0": "negative", "1": "positive"}
"""What GLUE's SST-2 and IMDB mean by 0 and 1; three or more numbered labels have no such convention."""


def canonical(label: str, count: int) -> str:
    """The form in which two names of one label are equal; `count` is how many labels its side has."""
    form = label.strip().lower().removeprefix("label_")
    form = SYNONYMS.get(form, form)
    return BINARY.get(form, form) if count == 2 else form


class Sentiment:
    """A text in, one label with the probabilities of all out."""

    name = "sentiment"
    family = "encoder"
    head = "SequenceClassification"
    architectures: tuple[str, ...] = ("ForSequenceClassification",)
    primary = "accuracy"
    scores: tuple[Score, ...] = (Score("accuracy"), Score("f1"))
    fields: tuple[str, ...] = ("text",)
    per_token = False

    def read(self, path: Path) -> list[Example]:
        """Csv, tsv or jsonl of texts and labels."""
        return read_labelled_text(path)

    def ask(self, text: str) -> Request:
        """The same text in every field."""
        return dict.fromkeys(self.fields, text)

    def encode(self, tokenizer: Tokenizer, requests: Sequence[Request]) -> Encoded:
        """One row a text."""
        return encode_texts(tokenizer, requests)

    def decode(
        self, outputs: Sequence[Floats], encoded: Encoded, requests: Sequence[Request], labels: Labels
    ) -> list[Answer]:
        """The most probable label; `scores` holds the probability of each."""
        probabilities = softmax(outputs[0])
        return [
            {
                "label": labels[int(row.argmax())],
                "scores": {labels[i]: float(p) for i, p in enumerate(row)},
                "tokens": tokens,
                "truncated": truncated,
            }
            for row, tokens, truncated in zip(probabilities, encoded.tokens, encoded.truncated, strict=True)
        ]

    def match_labels(self, data: Sequence[str], model: Sequence[str]) -> dict[str, str]:
        """By name, ignoring case; `pos` is `positive`; with two labels on a side, 1 and LABEL_1 are positive."""
        if {canonical(label, 0) for label in data} <= {canonical(label, 0) for label in model}:
            return match(self.name, data, model, partial(canonical, count=0))
        return match(self.name, data, model, lambda label: canonical(label, len(data if label in data else model)))

    def relabel(self, answer: Answer, names: Mapping[str, str]) -> Answer:
        """The answer in the data's words."""
        scores = {names.get(label, label): p for label, p in answer["scores"].items()}
        return {**answer, "label": names.get(answer["label"], answer["label"]), "scores": scores}

    def labels_of(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """The gold labels."""
        return tuple(sorted({example.gold for example in examples}))

    def tally(self, gold: str, answer: Answer, labels: Sequence[str]) -> tuple[float, ...]:
        """(right, 1), then true positives, predicted and gold of each label."""
        counts = [float(answer["label"] == gold), 1.0]
        for label in labels:
            counts += [float(gold == answer["label"] == label), float(answer["label"] == label), float(gold == label)]
        return tuple(counts)

    def totals_to_scores(self, totals: Floats) -> dict[str, Floats]:
        """Accuracy, and F1 averaged over the labels (macro)."""
        hits, predicted, gold = totals[..., 2::3], totals[..., 3::3], totals[..., 4::3]
        return {
            "accuracy": safe_ratio(totals[..., 0], totals[..., 1]),
            "f1": np.mean(safe_ratio(2 * hits, predicted + gold), axis=-1),
        }

    def same(self, left: Answer, right: Answer) -> bool:
        """The same label."""
        return bool(left["label"] == right["label"])

    def problems(self, request: Request, answer: Answer) -> list[str]:
        """Probabilities are in [0, 1] and sum to one, and the label is the most probable."""
        scores = answer["scores"]
        total = sum(scores.values())
        found = []
        if not abs(total - 1) <= 1e-3:
            found.append(f"probabilities sum to {total}, should be 1")
        if not all(0 <= p <= 1 for p in scores.values()):
            found.append(f"probabilities {scores} leave [0, 1]")
        if answer["label"] not in scores or scores[answer["label"]] < max(scores.values()):
            found.append(f"label {answer['label']!r} is not the most probable of {scores}")
        return found


tasks.register("sentiment")(Sentiment())
