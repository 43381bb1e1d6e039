"""A fake engine for `--targets=suites.meta.fake`: a keyword classifier in plain Python, and techniques that misbehave.

Import it in the processes of a run only (pytest's through --targets, the hosts'): it makes `fake/plain` the reference
of that run, so that no real engine is needed, and its techniques really do kill, exhaust or stop their process.
With FAKE_TRACE=FILE in the environment, `load TECHNIQUE PID` is appended to that file at each load, and
`busy TECHNIQUE PID` at the third call. With FAKE_HELD=TECHNIQUE beside it, that one answers two calls, and the others
when FILE.go exists: once the test has done what it does to a target in the midst of its work.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fixtures import cases
from suites.meta import deeds
from targets.api import (
    Answer,
    Device,
    Evidence,
    Floats,
    ModelFiles,
    Request,
    Requirement,
    Runner,
    Task,
    Tick,
    Unavailable,
    no_tick,
)
from targets.closing import Closing
from targets.optimization import Optimization
from targets.registry import backends, optimizations

GOOD = frozenset({"good", "great", "excellent", "love", "wonderful"})
BAD = frozenset({"bad", "awful", "terrible", "hate", "dreadful"})
LONGEST = 64
"""Words it reads of a text."""


class KeywordRunner(Closing):
    """Counts good and bad words; two labels, the second the positive one. `before`: called with each call's number."""

    def __init__(self, names: Mapping[int, str], before: Callable[[int], object]) -> None:
        self._names = names
        self._before = before
        self._calls = 0

    def run(self, batch: Sequence[Request], tick: Tick = no_tick) -> list[Answer]:
        """Softmax over the two counts; a tie is negative."""
        self._calls += 1
        self._before(self._calls)
        found: list[Answer] = []
        for request, (row,) in zip(batch, self.logits(batch), strict=True):
            words = request["text"].split()
            odds = np.exp(row - row.max())
            shares = dict(zip(self._names.values(), (odds / odds.sum()).tolist(), strict=True))
            label = max(shares, key=lambda name: shares[name])
            found.append(
                {
                    "label": label,
                    "scores": shares,
                    "tokens": min(len(words), LONGEST),
                    "truncated": len(words) > LONGEST,
                }
            )
        return found

    def logits(self, batch: Sequence[Request]) -> list[list[Floats]]:
        """(2,) for each text: bad words, good words."""
        texts = [[word.strip(".,!?").lower() for word in request["text"].split()[:LONGEST]] for request in batch]
        return [[np.array([sum(w in BAD for w in text), sum(w in GOOD for w in text)], float)] for text in texts]

    def evidence(self) -> Evidence:
        """It is what it is."""
        return Evidence(requested={"engine": "fake"}, actual={"engine": "fake"})

    @property
    def labels(self) -> Mapping[int, str]:
        """The model's id2label."""
        return self._names

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, kw_only=True)
class Behaviour(Optimization):
    """What a technique does to its process: once at load, and before each call (with its number, from 1)."""

    at_load: Callable[[int], object] = lambda _: None
    at_call: Callable[[int], object] = lambda _: None


class Fake:
    """The engine; `absent` says that a module it needs cannot be imported."""

    tasks = frozenset({"sentiment"})
    formats = frozenset({"safetensors"})
    preload: tuple[str, ...] = ()

    def __init__(self, name: str, requires: tuple[Requirement, ...] = ()) -> None:
        self.name = name
        self.requires = requires

    def build(self, model: ModelFiles, task: Task, optimization: Optimization, device: Device, cache: Path) -> Path:
        """The model's own directory."""
        return model.path

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """Leave a trace, do what the technique does at load, and be ready."""
        assert isinstance(optimization, Behaviour)
        trace("load", optimization.name)
        optimization.at_load(0)
        names = json.loads((artifact / "config.json").read_text())["id2label"]

        def before(number: int) -> None:
            if number == 3:
                trace("busy", optimization.name)
                await_word(optimization.name)
            optimization.at_call(number)

        return KeywordRunner({int(index): name for index, name in names.items()}, before)


def trace(event: str, technique: str) -> None:
    """Tell the tests what happens, and in which process."""
    if file := os.environ.get("FAKE_TRACE"):
        with Path(file).open("a") as opened:
            opened.write(f"{event} {technique} {os.getpid()}\n")


def hang(number: int) -> None:
    """Answer the first call, and never again."""
    if number > 1:
        deeds.wait(number)


def rest(_: int) -> None:
    """Take long enough for sensors to be read meanwhile."""
    time.sleep(0.02)


def die_at_third(number: int) -> None:
    """End as if the kernel had run out of memory."""
    if number == 3:
        deeds.killed(number)


def lack(_: object) -> None:
    """What a backend does where the machine cannot run it."""
    raise Unavailable("the fake accelerator is not here: plug one in")


def await_word(technique: str) -> None:
    """Wait where the test holds this technique."""
    if os.environ.get("FAKE_HELD") == technique:
        word = Path(os.environ["FAKE_TRACE"] + ".go")
        while not word.exists():
            time.sleep(0.01)


def register(name: str, **behaviour: Callable[[int], object]) -> None:
    """File a technique of the fake engine."""
    optimizations.register(name)(
        Behaviour(
            name=name,
            group="fake",
            summary=f"does as its name says: {name}",
            backends=frozenset({"fake", "absent"}),
            max_drop=0.0,
            min_agreement=1.0,
            logit_tolerance=0.0,
            **behaviour,  # type: ignore[arg-type]
        )
    )


cases.REFERENCE = ("fake", "plain")
backends.register("fake")(Fake("fake"))
backends.register("absent")(
    Fake("absent", (Requirement("a_module_that_nobody_has", "pip install '.[absent]'"),)),
)
register("plain")
register("twin")
register("triplet")
register("unhurried", at_call=rest)
register("segfault", at_call=deeds.segfault)
register("exit", at_call=deeds.leave)
register("hang", at_call=hang)
register("oom", at_call=deeds.exhaust)
register("kill-self", at_call=die_at_third)
register("load-error", at_load=deeds.refuse)
register("unavailable", at_load=lack)
register("parent", at_load=deeds.breed)
