"""A fake engine for `--targets=suites.meta.fake`: a keyword classifier in plain Python, and techniques that misbehave.

Import it in the processes of a run only (pytest's through --targets, the hosts'): it makes `fake/plain` the reference
of that run, so that no real engine is needed, and its techniques really do kill, exhaust or stop their process.
With FAKE_TRACE=FILE in the environment each load appends a line `TECHNIQUE PID` to that file.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from fixtures import cases
from targets.api import (
    Answer,
    Device,
    Evidence,
    Floats,
    ModelFiles,
    Optimization,
    Request,
    Requirement,
    Runner,
    Task,
    Tick,
    Unavailable,
    no_tick,
)
from targets.registry import backends, optimizations

GOOD = frozenset({"good", "great", "excellent", "love", "wonderful"})
BAD = frozenset({"bad", "awful", "terrible", "hate", "dreadful"})
LONGEST = 64
"""Words it reads of a text."""


class KeywordRunner:
    """Counts good and bad words; two labels, the second the positive one. `before`: called with each call's number."""

    def __init__(self, names: Mapping[int, str], before: Callable[[int], None]) -> None:
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

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True)
class Behaviour(Optimization):
    """What a technique does to its process: once at load, and before each call (with its number, from 1)."""

    at_load: Callable[[], None] = lambda: None
    at_call: Callable[[int], None] = lambda number: None


class Fake:
    """The engine; `absent` says that a module it needs cannot be imported."""

    tasks = frozenset({"sentiment"})
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
        if trace := os.environ.get("FAKE_TRACE"):
            with Path(trace).open("a") as file:
                file.write(f"{optimization.name} {os.getpid()}\n")
        optimization.at_load()
        names = json.loads((artifact / "config.json").read_text())["id2label"]
        return KeywordRunner({int(index): name for index, name in names.items()}, optimization.at_call)


def say(words: str) -> None:
    """A last line on stderr, for the diagnosis to quote."""
    print(words, file=sys.stderr, flush=True)


def segfault(number: int) -> None:
    """Read address 0: the kernel sends SIGSEGV."""
    say("about to read address 0")
    ctypes.string_at(0)


def leave(number: int) -> None:
    """End the process as a library that calls exit() does."""
    say("leaving with 3")
    os._exit(3)


def hang(number: int) -> None:
    """Answer the first call, and never again."""
    if number > 1:
        say("waiting for ever")
        time.sleep(3600)


def exhaust(number: int) -> None:
    """Ask for more address space than this process may have."""
    resource.setrlimit(resource.RLIMIT_AS, (2**31, resource.getrlimit(resource.RLIMIT_AS)[1]))
    np.ones(2**33, dtype=np.uint8)


def die_at_third(number: int) -> None:
    """SIGKILL, as the kernel's out-of-memory killer sends it."""
    if number == 3:
        say("the third call")
        os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    """What a loader does with a file that it does not understand."""
    raise ValueError("these weights have 3 heads, the config says 2")


def lack() -> None:
    """What a backend does where the machine cannot run it."""
    raise Unavailable("the fake accelerator is not here: plug one in")


def breed() -> None:
    """Start a helper process that would outlive its parent by far, in another program without our hooks."""
    subprocess.Popen(["sleep", "3600"])


def limp(number: int) -> None:
    """A slow engine, so that there is time to kill something."""
    time.sleep(0.02)


def register(name: str, **deeds: Callable[..., None]) -> None:
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
            **deeds,  # type: ignore[arg-type]
        )
    )


REFERENCE = ("fake", "plain")
cases.REFERENCE = REFERENCE
backends.register("fake")(Fake("fake"))
backends.register("absent")(
    Fake("absent", (Requirement("a_module_that_nobody_has", "pip install '.[absent]'"),)),
)
register("plain")
register("segfault", at_call=segfault)
register("exit", at_call=leave)
register("hang", at_call=hang)
register("oom", at_call=exhaust)
register("kill-self", at_call=die_at_third)
register("load-error", at_load=refuse)
register("unavailable", at_load=lack)
register("parent", at_load=breed, at_call=limp)
register("slow", at_call=limp)
