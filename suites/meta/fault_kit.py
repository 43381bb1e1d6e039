"""What faults are made of: a fault's entry in the catalogue, and runners put together from a sound one's parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from targets.api import Answer, Evidence, Request, Runner, Tick, no_tick
from targets.encoder import EncoderRunner, Forward

Run: TypeAlias = Callable[[Sequence[Request]], list[Answer]]
Plant: TypeAlias = Callable[[Any], Runner]
"""From a sound runner (an EncoderRunner, or for generators a TransformersGenerator) to a broken one."""

DIED = "died"
"""What a fault names in a check's place where the target's process must end: any check may be the first to see it."""


@dataclass(frozen=True)
class Fault:
    """A planted fault. `checks`: tests of the suites of which at least one must fail because of it.

    `kinds`: the device kinds it can be seen on (empty: all). `max_drop`, `min_agreement`, `logit_tolerance` and
    `max_kl` are the contract that the broken target claims to keep: that of FP32, unless the fault stands for a
    technique that may change the arithmetic.
    """

    name: str
    tasks: tuple[str, ...]
    checks: frozenset[str]
    plant: Plant
    kinds: frozenset[str] = frozenset()
    max_drop: float = 0.0
    min_agreement: float = 1.0
    logit_tolerance: float | None = 1e-3
    max_kl: float | None = 1e-4

    @property
    def summary(self) -> str:
        """What is wrong, in one sentence."""
        return (self.plant.__doc__ or "").partition("\n")[0]


class Broken(EncoderRunner):
    """A runner made from another one's parts, some of them replaced."""

    def __init__(
        self,
        real: EncoderRunner,
        run: Run | None = None,
        forward: Forward | None = None,
        labels: Mapping[int, str] | None = None,
        evidence: Callable[[], Evidence] | None = None,
    ) -> None:
        super().__init__(
            task=real.task,
            tokenizer=real.tokenizer,
            labels=labels or real.labels,
            forward=forward or real._forward,
            evidence=evidence or real.evidence,
            close=real.close,
        )
        self._answer: Run = run or super().run

    def run(self, batch: Sequence[Request], tick: Tick = no_tick) -> list[Answer]:
        """Answer a batch, wrongly."""
        return self._answer(batch)


def rewritten(real: EncoderRunner, change: Callable[[Request, Answer], Answer]) -> Runner:
    """A runner each of whose answers is changed."""
    return Broken(real, lambda batch: [change(*pair) for pair in zip(batch, real.run(batch), strict=True)])


def respan(text: str, span: Answer, start: int, end: int) -> Answer:
    """A span elsewhere in the text, quoted as it stands there, so that only its meaning is wrong."""
    return {**span, "start": start, "end": end, "text": text[start:end]}


def moved(request: Request, answer: Answer, place: Callable[[str, int], int]) -> Answer:
    """An answer (of ner or qa) whose spans are moved."""

    def move(text: str, span: Answer) -> Answer:
        return respan(text, span, place(text, span["start"]), place(text, span["end"]))

    if "entities" in answer:
        return {**answer, "entities": [move(request["text"], entity) for entity in answer["entities"]]}
    return move(request["context"], answer)


def module_of(real: EncoderRunner) -> Any:
    """The PyTorch module behind a runner of the huggingface backend."""
    return real._forward.module  # type: ignore[attr-defined]
