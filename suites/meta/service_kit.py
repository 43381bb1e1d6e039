"""A service whose engines answer at once, fail or wait as a test tells them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from suites.meta.server_kit import settings
from targets.api import Answer, Request
from targets.server.engine.engine import EngineFacts, Timing
from targets.server.engine.errors import EngineBusyStarting, TargetRefused
from targets.server.service import Service
from targets.server.settings import ServedTask, Settings

T = TypeVar("T")


class FakeEngine:
    """An engine without a process. The next calls of `run` raise `errors`, and every one with the text `refused`.

    `gate` holds every call, and `first` every stream before its first piece.
    """

    def __init__(self, served: ServedTask, settings: Settings, *, log: Any) -> None:
        self.served, self.settings, self.log = served, settings, log
        self.ahead = False
        self.state, self.restarts, self.pid = "starting", 0, None
        self.last_timing = Timing(0.001, 0.0005)
        self.refusal: Exception | None = None
        self.errors: list[Exception] = []
        self.refused: str | None = None
        self.batches: list[list[Request]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = asyncio.Event()
        self.first = asyncio.Event()
        self.first.set()
        self.closed = 0
        self.streams_ended = 0
        self.digest = "1" * 64
        self.known: EngineFacts | None = None

    @property
    def facts(self) -> EngineFacts:
        if self.state == "starting":
            raise EngineBusyStarting("it starts")
        named = (self.served.task, self.served.model, self.digest, self.served.backend, self.served.optimization)
        if self.known is None or self.known.digest != self.digest:
            self.known = EngineFacts(*named, labels={}, evidence=None, load_s=0.1, family="encoder")
        return self.known

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        self.state = "ready"

    async def close(self) -> None:
        self.closed += 1
        self.state = "stopped"

    async def wait_ready(self, timeout_s: float) -> bool:
        return self.state == "ready"

    async def run(self, batch: Sequence[Request]) -> list[Answer]:
        self.batches.append(list(batch))
        self.running.set()
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        if any(request["text"] == self.refused for request in batch):
            raise TargetRefused("not this")
        return [{"label": request["text"], "tokens": 3, "truncated": False} for request in batch]

    async def stream(self, request: Request) -> AsyncGenerator[str | Answer, None]:
        try:
            await self.first.wait()
            for piece in request["text"]:
                yield piece
                await self.gate.wait()
            yield {"text": request["text"], "tokens": 2, "output_tokens": 5}
        finally:
            self.streams_ended += 1


MADE_UP: Any = FakeEngine
Use = Callable[[Service, Any], Awaitable[T]]


def with_service(use: Use[T], **changes: Any) -> T:
    """What `use` makes of a started service of one task and its engine."""

    async def main() -> T:
        tasks = {"sentiment": ServedTask("sentiment", "onnxruntime", "int8")}
        service = Service(settings(**{"tasks": tasks, **changes}), engine=MADE_UP)
        await service.start()
        try:
            return await use(service, service.engines["sentiment"])
        finally:
            await service.close()

    return asyncio.run(main())


def text(content: str) -> Request:
    return {"text": content}


def value(service: Service, name: str, **labels: str) -> float:
    """A metric's value now."""
    found = service.metrics.registry.get_sample_value(name, labels)
    assert found is not None, f"{name}{labels} is not measured"
    return found
