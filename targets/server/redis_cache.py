"""Answers kept in a Redis that replicas share.

Redis is a help and never a condition: every exchange ends after `timeout_s`, writes keep nobody waiting, and a Redis
that fails is left alone until it answers a ping again, which no request pays for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from targets.api import UserError

T = TypeVar("T")
FAILURES = (RedisError, OSError, asyncio.TimeoutError, TimeoutError)
PREFIX = "edge-nlp:"
CONNECTIONS = 16
WRITES = 64
"""Writes under way at most; with more, the newest is dropped."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
"""Between the pings to a Redis that failed: the first, doubling up to the longest."""
LATE = 3
"""So many exchanges in a row that were late while this very process was late mean that Redis is, too."""
log = logging.getLogger("targets.server.cache")


class RedisCache:
    """A Cache in Redis. To be made and closed in the event loop that uses it.

    Args:
        url: as redis-py takes it: `redis://[[user]:password@]host[:port][/database]`, `rediss://` or `unix://`.
        ttl_s: after so many seconds an answer is forgotten.
        timeout_s: the longest that one exchange may take.
        failed: called for each exchange that failed.

    Raises:
        UserError: the URL is malformed.
    """

    def __init__(
        self,
        url: str,
        ttl_s: int = 24 * 3600,
        timeout_s: float = 0.02,
        *,
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self._ttl_ms, self._timeout_s, self._failed = round(ttl_s * 1000), timeout_s, failed
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=None,  # the wait for a connection counts as part of an exchange, which ends in any case
                retry=Retry(NoBackoff(), 0),
                socket_timeout=None,
                socket_connect_timeout=None,
                protocol=2,  # saves each new connection a round trip
            )
        except ValueError as error:
            raise UserError(f"the cache's URL is not one of Redis: {error}") from None
        self._redis = Redis(connection_pool=pool)
        self._writes: set[asyncio.Task[None]] = set()
        self._write_again_at = 0.0
        self._late = 0
        self._probe: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        """Whether Redis is asked at all at the moment."""
        return self._probe is None

    @property
    def writing(self) -> int:
        """Values that are being written."""
        return len(self._writes)

    async def get(self, key: str) -> bytes | None:
        """What was kept under this key; None too if Redis does not say so in time."""
        if not self.available:
            return None
        try:
            found = await self._exchange(self._redis.get(PREFIX + key))
        except FAILURES as error:
            self._trip(error)
            return None
        # The value repeats its key: whatever a connection may mix up, a question never gets the answer of another.
        mark = key.encode()
        return found[len(mark) :] if isinstance(found, bytes) and found.startswith(mark) else None

    async def put(self, key: str, value: bytes) -> None:
        """Keep a value, some time soon: nobody waits for that, and it may fail."""
        now = asyncio.get_running_loop().time()
        if self.available and now >= self._write_again_at and len(self._writes) < WRITES:
            task = asyncio.create_task(self._write(key, key.encode() + value))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    async def close(self) -> None:
        """Finish the writes under way, and give every connection back."""
        if self._probe is not None:
            self._probe.cancel()
        await asyncio.gather(*self._writes, *([self._probe] if self._probe else []), return_exceptions=True)
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _write(self, key: str, value: bytes) -> None:
        try:
            await self._exchange(self._redis.set(PREFIX + key, value, px=self._ttl_ms))
        except ResponseError as error:  # it answers, but takes nothing: full, a read-only replica, a full disk
            self._failed()
            self._write_again_at = asyncio.get_running_loop().time() + LONGEST_PAUSE_S
            log.warning("cache_refuses_writes", extra={"fields": {"reason": type(error).__name__}})
        except FAILURES as error:
            self._trip(error)

    async def _exchange(self, command: Awaitable[T]) -> T:
        """One command and its reply, in time. A connection whose exchange was ended early is closed by redis-py."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            reply = await asyncio.wait_for(command, self._timeout_s)
        except asyncio.TimeoutError:
            ours = loop.time() - started > 1.5 * self._timeout_s  # the timer rang late: this process is busy
            self._late = self._late + 1 if ours else LATE
            raise
        self._late = 0
        return reply

    def _trip(self, error: BaseException) -> None:
        """Leave Redis alone until it answers again."""
        self._failed()
        timeout = isinstance(error, asyncio.TimeoutError | TimeoutError)
        if self._probe is None and not (timeout and self._late < LATE):
            log.warning("cache_down", extra={"fields": {"reason": type(error).__name__}})
            self._probe = asyncio.create_task(self._await_recovery())

    async def _await_recovery(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause)
            try:
                await self._exchange(self._redis.ping())
            except FAILURES:
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                break
        self._late, self._probe = 0, None
        log.info("cache_up")
