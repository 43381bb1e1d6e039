"""What a chat remembers: its turns, as many of the latest as there is room for."""

from __future__ import annotations

from targets.generation import Message


class Conversation:
    """The turns of one client; `most_chars`: how many characters of them are kept at most."""

    def __init__(self, most_chars: int) -> None:
        self._most_chars = most_chars
        self._system: list[Message] = []
        self._turns: list[Message] = []

    def reset(self, system: str | None = None) -> None:
        """Forget everything; what follows is said under this system prompt."""
        self._system = [{"role": "system", "content": system}] if system else []
        self._turns = []

    def ask(self, text: str) -> tuple[list[Message], int]:
        """The messages to be answered, the text last, and how many old turns were given up to keep within bounds.

        The text is remembered with its answer (see `learn`), not before.
        """
        dropped = 0
        while self._turns and sum(len(turn["content"]) for turn in self._turns) + len(text) > self._most_chars:
            dropped += self._drop(2)
        return [*self._system, *self._turns, {"role": "user", "content": text}], dropped

    def learn(self, text: str, answer: str, dropped: int) -> None:
        """Remember an exchange. `dropped`: how many of the oldest turns the model could not read any more.

        An exchange without an answer is none: templates take no empty turn.
        """
        self._drop(dropped)
        if answer.strip():
            self._turns += [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]

    def _drop(self, turns: int) -> int:
        del self._turns[:turns]
        return turns
