"""One log line a request: who asked for which route, what came of it, how long it took. No text of any user."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger("targets.server.access")
QUIET = frozenset({"/health", "/ready", "/metrics"})
"""Asked by machines every few seconds: said at level debug only."""


class AccessLog:
    """Logs every HTTP request and WebSocket as one record with fields, when it is over.

    Args:
        app: what answers.
        routes: the paths that may be named although no route was matched, as when a request is refused before.

    The fields: `request_id`, `client`, `method`, `route` (null for an unknown path, which may hold anything), `status`
    (null if no answer was begun), `complete` (the whole answer was handed over), `ms`, `received_bytes`, `sent_bytes`.
    A query string is never logged.
    """

    def __init__(self, app: ASGIApp, routes: Collection[str] = ()) -> None:
        self.app = app
        self.routes = QUIET | set(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        level = logging.DEBUG if scope["path"] in QUIET else logging.INFO
        if not LOG.isEnabledFor(level):
            return await self.app(scope, receive, send)
        exchange = Exchange(receive, send)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        finally:
            LOG.log(level, scope["type"].replace("http", "request"), extra={"fields": self._fields(scope, exchange)})
        return None

    def _fields(self, scope: Scope, exchange: Exchange) -> dict[str, Any]:
        client = scope.get("client")
        return {
            "request_id": scope.get("state", {}).get("request_id"),
            "client": client[0] if client else None,
            "method": scope.get("method", "GET"),
            "route": getattr(scope.get("route"), "path", scope["path"] if scope["path"] in self.routes else None),
            **exchange.facts(),
        }


class Exchange:
    """What passed between a client and the application."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._began = time.perf_counter()
        self._status: int | None = None
        self._complete = False
        self._read = 0
        self._written = 0

    async def receive(self) -> Message:
        """The application reads."""
        message = await self._receive()
        self._read += size(message)
        return message

    async def send(self, message: Message) -> None:
        """The application writes."""
        await self._send(message)
        kind = message["type"]
        if kind.endswith("http.response.start"):
            self._status = message["status"]
        elif kind == "websocket.accept":
            self._status = 101
        elif kind.endswith("http.response.body"):
            self._complete = not message.get("more_body", False)
        elif kind == "websocket.close":
            self._status = self._status or 403  # what a server answers to a handshake that is closed, not accepted
            self._complete = True
        self._written += size(message)

    def facts(self) -> dict[str, Any]:
        """What came of it so far."""
        return {
            "status": self._status,
            "complete": self._complete,
            "ms": round((time.perf_counter() - self._began) * 1e3, 3),
            "received_bytes": self._read,
            "sent_bytes": self._written,
        }


def size(message: Message) -> int:
    """Bytes of the body or frame that a message carries."""
    text = message.get("text")
    return len(message.get("body") or message.get("bytes") or b"") + (len(text.encode()) if text else 0)
