"""Dynamic batching: requests that wait for one engine are answered together, each with its own answer.

One event loop, one worker task, no locks. While the engine runs a batch the next requests gather; when it is free, or
nearly so, they leave, the oldest first, up to `max_batch_size` of about one length (queue.py). A full batch leaves at
once. An idle engine starts at once too, unless what this very traffic has shown says that a wait pays (company.py),
and then it waits `max_wait_ms` at most. A request at fault fails alone (isolation.py).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from typing import Protocol

from targets.api import Answer, Request, UserError
from targets.server.batching.company import Company
from targets.server.batching.cost import BatchCost
from targets.server.batching.deadlines import Deadlines
from targets.server.batching.isolation import Faults, Isolation, Run, refuse
from targets.server.batching.queue import BatchQueue, Waiting

log = logging.getLogger("targets.server.batching")
LEAD_S = 0.003
"""How long before the engine is expected to be free it gets its next batch: what a busy event loop may take to do so.
Later it would pause, earlier fewer requests would have gathered."""


class QueueFull(Exception):
    """As many requests wait as may; `retry_after_s` is about how long those will take."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(f"{waiting} requests are waiting, and the queue has no room for more; try again later")
        self.retry_after_s = retry_after_s


class DeadlinePassed(Exception):
    """A request was not answered in time."""

    def __init__(self) -> None:
        super().__init__("the request was not answered before its deadline; ask for less, or allow it more time")


