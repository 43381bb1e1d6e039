"""How a WebSocket connection ends: a turn that has begun is finished, and who sent too much still hears why."""

from __future__ import annotations

import asyncio
from typing import Any

from targets.server.guards.drain import TURNS

REST_S = 5.0
"""How long the rest of a frame that was refused is still read, so that its sender can read why."""


class Held:
    """Mixed into a WebSocket protocol class of uvicorn by `held`."""

    scope: Any = None
    # What the uvicorn class brings along.
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    queue: asyncio.Queue[Any]
    conn: Any
    close_sent: bool
    close_timer: asyncio.TimerHandle | None
    read_paused: bool

    def shutdown(self) -> None:
        """The server stops."""
        turns = ((self.scope or {}).get("state") or {}).get(TURNS)
        if turns and turns.count:
            turns.then = super().shutdown  # type: ignore[misc]
        else:
            super().shutdown()  # type: ignore[misc]

    def handle_parser_exception(self) -> None:
        """What was sent cannot be read: say so, end our half, and await the other's.

        uvicorn closes at once. While the sender is still sending, that resets the connection, and the reset may
        overtake the reason. Called for each later read too, which is thrown away.
        """
        if self.close_sent:
            return
        end = self.conn.close_sent
        self.queue.put_nowait({"type": "websocket.disconnect", "code": end.code, "reason": end.reason})
        self.close_sent = True
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.write_eof()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(REST_S, self.transport.close)


def held(base: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
    """A WebSocket protocol class of uvicorn that ends in an orderly way."""
    return type(f"Held{base.__name__}", (Held, base), {})
