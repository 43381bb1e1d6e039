"""A request turned down before the application sees it: an RFC 9457 problem, over HTTP or on a bare connection."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus

from starlette.types import Message, Scope, Send

TYPE = "application/problem+json"
DENIAL = "websocket.http.response"
"""The ASGI extension with which a WebSocket handshake is answered by a response of one's own."""
POLICY = 1008
"""WebSocket close code: the message breaks a rule of the server (RFC 6455, 7.4.1)."""

Headers = Iterable[tuple[bytes, bytes]]


def problem(status: int, detail: str, instance: str | None = None) -> bytes:
    """The document: what went wrong in general (title), what to do about it (detail), which request it was."""
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return json.dumps({**told, "instance": instance} if instance else told).encode()


async def refuse(scope: Scope, send: Send, status: int, detail: str, headers: Headers = ()) -> None:
    """Answer a request with a problem. A WebSocket handshake is denied, or closed where the server cannot do that."""
    prefix = ""
    if scope["type"] == "websocket":
        if DENIAL not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": POLICY, "reason": detail[:120]})
            return
        prefix = "websocket."
    body = problem(status, detail, scope.get("state", {}).get("request_id"))
    described = [(b"content-type", TYPE.encode()), (b"content-length", str(len(body)).encode()), *headers]
    start: Message = {"type": f"{prefix}http.response.start", "status": status, "headers": described}
    await send(start)
    await send({"type": f"{prefix}http.response.body", "body": body})


def bare(status: int, detail: str, headers: Headers = ()) -> bytes:
    """A whole HTTP/1.1 response, for a connection on which no request could be read. The connection ends after it."""
    body = problem(status, detail)
    fixed = [(b"content-type", TYPE.encode()), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
    lines += [name + b": " + value for name, value in (*fixed, *headers)]
    return b"\r\n".join([*lines, b"", body])
