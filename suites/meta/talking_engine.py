"""An engine for tests of streams and chats: words by arithmetic, token by token, in this process and on demand.

No accuracy or speed of anything is ever reported from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from targets.api import Answer, Request
from targets.generation import ContextOverflow, answer, cut_at_stop
from targets.server.engine.engine import EngineFacts, Timing
from targets.server.engine.errors import EngineDied, TargetRefused
from targets.server.settings import ServedTask, Settings

WORDS = ("one", " two", " three", " four", " five", " six")
CONTEXT = 64


class TalkingEngine:
    """What a Service needs of an Engine (see targets/server/engine/engine.py). A prompt has a token a word.

    It answers a chat with how many messages it was given, and the last of them; a prompt with WORDS over and over. A
    text that holds `die` kills it after two pieces, `bug` makes it raise what nobody foresaw, `long` is too long for
    it, `drop` costs the chat its two oldest turns. Where there is a `gate`, each piece waits for it. `asked`: all
    requests; `began` and `left`: set when a stream began, and when one was closed before its end.
    """

    def __init__(self, served: ServedTask, settings: Settings, *, log: Any) -> None:
        self.served = served
        self.state = "ready"
        self.restarts, self.ahead = 0, False
        self.pid = None
        self.last_timing = Timing(0.0, None)
        self.asked: list[Request] = []
        self.gate: asyncio.Semaphore | None = None
        self.began = asyncio.Event()
        self.left = asyncio.Event()
        self.facts = EngineFacts(
            task=served.task,
            model="small",
            digest="d" * 64,
            backend=served.backend,
            optimization=served.optimization,
            labels={},
            evidence=None,
            load_s=0.0,
            family="causal",
            streams=True,
            context=CONTEXT,
        )

    async def start(self) -> None:
        """Nothing is loaded."""

    async def close(self) -> None:
        """Nothing is held."""

    async def wait_ready(self, timeout_s: float) -> bool:
        """It always is."""
        return True

    async def run(self, batch: Sequence[Request]) -> list[Answer]:
        """The answers, in order."""
        self.asked += batch
        return [reply(request)[1] for request in batch]

    async def stream(self, request: Request) -> AsyncGenerator[str | Answer, None]:
        """The pieces, and at last the answer."""
        self.asked.append(request)
        self.began.set()
        pieces, whole = reply(request)
        ended = False
        try:
            for number, piece in enumerate(pieces):
                if self.gate is not None:
                    await self.gate.acquire()
                if number == 2 and "die" in text_of(request):
                    ended = True
                    raise EngineDied("the engine died")
                if number == 2 and "bug" in text_of(request):
                    ended = True
                    raise LookupError("nobody foresaw this")
                yield piece
            ended = True
            yield whole
        finally:
            if not ended:
                self.left.set()


def text_of(request: Request) -> str:
    """What is asked."""
    return str(request["prompt"] if "prompt" in request else request["messages"][-1]["content"])


def reply(request: Request) -> tuple[list[str], Answer]:
    """The pieces of an answer, and the answer."""
    text, output = text_of(request), request.get("max_tokens", 32)
    messages = request.get("messages", ())
    size = sum(len(turn["content"].split()) for turn in messages) if messages else len(text.split())
    if "long" in text:
        raise TargetRefused(str(ContextOverflow.of(size, output, CONTEXT)))
    said = [f"{len(messages)}", *(f" {word}" for word in text.split())] if messages else list(WORDS) * 20
    ended = len(said) <= output and not request.get("ignore_eos")
    said = (said * output)[:output] if not ended else said
    whole, stopped = cut_at_stop("".join(said), request.get("stop", ()))
    pieces, at = list[str](), 0
    for piece in said:
        if at < len(whole):
            pieces.append(piece[: len(whole) - at])
            at += len(piece)
    return pieces, answer(
        whole,
        None,
        output_tokens=len(pieces),
        tokens=size,
        finish="stop" if stopped or ended else "length",
        dropped_turns=2 if "drop" in text else 0,
    )
