"""Answers kept in a Redis that replicas share.

Redis is a help and never a condition: an exchange that takes longer than `timeout_s` is not waited for, writes keep
nobody waiting, and a Redis that fails is left alone until it answers a ping again, which no request pays for.

One task talks to Redis, one exchange at a time; what is asked meanwhile goes along with the next (MGET and SETs in one
pipeline). So many requests at a moment cost few round trips, and a request that is cancelled ends no exchange halfway:
a connection whose reply nobody read would give it to the next question.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from targets.api import UserError

FAILURES = (RedisError, OSError, asyncio.TimeoutError, TimeoutError)
PREFIX = "edge-nlp:"
AT_ONCE = 64
"""Reads, and writes, of one exchange at most."""
WRITES = 256
"""Writes that may wait; beyond that, new ones are dropped."""
GIVEN_UP_S = 0.5
"""An exchange that is not waited for any more ends after so much silence, and its connection with it."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
"""Between the pings to a Redis that failed: the first, doubling up to the longest."""
log = logging.getLogger("targets.server.cache")


class RedisCache:
    """A Cache in Redis. To be used and closed in one event loop.

    Args:
        url: as redis-py takes it: `redis://[[user]:password@]host[:port][/database]`, `rediss://` or `unix://`.
        ttl_s: after so many seconds an answer is forgotten.
        timeout_s: the longest that one exchange is waited for.
        failed: called for each exchange that failed, and for each write that was refused.

    Raises:
        UserError: the URL is malformed.
    """

    def __init__(
        self,
        url: str,
        ttl_s: float = 24 * 3600,
        timeout_s: float = 0.02,
        *,
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        self._ttl_ms, self._timeout_s, self._failed = round(ttl_s * 1000), timeout_s, failed
        silence = max(GIVEN_UP_S, timeout_s)
        try:
            self._redis = Redis.from_url(
                url,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=silence,
                socket_connect_timeout=silence,
                protocol=2,  # saves each new connection a round trip
            )
        except ValueError as error:
            raise UserError(f"the cache's URL is not one of Redis: {error}") from None
        self.available = True
        self._asks: list[tuple[str, asyncio.Future[bytes | None]]] = []
        self._writes: dict[str, bytes] = {}
        self._under_way = 0
        self._write_again_at = 0.0
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._talk: asyncio.Task[list[Any]] | None = None
        self._closing = False

    @property
    def writing(self) -> int:
        """Values that wait to be written, or are being written."""
        return len(self._writes) + self._under_way

    async def get(self, key: str) -> bytes | None:
        """What was kept under this key; None too if Redis does not say so in time."""
        if not self.available or self._closing:
            return None
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._asks.append((key, future))
        self._ring()
        return await future

    async def put(self, key: str, value: bytes) -> None:
        """Keep a value, some time soon: nobody waits for that, and it may fail."""
        now = asyncio.get_running_loop().time()
        if self.available and not self._closing and now >= self._write_again_at and len(self._writes) < WRITES:
            self._writes[key] = value
            self._ring()

    async def close(self) -> None:
        """Finish what is under way, as far as Redis answers, and give the connection back."""
        self._closing = True
        if self._worker is not None:
            self._wake.set()
            if not self.available:
                self._worker.cancel()  # it waits for a Redis that is down
            await asyncio.wait((self._worker,))
        await self._settle()
        await self._redis.aclose()

    def _ring(self) -> None:
        self._wake.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="redis-cache")

    async def _work(self) -> None:
        try:
            while not self._closing or self._asks or self._writes:
                await self._wake.wait()
                self._wake.clear()
                while self._asks or self._writes:
                    await self._serve()
                if not self.available and not self._closing:
                    await self._recover()
        except Exception:  # a mistake of ours, which must not stay unheard; the server goes on without a cache
            log.exception("cache_failed")
            raise
        finally:
            self.available = False
            self._drop()

    async def _serve(self) -> None:
        """One exchange for those who wait."""
        asks, self._asks = self._asks[:AT_ONCE], self._asks[AT_ONCE:]
        writes = [(key, self._writes.pop(key)) for key in list(self._writes)[:AT_ONCE]]
        self._under_way = len(writes)
        found: list[bytes | None] = [None] * len(asks)
        try:
            replies = await self._exchange([key for key, _ in asks], writes)
            if asks:
                found = [own(key, value) for (key, _), value in zip(asks, fine(replies.pop(0)), strict=True)]
            if refusal := next((reply for reply in replies if isinstance(reply, Exception)), None):
                self._rest_from_writing(refusal)
        except FAILURES as error:
            self._failed()
            self.available = False
            self._drop()
            log.warning("cache_down", extra={"fields": {"reason": type(error).__name__}})
        finally:
            self._under_way = 0
            for (_, future), value in zip(asks, found, strict=True):
                if not future.done():
                    future.set_result(value)

    async def _exchange(self, names: Sequence[str], writes: Sequence[tuple[str, bytes]]) -> list[Any]:
        """Redis's replies in time. Raises one of FAILURES."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._talk = talk = asyncio.create_task(self._say(names, writes))
        await asyncio.wait((talk,), timeout=self._timeout_s)
        if not talk.done() and loop.time() - started > 1.5 * self._timeout_s:
            await asyncio.wait((talk,), timeout=self._timeout_s)  # it was this process that was late
        if not talk.done():
            raise asyncio.TimeoutError
        return talk.result()

    async def _say(self, names: Sequence[str], writes: Sequence[tuple[str, bytes]]) -> list[Any]:
        """Redis's replies: the values of the names if there are any, then one a write; to nothing, a ping's."""
        pipeline = self._redis.pipeline(transaction=False)
        if names:
            pipeline.mget([PREFIX + name for name in names])
        for name, value in writes:
            pipeline.set(PREFIX + name, name.encode() + value, px=self._ttl_ms)
        if not names and not writes:
            pipeline.ping()
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    def _rest_from_writing(self, refusal: Exception) -> None:
        """It answers, but takes nothing: it is full, a read-only replica, or its disk is."""
        self._failed()
        self._write_again_at = asyncio.get_running_loop().time() + LONGEST_PAUSE_S
        log.warning("cache_refuses_writes", extra={"fields": {"reason": type(refusal).__name__}})

    def _drop(self) -> None:
        """Nobody waits for a Redis that is down."""
        for _, future in self._asks:
            if not future.done():
                future.set_result(None)
        self._asks.clear()
        self._writes.clear()

    async def _recover(self) -> None:
        """Return when Redis answers again."""
        pause = FIRST_PAUSE_S
        while not self.available:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            await self._settle()
            try:
                fine((await self._exchange((), ()))[0])
                self.available = True
            except FAILURES:
                continue
        log.info("cache_up")

    async def _settle(self) -> None:
        """Wait for the end of the last exchange, which may have been given up; then its connection is free."""
        if self._talk is not None:
            await asyncio.wait((self._talk,))
            self._talk.exception()  # looked at: it was told when the exchange was given up


def fine(reply: Any) -> Any:
    """A reply that is no error. Raises the error."""
    if isinstance(reply, Exception):
        raise reply
    return reply


def own(name: str, value: object) -> bytes | None:
    """The value if it repeats its name: whatever is mixed up on the way, no question gets the answer of another."""
    mark = name.encode()
    return value[len(mark) :] if isinstance(value, bytes) and value.startswith(mark) else None
