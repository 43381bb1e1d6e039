"""A server without models: the real application around a service whose answers are made up, and a client to ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import httpx

from targets.api import Answer, Request
from targets.server.app import create_app
from targets.server.metrics import Metrics
from targets.server.settings import Limits, ServedTask, Settings

T = TypeVar("T")
TASKS = ("sentiment", "ner", "qa", "summarization", "translation", "generation", "chat")
LIMITS = Limits(max_texts=4, max_text_chars=50, max_output_tokens=16, deadline_s=5.0)
MODEL = {"name": "embedded", "digest": "d" * 64, "backend": "onnxruntime", "optimization": "int8"}
READ: Mapping[str, Any] = {"tokens": 3, "truncated": False}


def settings(**changes: Any) -> Settings:
    """Every task, under small limits."""
    tasks = {name: ServedTask(name, "onnxruntime", "int8") for name in TASKS}
    return Settings(**{"tasks": tasks, "limits": LIMITS, **changes})


def made_up(task: str, request: Request) -> Answer:
    """A well-formed answer that tells which request it belongs to."""
    if task == "sentiment":
        return {"label": request["text"], "scores": {request["text"]: 1.0}, **READ}
    if task == "ner":
        whole = {"label": "PER", "text": request["text"], "start": 0, "end": len(request["text"]), "score": 0.5}
        return {"entities": [whole], **READ}
    if task == "qa":
        return {"text": request["context"], "start": 0, "end": 1, "score": 0.5, "windows": 1, **READ}
    text = request.get("text", request.get("prompt"))
    return {"text": text, "token_ids": [1], "output_tokens": 1, "finish": "stop", "dropped_turns": 0, **READ}


class FakeService:
    """What the routes need of a service. `error` is raised instead of answers; `asked` is what came through."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engines = dict.fromkeys(settings.tasks)
        self.metrics = Metrics()
        self.ready = True
        self.error: Exception | None = None
        self.broken: Exception | None = None
        self.asked: list[Any] = []
        self.hold: asyncio.Event | None = None
        self.cancelled = asyncio.Event()

    async def start(self) -> None:
        if self.broken is not None:
            raise self.broken

    async def close(self) -> None:
        self.ready = False

    def model(self, task: str) -> Mapping[str, str]:
        return MODEL

    def states(self) -> dict[str, dict[str, Any]]:
        state = "ready" if self.ready else "starting"
        told = {"state": state, "backend": "onnxruntime", "optimization": "int8", "model": "embedded", "restarts": 0}
        return dict.fromkeys(self.settings.tasks, told)

    async def answers(self, task: str, requests: Sequence[Request], within_s: float, width: int | None) -> list[Answer]:
        self.asked.append((task, list(requests), within_s, width))
        if self.error is not None:
            raise self.error
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return [made_up(task, request) for request in requests]


Use = Callable[[httpx.AsyncClient, FakeService], Awaitable[T]]


def serve(use: Use[T], prepare: Callable[[FakeService], None] | None = None, **changes: Any) -> T:
    """What `use` makes of a client and the service behind it."""

    async def main() -> T:
        service: Any = FakeService(settings(**changes))
        if prepare is not None:
            prepare(service)
        app = create_app(service.settings, service)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://x") as web:
            return await use(web, service)

    return asyncio.run(main())


@cache
def standing() -> httpx.ASGITransport:
    """An application that stands for many requests: making one takes longer than asking it."""
    service: Any = FakeService(settings())
    return httpx.ASGITransport(create_app(service.settings, service), raise_app_exceptions=False)


def ask(method: str, path: str, *, prepare: Callable[[FakeService], None] | None = None, **asked: Any) -> Any:
    """The response to one request; with `prepare` of an application of its own."""

    async def use(web: httpx.AsyncClient, _service: FakeService) -> httpx.Response:
        return await web.request(method, path, **asked)

    async def alone() -> httpx.Response:
        async with httpx.AsyncClient(transport=standing(), base_url="http://x") as web:
            return await web.request(method, path, **asked)

    return serve(use, prepare) if prepare else asyncio.run(alone())


def post(path: str, body: Any, **asked: Any) -> Any:
    """The response to a JSON body."""
    return ask("POST", path, json=body, **asked)
