"""Stopping without losing anything: what was accepted is finished, connections end after their answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from targets.server.guards.refusal import refuse

TURNS = "turns"


class Drain:
    """Whether the server is stopping, and what came of it."""

    def __init__(self) -> None:
        self.begun = False
        self.cut = 0
        """Requests that were not finished when the time to stop was over."""


class Draining:
    """While the server stops, every answer asks the client to close; what runs out of time is told so by 503."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app = app
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def closing(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if self.drain.begun:
                    others = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
                    message = {**message, "headers": [*others, (b"connection", b"close")]}
            await send(message)

        try:
            return await self.app(scope, receive, closing)
        except asyncio.CancelledError:
            if not self.drain.begun:
                raise
            self.drain.cut += 1
            if started:  # the connection is dropped in the middle, by which a client sees that the answer is not whole
                raise
            told = "The server stops, and this request took longer than it waits; ask another replica, or again later."
            return await refuse(scope, closing, 503, told, [(b"retry-after", b"5")])


class Turns:
    """How many exchanges a WebSocket has under way, and what waits for the last of them to end."""

    def __init__(self) -> None:
        self.count = 0
        self.then: Callable[[], Any] | None = None


@contextlib.contextmanager
def turn(scope: Scope) -> Iterator[None]:
    """An exchange over a WebSocket, from the question to the last frame of its answer: a stopping server lets it end.

    Without it a stopping server closes the connection at once (1012, RFC 6455), as it does between turns.
    """
    turns: Turns = scope["state"].setdefault(TURNS, Turns())
    turns.count += 1
    try:
        yield
    finally:
        turns.count -= 1
        if turns.then and not turns.count:
            turns.then()
