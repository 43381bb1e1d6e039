"""What planted faults of generators are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from targets.api import Answer, Evidence, Floats, Labels, Request, Runner, Tick, no_tick
from targets.closing import Closing
from targets.generation import Say
from targets.transformers_generator import TransformersGenerator

Run: TypeAlias = Callable[[Sequence[Request], Tick], list[Answer]]


class BrokenGenerator(Closing):
    """A runner that answers with another function, and leaves everything else to the real one.

    `heard`: what a listener hears of an answer's text.
    """

    def __init__(self, real: TransformersGenerator, run: Run, heard: Callable[[str], str] = lambda text: text) -> None:
        self.real = real
        self.labels: Labels = real.labels
        self._run = run
        self._heard = heard

    def run(self, batch: Sequence[Request], tick: Tick = no_tick) -> list[Answer]:
        """Answer a batch, wrongly."""
        return self._run(batch, tick)

    @property
    def context(self) -> int | None:
        """The real context."""
        return self.real.context

    def stream(self, request: Request, say: Say, tick: Tick = no_tick) -> Answer:
        """Answer a request as `run` does, and say its text at once."""
        (found,) = self._run([request], tick)
        say(self._heard(found["text"]))
        return found

    def tokens(self, request: Request) -> list[int]:
        """The real ids of a prompt."""
        return self.real.tokens(request)

    def logits(self, batch: Sequence[Request]) -> list[list[Floats]]:
        """The real logits."""
        return self.real.logits(batch)

    def evidence(self) -> Evidence:
        """The real evidence."""
        return self.real.evidence()

    def close(self) -> None:
        """Close the real one."""
        self.real.close()


def rewritten(real: TransformersGenerator, change: Callable[[Request, Answer], Answer]) -> Runner:
    """A runner each of whose answers is changed."""
    return BrokenGenerator(
        real, lambda batch, tick: [change(*pair) for pair in zip(batch, real.run(batch, tick), strict=True)]
    )


def asked(real: TransformersGenerator, change: Callable[[Request], Request]) -> Runner:
    """A runner that answers another request than the one it got."""
    return BrokenGenerator(real, lambda batch, tick: real.run([change(request) for request in batch], tick))


def text_of(real: TransformersGenerator, ids: Sequence[int]) -> str:
    """The text of tokens."""
    text: str = real.tokenizer.decode(list(ids), skip_special_tokens=True)
    return text
