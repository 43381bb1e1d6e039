"""Engines for tests of the batcher: one whose batches end when the test says, and one that takes its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from targets.api import Answer, Request
from targets.server.batching.batcher import Batcher


class Poisoned(Exception):
    """What a target raises for a request that it cannot take."""


class Died(Exception):
    """The engine's process has ended."""


class Unready(Exception):
    """The engine is being started."""


def ask(text: str, **more: object) -> Request:
    return {"text": text, **more}


def answer(request: Request) -> Answer:
    """An answer that tells whose it is."""
    return {"echo": request["text"]}


def length(request: Request) -> int:
    return len(request["text"])


@dataclass
class Policy:
    """Small bounds, so that few requests reach them."""

    max_batch_size: int = 4
    max_wait_ms: float = 2.0
    max_queue: int = 16


@dataclass
class Call:
    """A batch that the engine holds."""

    batch: Sequence[Request]
    ended: asyncio.Future[Sequence[Answer]]

    @property
    def texts(self) -> list[str]:
        return [request["text"] for request in self.batch]

    def end(self) -> None:
        self.ended.set_result([answer(request) for request in self.batch])

    def fail(self, error: Exception) -> None:
        self.ended.set_exception(error)


class HeldEngine:
    """Its `run` returns when the test ends the call."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Call] = asyncio.Queue()

    async def run(self, batch: Sequence[Request]) -> Sequence[Answer]:
        call = Call(batch, asyncio.get_running_loop().create_future())
        self.calls.put_nowait(call)
        return await call.ended

    async def next(self) -> Call:
        return await self.calls.get()


class TimedEngine:
    """Takes `call_s`, and `unit_s` for each character of the batch padded to its longest text.

    A poisoned request fails its batch, a deadly one ends the engine.
    """

    def __init__(self, call_s: float, unit_s: float = 0.0) -> None:
        self.call_s, self.unit_s = call_s, unit_s
        self.calls: list[tuple[float, float, list[Request]]] = []
        """When a call began and ended, and its batch."""
        self._alone = asyncio.Lock()

    async def run(self, batch: Sequence[Request]) -> Sequence[Answer]:
        assert not self._alone.locked(), "one batch at a time"
        async with self._alone:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await asyncio.sleep(self.call_s + self.unit_s * len(batch) * max(map(length, batch)))
            self.calls.append((began, loop.time(), list(batch)))
        if any(request.get("deadly") for request in batch):
            raise Died
        if bad := [request["text"] for request in batch if request.get("poison")]:
            raise Poisoned(bad[0])
        return [answer(request) for request in batch]


Task: TypeAlias = asyncio.Task[Answer]


def send(batcher: Batcher, *texts: str, **more: object) -> list[Task]:
    """Requests that are on their way, in this order."""
    return [asyncio.create_task(batcher.submit(ask(text, **more))) for text in texts]


async def outcomes(tasks: Sequence[Task]) -> list[Answer | BaseException]:
    """The answer or the failure of each."""
    return list(await asyncio.gather(*tasks, return_exceptions=True))
