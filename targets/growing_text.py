"""What may be said of a text that still grows: nothing that a stop string or the rest of a character takes back."""

from __future__ import annotations

from collections.abc import Sequence

from targets.generation import UNFINISHED, Say, cut_at_stop


class GrowingText:
    """Passes a text on in pieces; those said so far are always a beginning of what the text will be in the end."""

    def __init__(self, say: Say, stops: Sequence[str] = ()) -> None:
        self._say = say
        self._stops = tuple(stops)
        self._said = ""

    def upto(self, text: str) -> None:
        """Say what is new and certain of `text`, which is all that there is so far."""
        text = text.rstrip(UNFINISHED)
        before_stop, _ = cut_at_stop(text, self._stops)
        self._pass_on(text[: min(len(before_stop), len(text) - begun(text, self._stops))])

    def end(self, text: str) -> None:
        """Say the rest of the text, which is complete.

        Raises:
            RuntimeError: it does not begin as it was said.
        """
        if not text.startswith(self._said):
            raise RuntimeError(f"the answer begins {text[: len(self._said)]!r}, and {self._said!r} has been said of it")
        self._pass_on(text)

    def _pass_on(self, text: str) -> None:
        if len(text) > len(self._said) and text.startswith(self._said):
            piece, self._said = text[len(self._said) :], text
            self._say(piece)


def begun(text: str, stops: Sequence[str]) -> int:
    """How many of the last characters may be the beginning of a stop string."""
    sizes = (size for stop in stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
    return max(sizes, default=0)
