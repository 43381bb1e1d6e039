"""Named-entity recognition: which spans of a text name a person, a place, an organisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from targets.api import Answer, Example, Floats, Labels, Request, Score
from targets.encoding import Encoded, Tokenizer, encode_texts, safe_ratio, softmax
from targets.formats import read_conll
from targets.labels import match
from targets.registry import tasks

SYNONYMS = {"PERSON": "PER", "LOCATION": "LOC", "ORGANIZATION": "ORG", "ORGANISATION": "ORG"}
OPENING = ("B", "S", "U")
"""Prefixes that start an entity whatever stands before: BIO's B, BIOES's S, BILOU's U."""


class Piece(NamedTuple):
    """One word of the tokenizer with its predicted tag; `start` and `end` in characters of the text."""

    start: int
    end: int
    tag: str
    score: float


def split_tag(tag: str) -> tuple[str, str]:
    """("B", "PER") from "B-PER"; a bare type counts as inside; ("O", "") for outside."""
    if tag == "O":
        return "O", ""
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind) if dash else ("I", tag)


def pieces(row: Any, logits: Floats, labels: Labels) -> Iterator[Piece]:
    """The words of one row; a word's tag is that of its first token. `logits`: (sequence length, labels)."""
    probabilities = softmax(logits)
    best = probabilities.argmax(axis=-1)
    start = end = -1
    tag, score, current = "O", 0.0, None
    for index, (word, (left, right)) in enumerate(zip(row.word_ids, row.offsets, strict=True)):
        if word is not None and word == current:
            end = right
            continue
        if current is not None:
            yield Piece(start, end, tag, score)
        current = word
        start, end, tag, score = left, right, labels[int(best[index])], float(probabilities[index, best[index]])
    if current is not None:
        yield Piece(start, end, tag, score)


def entities(text: str, words: Iterator[Piece]) -> list[dict[str, Any]]:
    """Join neighbouring words of one type; a new entity opens at B, or where the type changes."""
    found: list[dict[str, Any]] = []
    open_kind = ""
    for piece in words:
        prefix, kind = split_tag(piece.tag)
        if kind and kind == open_kind and prefix not in OPENING:
            found[-1]["end"] = piece.end
            found[-1]["score"] = min(found[-1]["score"], piece.score)
        elif kind:
            found.append({"label": kind, "start": piece.start, "end": piece.end, "score": piece.score})
        open_kind = kind
    for entity in found:
        entity["text"] = text[entity["start"] : entity["end"]]
    return found


def tags(words: Sequence[str], found: Sequence[Mapping[str, Any]]) -> list[str]:
    """BIO tags of words joined by single spaces. A word an entity covers only in part gets none of it."""
    result = ["O"] * len(words)
    start = 0
    for index, word in enumerate(words):
        end = start + len(word)
        for entity in found:
            if entity["start"] <= start and end <= entity["end"]:
                result[index] = f"{'B' if entity['start'] == start else 'I'}-{entity['label']}"
        start = end + 1
    return result


class Ner:
    """A text in, its entities out: label, character span, quote."""

    name = "ner"
    family = "encoder"
    head = "TokenClassification"
    architectures: tuple[str, ...] = ("ForTokenClassification",)
    primary = "f1"
    scores: tuple[Score, ...] = (Score("f1"), Score("precision"), Score("recall"))
    fields: tuple[str, ...] = ("text",)
    per_token = True

    def read(self, path: Path) -> list[Example]:
        """CoNLL columns."""
        return read_conll(path)

    def ask(self, text: str) -> Request:
        """The same text in every field."""
        return dict.fromkeys(self.fields, text)

    def encode(self, tokenizer: Tokenizer, requests: Sequence[Request]) -> Encoded:
        """One row a text."""
        return encode_texts(tokenizer, requests)

    def decode(
        self, outputs: Sequence[Floats], encoded: Encoded, requests: Sequence[Request], labels: Labels
    ) -> list[Answer]:
        """Entities in the order of the text. An entity's score is that of its least certain word."""
        return [
            {
                "entities": entities(request["text"], pieces(row, logits, labels)),
                "tokens": tokens,
                "truncated": truncated,
            }
            for request, row, logits, tokens, truncated in zip(
                requests, encoded.rows, outputs[0], encoded.tokens, encoded.truncated, strict=True
            )
        ]

    def match_labels(self, data: Sequence[str], model: Sequence[str]) -> dict[str, str]:
        """By entity type, ignoring case; PERSON is PER, and so on. `model` may hold tags or bare types."""
        kinds = sorted({split_tag(label)[1] for label in model} - {""})
        return match(self.name, data, kinds, lambda kind: SYNONYMS.get(kind.upper(), kind.upper()))

    def relabel(self, answer: Answer, names: Mapping[str, str]) -> Answer:
        """The answer in the data's words."""
        renamed = [{**entity, "label": names.get(entity["label"], entity["label"])} for entity in answer["entities"]]
        return {**answer, "entities": renamed}

    def labels_of(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """The gold entity types."""
        return tuple(sorted({split_tag(tag)[1] for example in examples for tag in example.gold["tags"]} - {""}))

    def tally(self, gold: Mapping[str, Any], answer: Answer, labels: Sequence[str]) -> tuple[float, ...]:
        """Entities right, predicted, gold; an entity is right when type and both ends are (seqeval's extraction)."""
        from seqeval.metrics.sequence_labeling import get_entities

        predicted = set(get_entities(tags(gold["words"], answer["entities"])))
        expected = set(get_entities(list(gold["tags"])))
        partial = len(answer["entities"]) - len(predicted)  # cut words carry no tag, and are wrong all the same
        return float(len(predicted & expected)), float(len(predicted) + max(partial, 0)), float(len(expected))

    def totals_to_scores(self, totals: Floats) -> dict[str, Floats]:
        """Precision, recall and F1 over all entities (micro); with nothing to find and nothing found, 1."""
        right, predicted, gold = totals[..., 0], totals[..., 1], totals[..., 2]
        none = np.where(predicted + gold == 0, 1.0, 0.0)
        return {
            "f1": safe_ratio(2 * right, predicted + gold, empty=1.0),
            "precision": np.maximum(safe_ratio(right, predicted), none),
            "recall": np.maximum(safe_ratio(right, gold), none),
        }

    def same(self, left: Answer, right: Answer) -> bool:
        """The same types at the same spans."""
        return [(e["label"], e["start"], e["end"]) for e in left["entities"]] == [
            (e["label"], e["start"], e["end"]) for e in right["entities"]
        ]

    def problems(self, request: Request, answer: Answer) -> list[str]:
        """Spans lie inside the text in order, do not overlap, equal what they quote; scores are probabilities."""
        found, last = [], 0
        for entity in answer["entities"]:
            start, end = entity["start"], entity["end"]
            if not last <= start < end <= len(request["text"]):
                found.append(f"span {start}:{end} leaves the text of {len(request['text'])} characters or overlaps")
            elif request["text"][start:end] != entity["text"]:
                found.append(f"span {start}:{end} reads {request['text'][start:end]!r}, quoted as {entity['text']!r}")
            elif entity["text"] != entity["text"].strip():
                found.append(f"entity {entity['text']!r} begins or ends with white space")
            if not 0 <= entity["score"] <= 1:
                found.append(f"score {entity['score']} leaves [0, 1]")
            last = end
        return found


tasks.register("ner")(Ner())
