"""A name for every request, by which its answer, its problem and its log line find each other."""

from __future__ import annotations

import os
import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-request-id"
TAKEN = re.compile(rb"[A-Za-z0-9._-]{1,64}")
"""An id of the client's own is kept if it is one word of these: it goes into logs and headers."""
STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class RequestId:
    """Puts the id into `scope["state"]["request_id"]` and into the header `X-Request-ID` of the response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        name = given(scope) or os.urandom(16).hex().encode()
        scope.setdefault("state", {})["request_id"] = name.decode()

        async def named(message: Message) -> None:
            if message["type"] in STARTS:
                others = [pair for pair in message.get("headers", ()) if pair[0].lower() != HEADER]
                message = {**message, "headers": [*others, (HEADER, name)]}
            await send(message)

        return await self.app(scope, receive, named)


def given(scope: Scope) -> bytes | None:
    """The id that the client or a proxy before us chose, if it may be kept."""
    value = next((value for name, value in scope["headers"] if name == HEADER), b"")
    return value if TAKEN.fullmatch(value) else None
