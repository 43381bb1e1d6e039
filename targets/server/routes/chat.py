"""WebSocket /chat: a conversation whose answers come token by token, remembered as long as the connection lasts.

The client sends JSON frames: `{"type": "message", "text": ...}` (with max_tokens, temperature, top_p, seed, stop, if it
likes), `{"type": "cancel"}`, `{"type": "reset"}` (with `system`, a system prompt). The server sends `token` frames with
pieces of `text`; then one `done` with the whole text, `finish` ("stop", "length", "cancelled"), counts, and in
`dropped_turns` how many of the oldest turns are forgotten because they no longer fit; `reset` when it has forgotten
everything; and `error` with what a problem document says. A message is answered by `done` or by `error`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from starlette.websockets import WebSocket

from targets.server.chat.conversation import Conversation
from targets.server.chat.frames import MessageFrame, reader
from targets.server.chat.session import ChatSession, Manners
from targets.server.http import frames
from targets.server.http.default_length import default_length
from targets.server.http.problems import Problem
from targets.server.service import Service

TRY_LATER = 1013
"""Close code (IANA's registry): there are too many chats now."""


def add(app: FastAPI, service: Service, manners: Manners | None = None) -> None:
    """The route, where chats are served."""
    if "chat" in service.engines:
        app.router.add_websocket_route("/chat", Chats(service, manners).serve)


class Chats:
    """All chats of a server."""

    def __init__(self, service: Service, manners: Manners | None = None) -> None:
        self._service = service
        self._limits = service.settings.limits
        self._manners = manners or replace(Manners(), frame_chars=self._limits.max_body_bytes)
        self._read = reader(self._limits)
        self._open = 0

    async def serve(self, socket: WebSocket) -> None:
        """One chat, from its handshake to its end; one too many is told so, and closed."""
        await socket.accept()
        if self._open >= self._limits.max_chats:
            problem = Problem(503, f"all {self._limits.max_chats} chats are taken; try again later")
            await socket.send_text(frames.packed(frames.failed(problem)))
            await socket.close(TRY_LATER, problem.detail)
            return
        memory = Conversation(self._limits.max_text_chars)
        self._open += 1
        try:
            await ChatSession(socket, self._service, self._read, self._decoding, memory, self._manners).serve()
        finally:
            self._open -= 1

    def _decoding(self, frame: MessageFrame) -> dict[str, Any]:
        return frame.decoding(default_length(self._service.engines["chat"].facts, self._limits))
