"""The way of a request to one task's engine: the cache, then those who ask the same, then a batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Hashable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from targets.api import Answer, Request
from targets.generation import GeneratorTask
from targets.registry import backends, tasks
from targets.server.batching.batcher import Batcher, DeadlinePassed, QueueFull
from targets.server.caching.cache import Cache, key, pack, unpack
from targets.server.caching.single_flight import SingleFlight
from targets.server.engine.engine import Engine, EngineBusyStarting, EngineDied, EngineFacts
from targets.server.gauges import Watched
from targets.server.metrics import Metrics
from targets.server.settings import Batching, ServedTask, Settings

T = TypeVar("T")
TEXTS = frozenset({"text", "question", "context", "prompt", "messages"})
"""The keys of requests that hold what is read; all others say how to answer."""


class Lane:
    """One task. `cache` is set when the service starts, and None where nothing is kept."""

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self.engine = engine
        self.cache: Cache | None = None
        self.metrics = metrics.task(engine.served.task)
        self._cached = metrics.cache
        self._limit = settings.batching.max_queue
        self._patience_s = settings.limits.deadline_s
        self._streams = 0
        self._flights: SingleFlight[Answer] = SingleFlight(metrics.cache["joined"].inc)
        self._identity: tuple[EngineFacts | None, str] = (None, "")
        self._batcher = Batcher(
            self._run,
            policy(engine.served, settings.batching),
            length=length,
            compatible=decoding,
            observer=self.metrics,
            died=(EngineDied,),
            unready=(EngineBusyStarting,),
            recovered=self._recovered,
            ahead=engine.ahead,
            stoppable=isinstance(tasks[engine.served.task], GeneratorTask),
        )
        metrics.watch(self._watched())

    async def answer(self, request: Request, deadline: float) -> Answer:
        """The answer to a request, by a deadline of the event loop's clock. It is not to be changed: others share it.

        Raises:
            QueueFull, DeadlinePassed, Closed: it was not run, or not in time.
            EngineBusyStarting, EngineDied, TargetRefused, TargetFailed: as the engine says.
        """
        cache = self.cache
        if cache is None:
            return await self._asked(request, deadline)
        name = key(self._known_as(), request)
        kept = await cache.get(name)
        found = unpack(kept) if kept is not None else None
        if found is not None:
            self._cached["hit"].inc()
            return found

        async def make() -> Answer:
            self._cached["miss"].inc()
            made = await self._asked(request, deadline)
            await cache.put(name, pack(made))
            return made

        return await self._flights.do(name, make, deadline)

    async def stream(self, request: Request, patience_s: float) -> AsyncGenerator[str | Answer, None]:
        """Pieces of the answer's text as they come, at last the answer. Raises as `answer` does.

        `patience_s`: how long the first piece may take; the others come as fast as the engine makes them.
        """
        if self._streams >= self._limit:
            raise QueueFull(self._streams, self._batcher.retry_after_s)
        self._streams += 1
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with aclosing(self.engine.stream(request)) as pieces:
                piece = await in_time(anext(pieces), patience_s)
                first_s = loop.time() - began
                while isinstance(piece, str):
                    yield piece
                    piece = await anext(pieces)
                self._count(piece)
                self.metrics.streamed(first_s, self.engine.last_timing.run_s, loop.time() - began)
                yield piece
        finally:
            self._streams -= 1

    async def close(self) -> None:
        """Answer what was accepted, and take nothing more."""
        await self._batcher.drain()

    async def _asked(self, request: Request, deadline: float) -> Answer:
        answer = await self._batcher.submit(request, deadline)
        self._count(answer)
        return answer

    async def _run(self, batch: Sequence[Request]) -> Sequence[Answer]:
        answers = await self.engine.run(batch)
        tokenize_s = self.engine.last_timing.tokenize_s
        if tokenize_s is not None:
            for _ in batch:
                self.metrics.tokenized(tokenize_s)
        return answers

    async def _recovered(self) -> None:
        if not await self.engine.wait_ready(self._patience_s):
            raise EngineBusyStarting(f"the engine of {self.engine.served.task} does not come back", self._patience_s)

    def _count(self, answer: Answer) -> None:
        self.metrics.tokens(answer["tokens"], answer.get("output_tokens", 0))

    def _known_as(self) -> str:
        """What the engine's answers depend on, made anew when another model was loaded."""
        facts = self.engine.facts
        if facts is not self._identity[0]:
            self._identity = (facts, facts.identity)
        return self._identity[1]

    def _watched(self) -> Watched:
        engine, batcher = self.engine, self._batcher
        return Watched(
            engine.served.task,
            depth=lambda: batcher.depth + self._streams,
            ready=lambda: engine.state == "ready",
            restarts=lambda: engine.restarts,
            pid=lambda: engine.pid,
        )


def policy(served: ServedTask, batching: Batching) -> Batching:
    """How batches of a target are made: none where its engine takes one request after another anyway.

    There a batch would only keep the first answer waiting for the last one.
    """
    alone = getattr(backends[served.backend], "one_by_one", False)
    return replace(batching, max_batch_size=1, max_wait_ms=0.0) if alone else batching


async def in_time(made: Awaitable[T], patience_s: float) -> T:
    """What is made, within so many seconds. Raises DeadlinePassed."""
    try:
        return await asyncio.wait_for(made, patience_s)
    except asyncio.TimeoutError:
        raise DeadlinePassed from None


def length(request: Request) -> int:
    """Characters of a request's texts, those of a chat's turns among them."""
    turns = sum(len(turn["content"]) for turn in request.get("messages", ()))
    return turns + sum(len(value) for value in request.values() if isinstance(value, str))


def decoding(request: Request) -> Hashable:
    """How a request is to be answered: what differs in this cannot be generated in one batch."""
    if TEXTS.issuperset(request):
        return None
    return tuple(sorted((name, repr(value)) for name, value in request.items() if name not in TEXTS))
