"""An engine for the tests of the server, to be named in Settings.targets: it does what a text asks for, such as dying.

It serves sentiment and generation without any library, from whatever model folder; the first word of a text is its deed
(see `DEEDS`). Where a file named `deed` lies in the folder of artifacts, it does what stands there while it loads.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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
    Unsupported,
    UserError,
    no_tick,
)
from targets.closing import Closing
from targets.generation import Decoding, answer
from targets.optimization import Optimization
from targets.registry import backends, optimizations
from targets.remote.client import TimedOut
from targets.remote.process import ServerDied

NAME, PLAIN, SILENT = "odd", "odd-plain", "odd-silent"
TOKEN_S = 0.005


def refuse(text: str) -> None:
    """As targets refuse what they cannot take."""
    raise UserError("this text is refused; ask for something else")


def unavailable(text: str) -> None:
    """As a backend whose hardware is not there."""
    raise Unavailable("this machine has no such thing; install it")


def fail(text: str) -> None:
    """An error of the target's own."""
    raise ValueError(f"the target fails on {text!r}")


def spoil(text: str) -> None:
    """An error after which a GPU cannot be used by this process."""
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def bereave(text: str) -> None:
    """The server that the target had started is gone."""
    raise ServerDied("odd-server ended: signal SIGKILL")


def trouble(text: str) -> None:
    """The server that the target asks is silent."""
    raise TimedOut("http://10.1.2.3:8000 did not answer within 60 s")


def kill(text: str) -> None:
    """A death without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash(text: str) -> None:
    """A death in native code."""
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(text: str) -> None:
    """An end with an exit code."""
    print("odd: no more", flush=True)
    os._exit(7)


def hang(text: str) -> None:
    """No answer, ever."""
    time.sleep(3600)


def chatter(text: str) -> None:
    """More prints than any pipe holds."""
    for number in range(20_000):
        print(f"odd: line {number}")


DEEDS: dict[str, Callable[[str], None]] = {
    "refuse": refuse,
    "unavailable": unavailable,
    "fail": fail,
    "spoil": spoil,
    "bereave": bereave,
    "trouble": trouble,
    "kill": kill,
    "crash": crash,
    "leave": leave,
    "hang": hang,
    "chatter": chatter,
}


class OddRunner(Closing):
    """Echoes texts. An encoder's answer has the process id; a generator's is the prompt, word by word.

    Of a generator, `endless` writes words until it is stopped, and `count` tells how many words were ever written.
    """

    labels: dict[int, str] = {0: "odd", 1: "even"}  # noqa: RUF012 - as the protocol has it

    def __init__(self, generates: bool) -> None:
        self.generates = generates
        self.said = 0
        self.helper: subprocess.Popen[bytes] | None = None

    def run(self, batch: Sequence[Request], tick: Tick = no_tick) -> list[Answer]:
        """Do the deeds, then echo."""
        if self.generates:
            return [self._write(request, lambda _: tick()) for request in batch]
        return [self._echo(request["text"]) for request in batch]

    def logits(self, batch: Sequence[Request]) -> list[list[Floats]]:
        """None."""
        raise Unsupported("no logits")

    def evidence(self) -> Evidence:
        """One fact that is not as asked for."""
        return Evidence({"oddness": "odd"}, {"oddness": "even"})

    def close(self) -> None:
        """Leave the helper: whoever ends this process should see to it."""

    def _echo(self, text: str) -> Answer:
        deed(text)
        if text.startswith("helper"):
            self.helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
            return {"text": str(self.helper.pid), "pid": os.getpid(), "tokens": 1, "truncated": False}
        if text.startswith("nan"):
            return {"text": text, "score": float("nan"), "tokens": 1, "truncated": False}
        if text.startswith("object"):
            return {"text": object(), "tokens": 1, "truncated": False}
        return {"text": text, "pid": os.getpid(), "tokens": len(text.split()), "truncated": False}

    def _write(self, request: Request, say: Callable[[str], None]) -> Answer:
        prompt = request["prompt"]
        deed(prompt)
        limit = Decoding.of(request, 1_000_000).max_tokens
        words = [str(self.said)] if prompt == "count" else prompt.split()
        made: list[str] = []
        while len(made) < limit and (prompt.startswith("endless") or len(made) < len(words)):
            piece = words[len(made) % len(words)] + " "
            time.sleep(TOKEN_S)
            self.said += 1
            made.append(piece)
            say(piece)
        return answer("".join(made), None, output_tokens=len(made), tokens=len(words), finish="length")


class StreamingRunner(OddRunner):
    """One that can tell what it writes while it writes."""

    def stream(self, request: Request, say: Callable[[str], None], tick: Tick = no_tick) -> Answer:
        """Word by word."""

        def tell(piece: str) -> None:
            tick()
            say(piece)

        return self._write(request, tell)


def deed(text: str) -> None:
    """Do what the first word says, if it is one of the deeds."""
    word = text.partition(" ")[0]
    if word in DEEDS:
        DEEDS[word](text)


class OddEngine:
    """The backend."""

    name = NAME
    requires: tuple[Requirement, ...] = ()
    tasks = frozenset({"sentiment", "generation"})
    formats = frozenset({"safetensors"})
    preload: tuple[str, ...] = ()

    def build(self, model: ModelFiles, task: Task, optimization: Optimization, device: Device, cache: Path) -> Path:
        """The whole folder of artifacts, where a test may leave a deed."""
        return cache

    def load(self, model: ModelFiles, artifact: Path, task: Task, optimization: Optimization, device: Device) -> Runner:
        """At once, unless there is a deed to be done."""
        if (artifact / "deed").exists():
            deed((artifact / "deed").read_text())
        kind = StreamingRunner if optimization.name == PLAIN else OddRunner
        return kind(generates=task.family == "causal")


class Nothing(Optimization):
    """Nothing changed."""


backends.register(NAME)(OddEngine())
for each in (PLAIN, SILENT):
    optimizations.register(each)(
        Nothing(
            name=each,
            group="odd",
            summary="nothing changed",
            backends=frozenset({NAME}),
            families=frozenset(),
            max_drop=1.0,
            min_agreement=0.0,
        )
    )
