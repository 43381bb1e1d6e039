"""Summarization: a text in, a shorter one that says the same out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from targets.api import Answer, Example, Floats, Request, Score
from targets.generation import required
from targets.generation_formats import read_pairs
from targets.registry import tasks
from targets.text_task import TextTask, means

NAMES = ("rouge1", "rouge2", "rougeL")
"""ROUGE-1, ROUGE-2 and ROUGE-L, as the package rouge-score calls them."""


class Summarization(TextTask):
    """Scored by ROUGE F1 (Lin 2004) with stemming, best of all references, as the package rouge-score computes it."""

    name = "summarization"
    family = "seq2seq"
    head = "Seq2SeqLM"
    architectures: tuple[str, ...] = ("ForConditionalGeneration",)
    primary = "rougeL"
    scores: tuple[Score, ...] = tuple(Score(name) for name in NAMES)
    max_tokens = 48

    def read(self, path: Path) -> list[Example]:
        """Csv, tsv or jsonl of texts and their summaries."""
        return read_pairs(path, ("text", "article", "document"), ("summary", "highlights"))

    def prompt(self, request: Request) -> str:
        """With T5's task prefix (Raffel et al. 2020)."""
        return f"summarize: {required(request, 'text')}"

    def tally(self, gold: Sequence[str], answer: Answer, labels: Sequence[str]) -> tuple[float, ...]:
        """The three F1 values and 1."""
        found = scorer().score_multi(list(gold), answer["text"])
        return (*(float(found[name].fmeasure) for name in NAMES), 1.0)

    def totals_to_scores(self, totals: Floats) -> dict[str, Floats]:
        """Means over the examples."""
        return means(totals, NAMES)


@cache
def scorer() -> Any:
    """One scorer a process: it holds a stemmer."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(NAMES), use_stemmer=True)


tasks.register("summarization")(Summarization())
