"""What tasks with texts as answers share: no labels, the laws of a well-formed answer, means over examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from targets.api import Answer, Example, Floats, Request
from targets.generation import FINISHES, Decoding, Message, required


class TextTask:
    """The base of the generator tasks."""

    chat = False
    max_tokens = 32

    def ask(self, text: str) -> Request:
        """A request for a text."""
        return {"text": text}

    def prompt(self, request: Request) -> str:
        """The text itself."""
        return required(request, "text")

    def messages(self, request: Request) -> list[Message]:
        """Only chats have turns."""
        raise TypeError(f"{type(self).__name__} has no messages")

    def match_labels(self, data: Sequence[str], model: Sequence[str]) -> dict[str, str]:
        """Texts carry no labels."""
        return {}

    def relabel(self, answer: Answer, names: Mapping[str, str]) -> Answer:
        """The answer as it is."""
        return answer

    def labels_of(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """None."""
        return ()

    def same(self, left: Answer, right: Answer) -> bool:
        """The same tokens where both engines tell them, else the same text."""
        if left["token_ids"] is not None and right["token_ids"] is not None:
            return bool(left["token_ids"] == right["token_ids"])
        return bool(left["text"] == right["text"])

    def problems(self, request: Request, answer: Answer) -> list[str]:
        """Counts agree with the tokens, as many came as were asked for, and no stop string is in the text."""
        asked = Decoding.of(request, self.max_tokens, holds_back=True)
        ids, count = answer["token_ids"], answer["output_tokens"]
        found = []
        if ids is not None and len(ids) != count:
            found.append(f"{len(ids)} token ids, but {count} are counted")
        if count > asked.max_tokens:
            found.append(f"{count} tokens came, at most {asked.max_tokens} were asked for")
        if count < asked.min_tokens and not asked.stop:
            found.append(f"{count} tokens came, at least {asked.min_tokens} were asked for")
        if answer["finish"] not in FINISHES:
            found.append(f"finish is {answer['finish']!r}, should be {' or '.join(FINISHES)}")
        if any(stop in answer["text"] for stop in asked.stop):
            found.append(f"the text holds a stop string: {answer['text']!r:.80}")
        if answer["tokens"] < 1:
            found.append(f"{answer['tokens']} tokens were read of a prompt that is not empty")
        return found


def means(totals: Floats, names: Sequence[str]) -> dict[str, Floats]:
    """Mean scores from summed tallies (score, ..., score, count) of shape (..., len(names) + 1)."""
    count = np.where(totals[..., -1] == 0, np.nan, totals[..., -1])
    return {name: totals[..., index] / count for index, name in enumerate(names)}


def squeezed(text: Any) -> str:
    """The text with single spaces, in lower case, without a final stop: what counts as the same reply."""
    return " ".join(str(text).lower().split()).rstrip(".!")
