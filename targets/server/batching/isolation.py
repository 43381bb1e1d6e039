"""One batch through the engine, so that a request at fault fails alone.

A batch that fails is split until the request at fault stands alone: one among n costs about 2 * log2(n) calls. A batch
that kills the engine is not split, since each try costs a restart: its requests are asked one by one, and the one that
kills again is given up. That is two restarts, however large the batch was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from targets.api import Answer, Request
from targets.server.batching.queue import Waiting

Run: TypeAlias = Callable[[Sequence[Request]], Awaitable[Sequence[Answer]]]
"""Answers a batch, in order."""
Faults: TypeAlias = tuple[type[Exception], ...]
Ran: TypeAlias = Callable[[Sequence[Waiting], float, float], None]
"""Hears of a call that gave answers: the requests, when it began (the event loop's clock), and seconds it took."""
DEATHS = 2
"""A request that was in so many batches which killed the engine is given up."""


class Abandoned(Exception):
    """Nobody waits for any answer of a batch any more."""


class Isolation:
    """Runs batches. `died`, `unready`, `recovered` and `stoppable` as in the Batcher.

    A batch may be given to the engine while it is busy with another one; its time is counted from when that one ended.
    """

    def __init__(
        self,
        run: Run,
        ran: Ran,
        *,
        died: Faults,
        unready: Faults,
        recovered: Callable[[], Awaitable[object]] | None,
        stoppable: bool,
    ) -> None:
        self._run, self._ran = run, ran
        self._died, self._unready, self._recovered, self._stoppable = died, unready, recovered, stoppable
        self._free_at = 0.0

    async def serve(self, batch: Sequence[Waiting]) -> None:
        """Give each request of the batch its answer or its own failure."""
        parts = [batch]
        while parts:
            part = [item for item in parts.pop() if not item.gone]
            if not part:
                continue
            try:
                started, took = await self._call(part)
            except Abandoned:
                continue
            except self._died as error:
                parts += await self._revive(part, error)
            except self._unready as error:
                refuse(part, error)
            except Exception as error:  # whatever an engine raises belongs to the request at fault, and to no other
                if len(part) == 1:
                    part[0].refuse(error)
                else:
                    half = len(part) // 2
                    parts += [part[half:], part[:half]]
            else:
                self._ran(part, started, took)

    async def _call(self, part: Sequence[Waiting]) -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            answers = await (self._wanted(part) if self._stoppable else self._run([item.request for item in part]))
        finally:
            started, self._free_at = max(started, self._free_at), loop.time()
        took = self._free_at - started
        if len(answers) != len(part):
            raise RuntimeError(f"the engine gave {len(answers)} answers to {len(part)} requests")
        for item, answer in zip(part, answers, strict=True):
            item.answer(answer)
        return started, took

    async def _wanted(self, part: Sequence[Waiting]) -> Sequence[Answer]:
        """The answers, as long as anybody waits for one. Raises Abandoned, and stops the engine, when nobody does."""
        running = asyncio.ensure_future(self._run([item.request for item in part]))
        abandoned = False

        def left(_: asyncio.Future[Answer]) -> None:
            nonlocal abandoned
            if not running.done() and all(item.gone for item in part):
                abandoned = running.cancel()

        for item in part:
            item.future.add_done_callback(left)
        try:
            return await running
        except asyncio.CancelledError:
            if abandoned:
                raise Abandoned from None
            raise

    async def _revive(self, part: Sequence[Waiting], error: Exception) -> list[Sequence[Waiting]]:
        """After the engine died: those to try again, each alone, once it runs."""
        begun = getattr(error, "begun", True)
        for item in part:
            item.deaths += begun
            if item.deaths >= DEATHS or self._recovered is None:
                item.refuse(error)
        suspects = [item for item in part if not item.gone]
        if suspects and self._recovered is not None:
            try:
                await self._recovered()
            except Exception as given_up:  # it will not run again, and these requests are told why
                refuse(suspects, given_up)
        return [[item] for item in reversed(suspects)] if begun else [suspects]


def refuse(items: Sequence[Waiting], error: Exception) -> None:
    """Give several requests one failure."""
    for item in items:
        item.refuse(error)
