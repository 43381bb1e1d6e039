"""The service: every task's engine, what stands before it, and what it measures. It knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from targets import detection
from targets.api import Answer, Request, Unavailable, UserError
from targets.probe import Probe
from targets.registry import probes
from targets.server.caching.cache import Cache, MemoryCache
from targets.server.engine.engine import Engine, Log
from targets.server.engine.errors import TargetRefused
from targets.server.lane import Lane
from targets.server.metrics import Metrics
from targets.server.settings import ServedTask, Settings

T = TypeVar("T")
LOGGER = logging.getLogger("targets.server.engine")
DRAIN_S = 5.0
"""How long the last batches may take when the service is closed: the requests behind them have ended by then."""


class TaskNotServed(Exception):
    """This server has no engine for the task."""


def log(event: str, /, **facts: Any) -> None:
    """One line about an engine."""
    level = logging.INFO if event == "engine_restarted" else logging.WARNING
    LOGGER.log(level, event, extra={"fields": facts})


class Service:
    """All tasks of a server. `engine` makes an engine, and may be another one in tests."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Callable[..., Engine] = Engine,
        log: Log = log,
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.engines: dict[str, Engine] = {
            task: engine(served, settings, log=log) for task, served in settings.tasks.items()
        }
        self._lanes = {task: Lane(engine, settings, self.metrics) for task, engine in self.engines.items()}
        self._cache: Cache | None = None
        self._probe: Probe | None = None

    async def start(self) -> None:
        """Load every model.

        Raises:
            UserError: one of them cannot be loaded, or not on this machine.
            EngineDied, TargetFailed: loading killed the process, or raised.
        """
        self._cache = open_cache(self.settings, self.metrics)
        for lane in self._lanes.values():
            lane.cache = self._cache
        if self.settings.enable_monitoring:
            self._probe = await asyncio.to_thread(open_probe)
            self.metrics.device(self._probe)
        try:
            await together([engine.start() for engine in self.engines.values()])
        except BaseException as error:
            await self.close()
            if isinstance(error, Unavailable):
                raise UserError(str(error)) from error
            raise

    async def close(self) -> None:
        """Answer what was accepted, end the processes, give everything back."""
        drained = asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        try:
            await asyncio.wait_for(drained, DRAIN_S)
        except asyncio.TimeoutError:
            LOGGER.warning("batches_cut_off", extra={"fields": {"after_s": DRAIN_S}})
        await asyncio.gather(*(engine.close() for engine in self.engines.values()))
        if self._cache is not None:
            await self._cache.close()
        if self._probe is not None:
            self._probe.close()

    @property
    def ready(self) -> bool:
        """Whether every task can be answered now."""
        return all(engine.state == "ready" for engine in self.engines.values())

    def states(self) -> dict[str, dict[str, Any]]:
        """Of each task: how its engine is, and what it is."""
        return {task: state(engine.served, engine) for task, engine in self.engines.items()}

    def model(self, task: str) -> Mapping[str, str]:
        """What answers a task: name and digest of the model, backend, optimization."""
        facts = self.engines[task].facts
        told = {"name": facts.model, "digest": facts.digest}
        return told | {"backend": facts.backend, "optimization": facts.optimization}

    async def answer(self, task: str, request: Request, deadline_s: float | None = None) -> Answer:
        """The answer to one request within so many seconds, by default the settings' own. See `Lane.answer`."""
        return await self._lane(task).answer(request, self._deadline(deadline_s))

    async def answers(
        self, task: str, requests: Sequence[Request], deadline_s: float | None = None, at_once: int | None = None
    ) -> list[Answer]:
        """The answers to several requests of one client, in order; the first failure ends them all.

        `at_once`: how many of them may wait or run at one time; all of them if None, as far as the queue is that long.
        """
        lane, deadline = self._lane(task), self._deadline(deadline_s)
        if len(requests) == 1:
            return [await lane.answer(requests[0], deadline)]
        step = min(at_once or len(requests), self.settings.batching.max_queue)
        found: list[Answer] = []
        for start in range(0, len(requests), step):
            part = enumerate(requests[start : start + step], start + 1)
            found += await together([numbered(lane.answer(each, deadline), place) for place, each in part])
        return found

    def stream(
        self, task: str, request: Request, deadline_s: float | None = None
    ) -> AsyncGenerator[str | Answer, None]:
        """Pieces of the answer's text as they come, at last the answer; closing it early ends the generation.

        `deadline_s`: how many seconds the first piece may take, by default the settings' own.
        """
        return self._lane(task).stream(request, deadline_s or self.settings.limits.deadline_s)

    def _lane(self, task: str) -> Lane:
        if task not in self._lanes:
            raise TaskNotServed(f"this server does not serve {task}; it serves {', '.join(sorted(self._lanes))}")
        return self._lanes[task]

    def _deadline(self, deadline_s: float | None) -> float:
        patience = self.settings.limits.deadline_s if deadline_s is None else deadline_s
        return asyncio.get_running_loop().time() + patience


def state(served: ServedTask, engine: Engine) -> dict[str, Any]:
    """How an engine is, for /ready."""
    told = {"state": engine.state, "backend": served.backend, "optimization": served.optimization}
    return told | {"model": served.model, "restarts": engine.restarts}


def open_cache(settings: Settings, metrics: Metrics) -> Cache | None:
    """The cache that the settings name. Raises UserError for a URL that is none, and where redis-py is missing."""
    if settings.cache == "off":
        return None
    if settings.cache == "memory":
        return MemoryCache(settings.cache_mb << 20)
    try:
        from targets.server.caching.redis_cache import RedisCache  # the only part of the server that needs redis-py
    except ModuleNotFoundError:
        raise UserError("a cache in Redis needs redis-py: pip install 'edge-nlp-suite[server-redis]'") from None
    return RedisCache(settings.cache, failed=metrics.cache["error"].inc)


def open_probe() -> Probe:
    """The sensors of this machine; those of a CPU where its kind has no probe of its own."""
    kind = detection.detect().kind
    return probes[kind if kind in probes else "cpu"](Path("/"))


async def numbered(answering: Awaitable[T], place: int) -> T:
    """An answer; a refusal says which of several requests it is about."""
    try:
        return await answering
    except TargetRefused as error:
        raise TargetRefused(f"text {place}: {error}") from None


async def together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Their results, in order; when one fails, the others are cancelled and have ended before its error goes on."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
