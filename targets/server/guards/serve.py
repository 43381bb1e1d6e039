"""Runs an ASGI application with uvicorn: bounded connections, one log line when it listens, and an orderly end.

The first SIGTERM or SIGINT stops accepting, lets what was accepted finish within `shutdown_s`, and ends with exit code
0 (1 if something had to be cut off). The second one ends at once, with 128 + its number.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from targets.api import UserError
from targets.server.guards.connection import ConnectionLimits, watched
from targets.server.guards.drain import Drain
from targets.server.guards.listening import BACKLOG, url
from targets.server.guards.web_socket import held

LOG = logging.getLogger("targets.server")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
KEEP_ALIVE_S = 5
"""Seconds that an idle connection is kept. A proxy before the server must give its own up earlier."""
CUT, FAILED, REFUSED = 1, 3, 2
"""Exit codes: something was cut off; it could not start; it could not start because of what the user asked for."""


class Start:
    """Tells a failed start apart: what the user can mend is one sentence, everything else is logged with its trace."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app = app
        self.drain = drain
        self.mistake: UserError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "lifespan":
            return await self.app(scope, receive, send)

        async def briefly(message: Message) -> None:
            await send({**message, "message": ""} if message["type"].endswith(".failed") else message)

        try:
            return await self.app(scope, receive, briefly)
        except UserError as mistake:
            self.mistake = mistake
            raise
        except asyncio.CancelledError:
            if not self.drain.begun:
                raise
            return None  # called off by a signal: nothing has failed
        except Exception as error:
            # No request is under way, so the message quotes no user.
            LOG.error("could not start or stop", exc_info=error, extra={"fields": {"message": str(error)}})
            raise


class Server(uvicorn.Server):
    """A uvicorn server that says where it listens, and ends as described above."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self.drain = drain
        self._serving: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal comes."""
        self._serving = asyncio.current_task()
        try:
            await super().serve(sockets)
        except asyncio.CancelledError:
            if self.started or not self.drain.begun:
                raise
            LOG.info("stopped before it was ready")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen."""
        await super().startup(sockets)
        for listener in sockets or ():
            LOG.info("listening", extra={"fields": {"url": url(listener), "pid": os.getpid()}})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what was accepted."""
        LOG.info("stopping", extra={"fields": {"connections": len(self.server_state.connections)}})
        for listener in sockets or ():
            await self._take_in(listener)
        await super().shutdown(sockets)
        LOG.info("stopped", extra={"fields": {"cut_off": self.drain.cut}})

    async def _take_in(self, listener: socket.socket) -> None:
        """Accept whom the kernel has let in: closing the listener would reset them, with what they have sent."""
        loop, config = asyncio.get_running_loop(), self.config
        while True:
            try:
                line, _ = listener.accept()
            except OSError:  # nobody waits any more, or there are no descriptors left
                return
            line.setblocking(False)
            await loop.connect_accepted_socket(
                lambda: config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn's own startup makes it
                    config=config, server_state=self.server_state, app_state=self.lifespan.state
                ),
                line,
            )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals for this time; uvicorn would raise them again at the end, and spoil the exit code."""
        loop = asyncio.get_running_loop()

        def handle(number: int, _frame: FrameType | None) -> None:
            if self.drain.begun:
                os._exit(128 + number)
            self.drain.begun = True
            loop.call_soon_threadsafe(self._stop)

        before = {number: signal.signal(number, handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        self.should_exit = True
        if not self.started and self._serving is not None:
            self._serving.cancel()  # a model that takes minutes to load need not be waited for


def serve(
    app: ASGIApp,
    listener: socket.socket,
    drain: Drain,
    limits: ConnectionLimits,
    *,
    max_message_bytes: int,
    shutdown_s: float,
) -> int:
    """Serve an application on a bound socket until a signal comes.

    Args:
        app: the application, with its guards around it.
        listener: from `targets.server.guards.listening.bind`.
        drain: the one that the guards know.
        limits: of the connections.
        max_message_bytes: largest WebSocket message; a larger one closes its connection (1009, RFC 6455).
        shutdown_s: how long what was accepted may take after the first signal.

    Returns:
        The exit code.

    Raises:
        UserError: the application could not start because of what the user asked for.
    """
    start = Start(app, drain)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # what it says at info holds query strings
    if AutoWebSocketsProtocol is None:
        LOG.warning("no WebSocket library: /chat is not served over WebSocket; pip install websockets")
    config = uvicorn.Config(
        start,
        http=watched(AutoHTTPProtocol, limits),
        ws=held(AutoWebSocketsProtocol) if isinstance(AutoWebSocketsProtocol, type) else "none",
        ws_max_size=max_message_bytes,
        ws_per_message_deflate=False,  # a token is too short to be compressed, and each connection would hold a window
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(shutdown_s),
        backlog=BACKLOG,
        h11_max_incomplete_event_size=limits.header_bytes,
    )
    server = Server(config, drain)
    with listener, contextlib.suppress(SystemExit):  # with which later versions of uvicorn say that it did not start
        server.run(sockets=[listener])
    if start.mistake:
        raise start.mistake
    if not server.started and not drain.begun:
        return FAILED
    return CUT if drain.cut else 0
