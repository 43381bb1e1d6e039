"""Question answering: the span of a context that answers a question."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.api import Answer, Example, Floats, Labels, Request, Score
from targets.encoding import Encoded, Tokenizer, features, max_length, safe_ratio, softmax
from targets.formats import read_squad
from targets.registry import tasks

WINDOW = 384
"""Tokens a window holds at most: the length BERT's SQuAD models were trained with."""
LONGEST_ANSWER = 30
"""Tokens an answer has at most: the bound of the official BERT run on SQuAD."""


@cache
def band(length: int) -> NDArray[np.bool_]:
    """(start, end) pairs that make an answer: the end not before the start, and not too far behind it."""
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    result: NDArray[np.bool_] = (distance >= 0) & (distance < LONGEST_ANSWER)
    return result


def normalize(text: str) -> str:
    """SQuAD's normal form: lower case, without punctuation, articles and surplus white space."""
    bare = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(answer: str, gold: str) -> float:
    """1 if both have the same normal form."""
    return float(normalize(answer) == normalize(gold))


def token_f1(answer: str, gold: str) -> float:
    """SQuAD's F1 over the words of both normal forms."""
    left, right = normalize(answer).split(), normalize(gold).split()
    if not left or not right:
        return float(left == right)
    shared = sum((Counter(left) & Counter(right)).values())
    return 2 * shared / (len(left) + len(right))


def cut_question(tokenizer: Tokenizer, question: str, limit: int) -> tuple[str, bool]:
    """The question's first `limit` tokens, and whether that cut it."""
    if len(question) <= limit:  # a token has at least one character
        return question, False
    row = tokenizer([question], add_special_tokens=False, truncation=True, max_length=limit).encodings[0]
    return (question[: row.offsets[-1][1]], True) if row.overflowing else (question, False)


def best_span(row: Any, start: Floats, end: Floats) -> tuple[float, float, int, int] | None:
    """(logit, probability, first character, end character) of the best span in one window; None without context."""
    places = np.array([kind == 1 for kind in row.sequence_ids]) & (np.array(row.attention_mask) == 1)
    first = int(places.argmax())
    if not places.any():
        return None
    inside = slice(first, first + int(places.sum()))
    starts, ends = start[inside].astype(np.float64), end[inside].astype(np.float64)
    pairs = np.where(band(len(starts)), starts[:, None] + ends[None, :], -np.inf)
    left, right = divmod(int(pairs.argmax()), len(starts))
    probability = float(softmax(starts)[left] * softmax(ends)[right])
    return float(pairs[left, right]), probability, row.offsets[first + left][0], row.offsets[first + right][1]


class QuestionAnswering:
    """A question and a context in, a span of the context out. Long contexts are read through a sliding window."""

    name = "qa"
    family = "encoder"
    head = "QuestionAnswering"
    architectures: tuple[str, ...] = ("ForQuestionAnswering",)
    primary = "exact_match"
    scores: tuple[Score, ...] = (Score("exact_match"), Score("f1"))
    fields: tuple[str, ...] = ("question", "context")
    per_token = True

    def read(self, path: Path) -> list[Example]:
        """SQuAD v1.1 JSON."""
        return read_squad(path)

    def ask(self, text: str) -> Request:
        """The same text in every field."""
        return dict.fromkeys(self.fields, text)

    def encode(self, tokenizer: Tokenizer, requests: Sequence[Request]) -> Encoded:
        """As many rows a request as its context needs; neighbours share a third of the window."""
        window = max_length(tokenizer, WINDOW)
        questions, cut = zip(
            *(cut_question(tokenizer, request["question"], window * 3 // 8) for request in requests), strict=True
        )
        batch = tokenizer(
            list(questions),
            [request["context"] for request in requests],
            truncation="only_second",
            max_length=window,
            stride=window // 3,
            return_overflowing_tokens=True,
            padding=True,
        )
        rows, owner = batch.encodings, batch["overflow_to_sample_mapping"]
        tokens = [0] * len(requests)
        for row, index in zip(rows, owner, strict=True):
            tokens[index] += sum(row.attention_mask)
        return Encoded(features=features(tokenizer, rows), owner=owner, tokens=tokens, truncated=cut, rows=rows)

    def decode(
        self, outputs: Sequence[Floats], encoded: Encoded, requests: Sequence[Request], labels: Labels
    ) -> list[Answer]:
        """The best span over all windows; an empty context has the empty answer with score 0."""
        best: list[tuple[float, float, int, int]] = [(-np.inf, 0.0, 0, 0)] * len(requests)
        windows = [0] * len(requests)
        for row, owner, start, end in zip(encoded.rows, encoded.owner, outputs[0], outputs[1], strict=True):
            windows[owner] += 1
            span = best_span(row, start, end)
            if span is not None and not span[0] <= best[owner][0]:  # a NaN must come through, not hide
                best[owner] = span
        return [
            {
                "text": request["context"][start:end],
                "start": start,
                "end": end,
                "score": score,
                "windows": windows[index],
                "tokens": encoded.tokens[index],
                "truncated": encoded.truncated[index],
            }
            for index, (request, (_, score, start, end)) in enumerate(zip(requests, best, strict=True))
        ]

    def match_labels(self, data: Sequence[str], model: Sequence[str]) -> dict[str, str]:
        """Spans have no labels."""
        return {}

    def relabel(self, answer: Answer, names: Mapping[str, str]) -> Answer:
        """Spans have no labels."""
        return answer

    def labels_of(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Spans have no labels."""
        return ()

    def tally(self, gold: Mapping[str, Any], answer: Answer, labels: Sequence[str]) -> tuple[float, ...]:
        """(exact match, F1, 1), each the best over all gold answers."""
        return (
            max(exact_match(answer["text"], text) for text in gold["answers"]),
            max(token_f1(answer["text"], text) for text in gold["answers"]),
            1.0,
        )

    def totals_to_scores(self, totals: Floats) -> dict[str, Floats]:
        """Means over the examples, as in SQuAD's own evaluation."""
        return {
            "exact_match": safe_ratio(totals[..., 0], totals[..., 2]),
            "f1": safe_ratio(totals[..., 1], totals[..., 2]),
        }

    def same(self, left: Answer, right: Answer) -> bool:
        """The same span."""
        return bool((left["start"], left["end"]) == (right["start"], right["end"]))

    def problems(self, request: Request, answer: Answer) -> list[str]:
        """The span lies inside the context and equals what it quotes; the score is a probability."""
        start, end, context = answer["start"], answer["end"], request["context"]
        found = []
        if not 0 <= start <= end <= len(context):
            found.append(f"span {start}:{end} leaves the context of {len(context)} characters")
        elif context[start:end] != answer["text"]:
            found.append(f"span {start}:{end} reads {context[start:end]!r}, quoted as {answer['text']!r}")
        if not 0 <= answer["score"] <= 1:
            found.append(f"score {answer['score']} leaves [0, 1]")
        return found


tasks.register("qa")(QuestionAnswering())
