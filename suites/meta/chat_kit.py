"""A client of WebSocket /chat, and what the engine behind it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import websockets

from suites.meta.live_server import PATIENCE_S, Live, run
from targets.server.chat.session import Manners


class Client:
    """A client of /chat."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket

    async def tell(self, kind: str, **more: Any) -> None:
        """Send a frame."""
        await self.socket.send(json.dumps({"type": kind, **more}))

    async def hear(self) -> Any:
        """The next frame."""
        return json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE_S))

    async def ask(self, text: str, **more: Any) -> tuple[list[str], Any]:
        """The pieces that answer a message, and the frame that ends the answer."""
        await self.tell("message", text=text, **more)
        return await self.answer()

    async def answer(self) -> tuple[list[str], Any]:
        """The pieces up to the end of an answer, and that."""
        pieces: list[str] = []
        while (frame := await self.hear())["type"] == "token":
            pieces.append(frame["text"])
        return pieces, frame

    async def closed(self) -> int | None:
        """The code with which the server closes the connection."""
        await asyncio.wait_for(self.socket.wait_closed(), PATIENCE_S)
        return self.socket.close_code


def connect(live: Live) -> websockets.connect:
    """A connection to /chat."""
    return websockets.connect(live.url.replace("http", "ws") + "/chat", proxy=None)


def chatting(use: Callable[[Live, Client], Awaitable[Any]], manners: Manners | None = None, **changes: Any) -> Any:
    """What `use` makes of a client that has connected."""

    async def main(live: Live) -> Any:
        async with connect(live) as socket:
            return await use(live, Client(socket))

    return run(main, manners, **changes)


def said(live: Live, number: int = -1) -> list[str]:
    """The contents of the messages that the engine was given."""
    return [turn["content"] for turn in live.chat.asked[number]["messages"]]
