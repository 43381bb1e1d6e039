"""The size of a request, and the time its body may take: judged here, before the application sees anything of it.

The body is read whole, which costs memory up to the limit and saves the application every slow or broken sender.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from targets.server.refusal import refuse

BODY_S = 30.0
"""Seconds in which a body has to arrive: 1 MiB at 35 KB/s."""
HEADER_BYTES = 32 * 1024
"""Bytes of a request's headers and target: four times what nginx and HAProxy allow for one line by default."""
CLOSE = (b"connection", b"close")


class Slow(Exception):
    """The body did not arrive in time."""


class TooLarge(Exception):
    """More bytes came than allowed."""


class Gone(Exception):
    """The client left in the middle of its body."""


class Guard:
    """Refuses headers beyond `header_bytes` (431), bodies beyond `max_bytes` (413) or slower than `body_s` (408).

    A declared length is judged at once, an undeclared one while it is counted.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, *, body_s: float = BODY_S, header_bytes: int = HEADER_BYTES
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.body_s = body_s
        self.header_bytes = header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        if header_size(scope) > self.header_bytes:
            told = f"The headers are larger than {self.header_bytes} bytes; send fewer or shorter ones."
            return await refuse(scope, send, 431, told, [CLOSE])
        if scope["type"] == "websocket" or not has_body(scope):
            return await self.app(scope, receive, send)
        try:
            body = await self._read(scope, receive)
        except Gone:
            return None
        except TooLarge:
            told = f"The body is larger than {self.max_bytes} bytes; send fewer or shorter texts a request."
            return await refuse(scope, send, 413, told)
        except Slow:
            told = f"The body did not arrive within {self.body_s:g} s; send it faster, or in smaller requests."
            return await refuse(scope, send, 408, told, [CLOSE])
        return await self.app(scope, Replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        if (length(scope) or 0) > self.max_bytes:
            raise TooLarge
        body = bytearray()
        async with Deadline(self.body_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                body += message.get("body", b"")
                if len(body) > self.max_bytes:
                    raise TooLarge
                if not message.get("more_body", False):
                    return bytes(body)


class Deadline:
    """A block that raises Slow where it waits when its time is over.

    Every request passes here, and anyio's cancel scope would cost it 15 µs more. (Python has its own from 3.11 on.)
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._passed = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = task.get_loop().call_later(self._seconds, self._pass)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._passed and kind is asyncio.CancelledError:
            if hasattr(self._task, "uncancel"):
                self._task.uncancel()
            raise Slow

    def _pass(self) -> None:
        self._passed = True
        self._task.cancel()


class Replay:
    """Gives a body that has been read to the application, and then whatever comes: that the client has left."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        """The next message."""
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def header_size(scope: Scope) -> int:
    """Bytes of a request's target and headers."""
    target = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
    return target + sum(len(name) + len(value) for name, value in scope["headers"])


def length(scope: Scope) -> int | None:
    """The declared length of the body in bytes; None if there is none, or none that is a number."""
    value = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(value) if value.isdigit() and len(value) < 20 else None


def has_body(scope: Scope) -> bool:
    """Whether a body was announced (RFC 9112, 6.3)."""
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
