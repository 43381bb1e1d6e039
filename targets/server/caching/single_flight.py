"""Of identical requests at one moment, one is answered and all share its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from targets.server.batching.batcher import DeadlinePassed

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Joins callers who want the same at the same time.

    The first one makes the value, in its own task: where nobody joins, which is the rule, nothing more is paid than a
    look into a dict. If it is cancelled, or its own deadline passes, one of the others makes the value in its place.

    Args:
        joined: called for each caller that finds another one at it.
    """

    def __init__(self, joined: Callable[[], object] = lambda: None) -> None:
        self._joined = joined
        self._flights: dict[str, asyncio.Future[T | None]] = {}
        """Values on their way; None instead of a value: its maker has left, and another caller has to make it."""

    def __len__(self) -> int:
        return len(self._flights)

    async def do(self, key: str, make: Callable[[], Awaitable[T]], deadline: float | None = None) -> T:
        """The value that `make` gives (never None), or that of another caller with this key who is at it already.

        Args:
            key: what is asked for.
            make: called for one caller at a time; it keeps this caller's deadline itself.
            deadline: how long to wait for another caller, by the event loop's clock.

        Raises:
            DeadlinePassed: for this caller alone.
            Exception: what `make` raised, for all of its callers.
        """
        if key in self._flights:
            self._joined()
        while (flight := self._flights.get(key)) is not None:
            value = await follow(flight, deadline)
            if value is not None:
                return value
        return await self._lead(key, make)

    async def _lead(self, key: str, make: Callable[[], Awaitable[T]]) -> T:
        flight: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
        self._flights[key] = flight
        try:
            value = await make()
        except BaseException as error:
            del self._flights[key]
            if isinstance(error, Exception) and not isinstance(error, DeadlinePassed):
                flight.set_exception(error)
                flight.exception()  # looked at: without followers nobody else would
            else:
                flight.set_result(None)
            raise
        del self._flights[key]
        flight.set_result(value)
        return value


async def follow(flight: asyncio.Future[T | None], deadline: float | None) -> T | None:
    """What a flight brings, without ending it when this caller leaves."""
    left = None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())
    done, _ = await asyncio.wait((flight,), timeout=left)
    if not done:
        raise DeadlinePassed
    return flight.result()
