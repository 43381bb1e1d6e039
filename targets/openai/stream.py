"""What an OpenAI-compatible server says of one answer, whole or as server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from targets.remote.client import CutOff, Garbled, Refused, told_in
from targets.remote.generator import Ticks

Json = dict[str, Any]


@dataclass
class Heard:
    """An answer as it came. `seen`: events that brought a token; `usage`: None where the server tells none."""

    where: str
    pieces: list[str] = field(default_factory=list)
    choice: Json | None = None
    usage: Json | None = None
    seen: int = 0
    events: int = 0
    done: bool = False

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    @property
    def last(self) -> Json:
        """The choice that says why the answer ended."""
        assert self.choice is not None
        return self.choice

    def whole(self, found: Any) -> Heard:
        """Take an answer that came at once.

        Raises:
            Garbled: it has not the fields of one.
        """
        self._check(found)
        self.choice = first_choice(found)
        self.usage = found.get("usage")
        if self.choice is None or not isinstance(self.usage, dict):
            raise Garbled(f"{self.where}: an answer should have choices and usage, is {str(found)[:100]!r}")
        self.pieces.append(text_in(self.choice))
        return self

    def stream(self, lines: Iterable[bytes], ticks: Ticks) -> Heard:
        """Take an answer that comes as events, with a tick for each token, and its text passed on.

        Raises:
            Garbled: a line is no event of the protocol.
            Refused: an event reports an error.
            CutOff: it ended without a reason why, or without [DONE].
        """
        for line in lines:
            if line.startswith(b"data:"):
                self._take(line[5:].strip(), ticks)
        if self.events and self.choice is None:
            raise CutOff(f"{self.where}: the stream ended before the answer did, after {self.seen} tokens")
        if self.events and not self.done:
            raise CutOff(f"{self.where}: the stream ended without [DONE]")
        return self

    def _take(self, data: bytes, ticks: Ticks) -> None:
        self.events += 1
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = json.loads(data)
        except ValueError as error:
            raise Garbled(f"{self.where}: an event is no JSON: {data[:60].decode(errors='replace')!r}") from error
        self._check(event)
        self.usage = event.get("usage") or self.usage
        choice = first_choice(event)
        if choice is None:
            return
        piece = text_in(choice)
        ended = choice.get("finish_reason")
        if piece or (brings_token(choice) and not ended):
            self.seen += 1
            ticks.upto(self.seen if piece else self.seen - 1)  # an end token has no text, and nothing comes after it
            self.pieces.append(piece)
            ticks.heard(self.pieces)
        self.choice = choice if ended else self.choice

    def _check(self, found: Any) -> None:
        if not isinstance(found, dict):
            raise Garbled(f"{self.where}: an answer should be an object, is {str(found)[:60]!r}")
        if found.get("error"):
            code = found["error"].get("code") if isinstance(found["error"], Mapping) else None
            raise Refused(self.where, code if isinstance(code, int) else 500, told_in(json.dumps(found).encode()))


def first_choice(found: Mapping[str, Any]) -> Json | None:
    """The only choice of an answer or event; None where an event has none."""
    choices = found.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def text_in(choice: Mapping[str, Any]) -> str:
    """The text of a choice: of a completion, a message or a part of one; reasoning counts as text."""
    part = choice.get("delta") or choice.get("message") or choice
    found = part.get("text") or part.get("content") or part.get("reasoning_content") or ""
    return str(found)


def brings_token(choice: Mapping[str, Any]) -> bool:
    """Whether an event without text stands for a token all the same: the opening of a chat does not."""
    delta = choice.get("delta")
    return "text" in choice if delta is None else "content" in delta and "role" not in delta