class Closed(Exception):
    """No more requests are taken, or this one was still waiting when the batcher was ended."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")


class Policy(Protocol):
    """How batches are made: `settings.Batching`."""

    @property
    def max_batch_size(self) -> int:
        """Requests in a batch at most."""

    @property
    def max_wait_ms(self) -> float:
        """The longest that a request waits for company while the engine is idle."""

    @property
    def max_queue(self) -> int:
        """Requests that may wait."""


class BatchObserver(Protocol):
    """Who wants to know of batches."""

    def ran(self, queued_s: Sequence[float], run_s: float) -> None:
        """A batch was answered: how long each of its requests had waited, and how long the engine took."""


class Batcher:
    """Collects requests into batches for `run`, which gets a batch at a time, with `ahead` a second one beside it.

    Args:
        run: the engine.
        policy: the bounds.
        length: the size of a request in any unit that its cost grows with (characters do); 1 for all if they do not.
        compatible: requests with equal values can be in one batch.
        observer: hears of every batch that was answered.
        died: what `run` raises when the engine ended or hung: nobody knows which request was at fault.
        unready: what it raises when it cannot run anything now: each request gets it, and nothing is tried again.
        ahead: give the engine its next batch shortly before it is done with the one it has, so that it never waits.
        stoppable: `run` can be cancelled in the middle of its work: it is when nobody waits for its answers any more.
        recovered: waits until an engine that died runs again, or raises that it will not. Without it the requests of
            a batch that killed the engine get its exception at once.
    """

    def __init__(
        self,
        run: Run,
        policy: Policy,
        *,
        length: Callable[[Request], int] = lambda _: 1,
        compatible: Callable[[Request], Hashable] = lambda _: None,
        observer: BatchObserver | None = None,
        died: Faults = (),
        unready: Faults = (),
        recovered: Callable[[], Awaitable[object]] | None = None,
        ahead: bool = False,
        stoppable: bool = False,
    ) -> None:
        self._policy, self._length, self._compatible, self._observer = policy, length, compatible, observer
        self._isolation = Isolation(
            run, self._ran, died=died, unready=unready, recovered=recovered, stoppable=stoppable
        )
        self._queue = BatchQueue()
        self._ahead = ahead
        self._running: dict[asyncio.Task[None], Sequence[Waiting]] = {}
        self._due = 0.0
        self._deadlines = Deadlines(self._open, self._late)
        self._cost = BatchCost()
        self._company = Company(policy.max_wait_ms / 1000)
        self._worker: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._enough = 1
        self._closing = False

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def retry_after_s(self) -> float:
        """About how long what waits now will take; 0 before the first batch was answered."""
        batches = -(-len(self._queue) // self._policy.max_batch_size)
        return batches * self._cost.mean_s

    async def submit(self, request: Request, deadline: float | None = None) -> Answer:
        """The answer to one request; `deadline` is a time of the event loop's clock.

        Raises:
            QueueFull, DeadlinePassed, Closed: it was not run, or not in time.
            UserError: more inputs at once than the queue could ever hold.
            Exception: what `run` raised for it alone.
        """
        item = self._admit((request,), deadline)[0]
        try:
            return await item.future
        except asyncio.CancelledError:
            self._leave(item)
            raise

    async def submit_all(self, requests: Sequence[Request], deadline: float | None = None) -> list[Answer]:
        """The answers to several requests of one caller, in order: all of them are taken in, or none.

        Raises as `submit` does; the first failure ends the wait, and the rest leave the queue.
        """
        items = self._admit(requests, deadline)
        try:
            return list(await asyncio.gather(*(item.future for item in items)))
        except BaseException:
            for item in items:
                self._leave(item)
            raise

    async def drain(self) -> None:
        """Take nothing in any more, and return when all that was accepted is answered.

        Cancelling this ends the worker: what still waits then gets Closed.
        """
        self._closing = True
        self._ring()
        if self._worker is not None:
            await self._worker

    def _admit(self, requests: Sequence[Request], deadline: float | None) -> list[Waiting]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._closing:
            raise Closed
        if len(requests) > self._policy.max_queue:
            raise UserError(f"{len(requests)} inputs in one request, but the queue holds {self._policy.max_queue}")
        if len(self._queue) + len(requests) > self._policy.max_queue:
            raise QueueFull(len(self._queue), self.retry_after_s)
        if deadline is not None and deadline <= now:
            raise DeadlinePassed
        items = [
            Waiting(request, loop.create_future(), self._length(request), self._compatible(request), now, deadline)
            for request in requests
        ]
        for item in items:
            self._queue.add(item)
            self._company.arrived(now)
        if deadline is not None:
            self._deadlines.watch(loop, deadline)
        if self._worker is None:
            self._worker = loop.create_task(self._work(), name="batcher")
        elif len(self._queue) >= self._enough:
            self._ring()
        return items

    def _leave(self, item: Waiting) -> None:
        self._queue.leave(item)
        item.abandon()

    def _late(self, item: Waiting) -> None:
        self._queue.leave(item)
        item.refuse(DeadlinePassed())

    def _open(self) -> Iterator[Waiting]:
        return itertools.chain(self._queue, *self._running.values())

    async def _work(self) -> None:
        try:
            while await self._gather():
                if batch := self._queue.take(self._policy.max_batch_size, self._cost.allowance):
                    self._start(batch)  # all may have left while they waited for company
                while len(self._running) > self._ahead:
                    await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            while self._running:
                await asyncio.wait(self._running)
        except Exception as error:  # nothing that a request can do: a mistake of ours, which must not stay unheard
            log.exception("batcher_failed")
            self._end(error)
            self._worker = None  # the next request starts another one: one slip ends no task for good
        except asyncio.CancelledError:
            self._closing = True
            self._end(Closed())
            raise
        else:
            self._end(Closed())

    def _end(self, error: Exception) -> None:
        """Nobody is left waiting for this worker."""
        self._deadlines.stop()
        for item in list(self._open()):
            self._queue.leave(item)
            item.refuse(error)
        for task in self._running:
            task.cancel()

    def _start(self, batch: Sequence[Waiting]) -> None:
        loop = asyncio.get_running_loop()
        expected_s = self._cost.expected_s(padded(batch))
        self._due = math.inf if expected_s is None else max(self._due, loop.time()) + expected_s
        task = loop.create_task(self._served(batch), name="batch")
        self._running[task] = batch
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not self._running:
            self._due = 0.0
        self._ring()

    async def _served(self, batch: Sequence[Waiting]) -> None:
        """Run a batch. What fails beside the engine (an observer, say) costs this batch at most, and is in the log."""
        try:
            await self._isolation.serve(batch)
        except Exception as error:  # without this boundary one slip here would end every answer of the task for good
            log.error("batch_failed", exc_info=error)
            refuse(batch, error)

    async def _gather(self) -> bool:
        """Wait until there is a batch to run; False when there will be none."""
        waiting = await self._first()
        while waiting and self._running and not self._closing:
            soon = self._due - LEAD_S - asyncio.get_running_loop().time()
            if waiting >= self._policy.max_batch_size or soon <= 0:
                return True
            await self._rest(self._policy.max_batch_size, soon)
            waiting = await self._first()
        if 0 < waiting < self._policy.max_batch_size and not self._closing:
            newcomers = self._company.wait_for(waiting, self._cost.call_s, asyncio.get_running_loop().time())
            if newcomers:
                await self._rest(min(waiting + newcomers, self._policy.max_batch_size), self._company.wait_s)
        return waiting > 0

    async def _first(self) -> int:
        """How many wait, once anyone does; 0 when nobody will."""
        while not self._queue and not self._closing:
            await self._rest(1)
        return len(self._queue)

    async def _rest(self, enough: int, longest_s: float = math.inf) -> None:
        """Sleep until so many requests wait, or the time is over."""
        loop = asyncio.get_running_loop()
        self._wake, self._enough = loop.create_future(), enough
        timer = loop.call_later(longest_s, self._ring) if math.isfinite(longest_s) else None
        try:
            await self._wake
        finally:
            self._wake, self._enough = None, 1
            if timer is not None:
                timer.cancel()

    def _ring(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _ran(self, part: Sequence[Waiting], started: float, took: float) -> None:
        self._cost.add(padded(part), took)
        if self._observer is not None:
            self._observer.ran([started - item.since for item in part], took)


def padded(batch: Sequence[Waiting]) -> int:
    """The size of a batch, padding included."""
    return len(batch) * max(item.length for item in batch)
