"""Chat: the turns so far in, the next one out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from targets.api import Answer, Example, Floats, Request, Score
from targets.chat import checked
from targets.generation import Message
from targets.generation_formats import read_dialogues
from targets.registry import tasks
from targets.text_task import TextTask, means, squeezed

NAMES = ("exact_match", "f1")


class Chat(TextTask):
    """Scored against the gold reply: equal but for case, spaces and the final stop; and F1 over its words."""

    name = "chat"
    family = "causal"
    head = "CausalLM"
    architectures: tuple[str, ...] = ("ForCausalLM", "LMHeadModel")
    primary = "exact_match"
    scores: tuple[Score, ...] = tuple(Score(name) for name in NAMES)
    chat = True
    max_tokens = 40

    def read(self, path: Path) -> list[Example]:
        """Jsonl of dialogues whose last turn is the gold reply."""
        return read_dialogues(path)

    def ask(self, text: str) -> Request:
        """A conversation of one turn."""
        return {"messages": [{"role": "user", "content": text}]}

    def messages(self, request: Request) -> list[Message]:
        """The turns, checked."""
        return checked(request["messages"])

    def prompt(self, request: Request) -> str:
        """A chat's prompt is made by the model's template."""
        raise TypeError("a chat has messages; the model's template makes the prompt")

    def tally(self, gold: str, answer: Answer, labels: Sequence[str]) -> tuple[float, ...]:
        """(equal, word F1, 1)."""
        want, got = squeezed(gold), squeezed(answer["text"])
        return float(want == got), word_f1(want.split(), got.split()), 1.0

    def totals_to_scores(self, totals: Floats) -> dict[str, Floats]:
        """Means over the examples."""
        return means(totals, NAMES)


def word_f1(want: Sequence[str], got: Sequence[str]) -> float:
    """The harmonic mean of precision and recall over the bags of words."""
    shared = sum(min(want.count(word), got.count(word)) for word in set(want))
    return 2 * shared / (len(want) + len(got)) if shared else 0.0


tasks.register("chat")(Chat())
