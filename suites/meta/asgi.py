"""One call of an ASGI application without a server, for tests of what stands between the two."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

DENIAL: dict[str, dict[str, str]] = {"websocket.http.response": {}}


@dataclass
class Said:
    """What an application sent."""

    messages: list[Message] = field(default_factory=list)
    received: int = 0
    """How often the application asked for a message of the client."""

    @property
    def status(self) -> int:
        """Of the HTTP response, or of a denied handshake."""
        return int(next(each["status"] for each in self.messages if each["type"].endswith("http.response.start")))

    @property
    def headers(self) -> dict[str, str]:
        """Of the first message that has any."""
        pairs = next(each["headers"] for each in self.messages if "headers" in each)
        return {name.decode(): value.decode() for name, value in pairs}

    @property
    def body(self) -> bytes:
        """Of the whole response."""
        return b"".join(each.get("body", b"") for each in self.messages)

    @property
    def problem(self) -> dict[str, Any]:
        """The body as a problem document."""
        assert self.headers["content-type"] == "application/problem+json"
        told: dict[str, Any] = json.loads(self.body)
        assert told["status"] == self.status
        return told


def scope(
    method: str = "GET", path: str = "/echo", headers: Mapping[str, str] | None = None, kind: str = "http", **more: Any
) -> Scope:
    """An ASGI scope as uvicorn makes it."""
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    fixed = {"type": kind, "path": path, "raw_path": path.encode(), "query_string": b"", "client": ("192.0.2.1", 5)}
    own = {"method": method} if kind == "http" else {"extensions": DENIAL}
    return {**fixed, **own, "headers": pairs, "state": {}, **more}


def chunks(parts: Iterable[bytes]) -> list[Message]:
    """A body in parts, the last of them marked so."""
    whole = list(parts) or [b""]
    return [
        {"type": "http.request", "body": part, "more_body": index < len(whole) - 1} for index, part in enumerate(whole)
    ]


def call(app: ASGIApp, scope: Scope, messages: Iterable[Message] = (), *, stalls: bool = False) -> Said:
    """Run an application to its end.

    Args:
        app: what is called.
        scope: the connection.
        messages: what the client sends; afterwards it is gone.
        stalls: afterwards it is silent instead.
    """

    async def run() -> Said:
        said = Said()
        waiting = list(messages)

        async def receive() -> Message:
            said.received += 1
            if waiting:
                return waiting.pop(0)
            if stalls:
                await asyncio.Event().wait()
            return {"type": f"{scope['type']}.disconnect"}

        async def send(message: Message) -> None:
            said.messages.append(message)

        await app(scope, receive, send)
        return said

    return asyncio.run(run())


@dataclass
class Echo:
    """Answers with the body it got; notes the bodies."""

    bodies: list[bytes] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": []})
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client left, and its text was 'secret words'")
            body += message["body"]
            more = message["more_body"]
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"of the app")]})
        await send({"type": "http.response.body", "body": body})
        self.after.append((await receive())["type"])
