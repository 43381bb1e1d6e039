"""The server with engines that talk (see talking_engine.py), on a real socket in the event loop of a test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import httpx
import uvicorn
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from suites.meta.talking_engine import TalkingEngine
from targets.server.app import create_app
from targets.server.chat.session import Manners
from targets.server.guards.web_socket import held
from targets.server.routes.chat import Chats
from targets.server.service import Service
from targets.server.settings import Limits, ServedTask, Settings

T = TypeVar("T")
LIMITS = Limits(max_texts=4, max_text_chars=200, max_output_tokens=32, max_chats=3, deadline_s=5.0)
PATIENCE_S = 120.0
"""How long a test waits for what should happen at once."""


@dataclass
class Live:
    """A server that listens, what is behind it, and a client of it."""

    url: str
    service: Service
    web: httpx.AsyncClient
    server: Quiet

    def stop(self) -> None:
        """What SIGTERM does."""
        self.server.should_exit = True

    @property
    def chat(self) -> TalkingEngine:
        """The engine of chats."""
        return cast(TalkingEngine, self.service.engines["chat"])

    @property
    def generation(self) -> TalkingEngine:
        """The engine of prompts."""
        return cast(TalkingEngine, self.service.engines["generation"])

    async def events(self, path: str, body: Any) -> list[str]:
        """The data of all events that answer a body."""
        async with self.web.stream("POST", path, json=body) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            return [line[6:] async for line in response.aiter_lines() if line.startswith("data: ")]


class Quiet(uvicorn.Server):
    """A uvicorn server that leaves signals alone and says when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self.stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, and say so."""
        self.stopping.set()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        """They are pytest's."""
        yield


@contextlib.asynccontextmanager
async def serving(manners: Manners | None = None, **changes: Any) -> AsyncIterator[Live]:
    """A server for the time of the block."""
    tasks = {name: ServedTask(name, "llama-cpp-python", "q8_0", "small") for name in ("generation", "chat")}
    service = Service(
        Settings(**{"tasks": tasks, "limits": LIMITS, "cache": "off", **changes}),
        engine=cast(Any, TalkingEngine),
    )
    app = create_app(service.settings, service)
    if manners is not None:
        route = next(each for each in app.router.routes if getattr(each, "path", "") == "/chat")
        app.router.routes.remove(route)
        app.router.add_websocket_route("/chat", Chats(service, manners).serve)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        ws = held(AutoWebSocketsProtocol)  # type: ignore[arg-type]  # a class, where websockets is installed
        server = Quiet(uvicorn.Config(app, ws=ws, log_config=None, access_log=False, timeout_graceful_shutdown=5))
        running = asyncio.create_task(server.serve([listener]))
        async with httpx.AsyncClient(base_url=url) as web:
            await server.listening.wait()
            try:
                yield Live(url, service, web, server)
            finally:
                server.should_exit = True
                await running


def run(use: Callable[[Live], Awaitable[T]], manners: Manners | None = None, **changes: Any) -> T:
    """What `use` makes of a server."""

    async def main() -> T:
        async with serving(manners, **changes) as live:
            return await asyncio.wait_for(use(live), 3 * PATIENCE_S)

    return asyncio.run(main())
