"""An event loop whose clock is virtual: it jumps to the next timer as soon as nothing else is left to do.

Waiting so takes no time and lasts exactly as long as it says, whatever else the machine does.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(AssertionError):
    """Everything waits, and nothing will ever wake it."""


class JumpingSelector(selectors.SelectSelector):
    """Never blocks: where a loop would sleep, the clock moves instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now."""
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Stuck("every task waits, and no timer is set")
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop on that clock, which starts at 0."""

    def __init__(self) -> None:
        self.jumping = JumpingSelector()
        super().__init__(self.jumping)

    def time(self) -> float:
        """Virtual seconds."""
        return self.jumping.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time. Raises Stuck where it would hang."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(end_the_rest())
        loop.close()


async def end_the_rest() -> None:
    """Cancel every other task, and wait for its end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def settle() -> None:
    """Return when all that can happen now has happened."""
    await asyncio.sleep(1e-6)
