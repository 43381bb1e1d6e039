"""Which web pages may use this server: its own, and those of the origins that were allowed.

CORS keeps a foreign page from reading answers. It does not keep it from asking, and does not bind WebSockets at all:
without this, any page open in a browser on this machine could chat through a server on 127.0.0.1 and read the replies.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from targets.server.refusal import refuse

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class SameOrigin:
    """Refuses what a page of another origin asks: WebSockets and every method that makes the server work."""

    def __init__(self, app: ASGIApp, allowed: Collection[str] = ()) -> None:
        self.app = app
        self.allowed = frozenset(origin.rstrip("/") for origin in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] not in ("http", "websocket") or self._may(scope):
            return await self.app(scope, receive, send)
        told = "Pages of another origin may not use this server; whoever runs it allows yours with --cors-origins."
        return await refuse(scope, send, 403, told)

    def _may(self, scope: Scope) -> bool:
        if scope.get("method") in SAFE:
            return True
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or "*" in self.allowed or origin in self.allowed:
            return True  # no browser sends a cross-origin request without naming the origin
        return bool(urlsplit(origin).netloc == headers.get(b"host", b"").decode("latin-1"))
