"""The deadlines of all requests of a batcher, kept with one timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from targets.server.batch_queue import Waiting


class Deadlines:
    """Calls `passed` for each open request whose deadline has come.

    Nearly all requests are answered long before, in the order in which their deadlines would come. So there is no timer
    a request: the one for all looks, when it rings, who is still open, and is set to the next deadline among those.
    """

    def __init__(self, open_requests: Callable[[], Iterable[Waiting]], passed: Callable[[Waiting], None]) -> None:
        self._open, self._passed = open_requests, passed
        self._timer: asyncio.Handle | None = None
        self._due = 0.0  # kept here: of a timer that is due at once, uvloop's handle does not tell when

    def watch(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        """A request with this deadline has come."""
        if self._timer is not None:
            if self._due <= deadline:
                return
            self._timer.cancel()
        self._due = deadline
        self._timer = loop.call_at(deadline, self._ring, loop, deadline)

    def stop(self) -> None:
        """Forget all deadlines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._timer = None
        now = max(loop.time(), due)  # a loop's timers may ring early by the resolution of its clock
        upcoming: float | None = None
        for item in list(self._open()):
            if item.deadline is None or item.gone:
                continue
            if item.deadline <= now:
                self._passed(item)
            elif upcoming is None or item.deadline < upcoming:
                upcoming = item.deadline
        if upcoming is not None:
            self.watch(loop, upcoming)
