"""Clients that hang up: what they asked for is given up, so that the queue is for those who still wait."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.requests import ClientDisconnect
from starlette.types import Receive

PATIENCE_S = 0.1
"""After so long without an answer the client is watched; a quick answer does not pay for a second task."""


class WhileConnected:
    """Cancels the block that it surrounds when the client hangs up, and then raises ClientDisconnect.

    `receive`: of a request whose body has been read, so that nothing else can come than the end of the connection.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        self._alarm = asyncio.get_running_loop().call_later(PATIENCE_S, self._watch)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarm.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and isinstance(error, asyncio.CancelledError):
            uncancel = getattr(self._task, "uncancel", None)  # from Python 3.11 on, cancellations are counted
            if uncancel is not None:
                uncancel()
            raise ClientDisconnect from None

    def _watch(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._task is not None:
            self._task.cancel()
