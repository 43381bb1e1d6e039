"""What a client may do to a connection before there is a request: how many, how slow, how large.

uvicorn starts its one timer, keep-alive, after an answer, and stops it at the next byte. A client that says nothing, or
one header byte a second, would hold its connection for ever. So its protocol classes, h11's and httptools' alike, get a
deadline that no byte renews for the headers of a request, and for the rest of a body that was refused; and a bound on
the headers' bytes, which httptools has none of. A body that is wanted is timed in guard.py, answers by the kernel
(listening.py).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from targets.server.guards.gathered import Gathered
from targets.server.guards.guard import HEADER_BYTES
from targets.server.guards.logs import Tally
from targets.server.guards.refusal import Headers, bare

LOG = logging.getLogger("targets.server.connections")
LINGER_S = 0.25
"""How long a stopping server still takes requests on idle connections: those sent before the client could know."""
AWAY_S = 1.0
"""How long a client that was turned away has for reading why; closing at once would reset what it has not read."""
REST_BYTES = 32 << 20
"""Bytes of a refused body that are still read, so that a client which sends everything first gets to the refusal."""
AWAY = 64
"""Turned-away connections that are held so at a time; beyond them they are reset, so that a flood holds nothing."""


@dataclass
class ConnectionLimits:
    """What holds for every connection.

    Attributes:
        connections: at most so many at a time, idle ones and WebSockets included.
        header_s: seconds from connecting, or from the first byte of a later request, to the end of its headers.
        rest_s: seconds in which the rest of a refused body is still read, so that its sender can read the refusal.
        header_bytes: bytes of the headers; what came with them in one read (at most 256 KiB) is not counted.
    """

    connections: int = 512
    header_s: float = 10.0
    rest_s: float = 10.0
    header_bytes: int = HEADER_BYTES
    away: int = field(default=0, init=False)
    tally: Tally = field(default_factory=lambda: Tally(LOG), init=False)


class Watched:
    """Mixed into an HTTP protocol class of uvicorn by `watched`."""

    limits: ConnectionLimits
    # What the uvicorn class brings along.
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    connections: set[Any]
    cycle: Any
    _timer: asyncio.TimerHandle | None = None
    _phase: tuple[str, Any] = ("", None)
    _received = 0
    _away = False
    _lingers = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client has connected."""
        super().connection_made(Gathered(transport, self.loop))  # type: ignore[misc]
        if len(self.connections) > self.limits.connections:
            self._turn_away()
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._away:
            return
        before = self._phase[0]
        super().data_received(data)  # type: ignore[misc]
        self._watch()
        now = self._phase[0]
        if now == "headers" and before == "rest":
            return
        self._received += len(data)
        if now == "headers" and self._received > self.limits.header_bytes:
            told = f"The headers are larger than {self.limits.header_bytes} bytes; send fewer or shorter ones."
            self._end("headers too large", bare(431, told))
        elif now == "rest" and self._received > REST_BYTES:
            self._end("refused body too large", b"")

    def on_message_complete(self) -> None:
        """A request has come whole. (Called by httptools; it leaves the mark of a refused one as it was.)"""
        super().on_message_complete()  # type: ignore[misc]
        if self.cycle is not None:
            self.cycle.more_body = False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._stop_timer()
        self.limits.away -= self._lingers
        self._lingers = False
        super().connection_lost(exc)  # type: ignore[misc]

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._end("not HTTP", bare(400, f"{msg} Send an HTTP/1.1 request."))

    def shutdown(self) -> None:
        """The server stops: a connection without a request is closed after a moment, one with a request after it."""
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(LINGER_S, super().shutdown)  # type: ignore[misc]
        else:
            super().shutdown()  # type: ignore[misc]

    def _where(self) -> tuple[str, Any]:
        """What is awaited from the client now: "headers", the "rest" of a refused body, or nothing ("")."""
        cycle = self.cycle
        if self.transport.is_closing() or self not in self.connections:  # the latter: it has become a WebSocket
            return "", None
        if cycle is None:
            return "headers", None
        if not cycle.response_complete:
            return "", cycle
        return ("rest" if cycle.more_body else "headers"), cycle

    def _watch(self) -> None:
        phase = self._where()
        if phase == self._phase:
            return
        self._stop_timer()
        self._phase, self._received = phase, 0
        if phase[0]:
            allowed = self.limits.header_s if phase[0] == "headers" else self.limits.rest_s
            self._timer = self.loop.call_later(allowed, self._expired)

    def _expired(self) -> None:
        if self._where() != self._phase:
            return
        if not self._received:  # browsers connect before they have anything to ask
            self.transport.close()
            return
        if self._phase[0] == "rest":
            self._end("refused body too slow", b"")
            return
        told = f"The headers did not arrive within {self.limits.header_s:g} s; send them faster."
        self._end("headers too slow", bare(408, told))

    def _end(self, why: str, response: bytes) -> None:
        """Close, after a response unless another one is half written."""
        self._stop_timer()
        self._say(why)
        if self.transport.is_closing():
            return
        if response and (self.cycle is None or self.cycle.response_complete or not self.cycle.response_started):
            self.transport.write(response)
        self.transport.close()

    def _turn_away(self) -> None:
        self._away = True
        self.connections.discard(self)
        self._say("too many connections")
        told = f"All {self.limits.connections} connections are taken; try again later."
        again: Headers = [(b"retry-after", b"1")]
        self.transport.write(bare(503, told, again))
        if self.limits.away >= AWAY:
            self.transport.close()
            return
        self.limits.away += 1
        self._lingers = True
        self.transport.write_eof()
        self._timer = self.loop.call_later(AWAY_S, self.transport.close)

    def _say(self, event: str) -> None:
        client = self.transport.get_extra_info("peername")
        self.limits.tally.count(event, {"client": client[0] if client else None})

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def watched(base: type[asyncio.Protocol], limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """An HTTP protocol class of uvicorn with these limits, which all its connections share."""
    return type(f"Watched{base.__name__}", (Watched, base), {"limits": limits})
