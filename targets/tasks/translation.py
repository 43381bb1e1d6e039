"""Translation from English to German."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from targets.api import Answer, Example, Floats, Request, Score
from targets.generation import required
from targets.generation_formats import read_pairs
from targets.registry import tasks
from targets.text_task import TextTask


class Translation(TextTask):
    """Scored over the whole corpus by chrF (Popović 2015) and BLEU (Papineni et al. 2002), as sacrebleu computes them.

    A tally holds the n-gram statistics of an example: their sum gives the corpus score, not a mean of sentences.
    """

    name = "translation"
    family = "seq2seq"
    head = "Seq2SeqLM"
    architectures: tuple[str, ...] = ("ForConditionalGeneration",)
    primary = "chrf"
    scores: tuple[Score, ...] = (Score("chrf", top=100.0), Score("bleu", top=100.0))
    max_tokens = 48

    def read(self, path: Path) -> list[Example]:
        """Csv, tsv or jsonl of texts and their translations."""
        return read_pairs(path, ("text", "source", "en"), ("translation", "target", "de"))

    def prompt(self, request: Request) -> str:
        """With T5's task prefix (Raffel et al. 2020)."""
        return f"translate English to German: {required(request, 'text')}"

    def tally(self, gold: Sequence[str], answer: Answer, labels: Sequence[str]) -> tuple[float, ...]:
        """The statistics of both metrics, those of chrF first."""
        return tuple(
            float(value)
            for metric in metrics()
            for value in metric._extract_corpus_statistics([answer["text"]], [[reference] for reference in gold])[0]
        )

    def totals_to_scores(self, totals: Floats) -> dict[str, Floats]:
        """Corpus scores, 0 to 100."""
        chrf, bleu = metrics()
        width = 3 * chrf.order
        parts = {"chrf": (chrf, totals[..., :width]), "bleu": (bleu, totals[..., width:])}
        return {name: scored(metric, part) for name, (metric, part) in parts.items()}


def scored(metric: Any, totals: Floats) -> Floats:
    """A metric's score of each row of statistics, shape (..., k) to (...)."""
    rows = totals.reshape(-1, totals.shape[-1])
    found = [metric._compute_score_from_stats(row).score for row in rows.tolist()]
    return np.array(found, dtype=np.float64).reshape(totals.shape[:-1])


@cache
def metrics() -> tuple[Any, Any]:
    """ChrF with character 6-grams, and BLEU with the 13a tokenizer: sacrebleu's defaults."""
    from sacrebleu.metrics import BLEU, CHRF

    return CHRF(), BLEU(force=True)  # no advice about tokenized text: what is scored is what the model wrote


tasks.register("translation")(Translation())
