"""A cache in Redis as tests use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from targets.server.caching.redis_cache import RedisCache

KEY = "0123456789abcdef" * 4


class Failures:
    """Counts them."""

    count = 0

    def __call__(self) -> None:
        self.count += 1


@asynccontextmanager
async def opened(url: str, failures: Failures | None = None, timeout_s: float = 1.0) -> AsyncIterator[RedisCache]:
    """A cache; patient unless the test is about time, since a test machine may be busy."""
    cache = RedisCache(url, ttl_s=60, timeout_s=timeout_s, failed=failures or Failures())
    try:
        yield cache
    finally:
        await cache.close()


async def kept(cache: RedisCache, key: str, value: bytes) -> None:
    """Put, and wait until it can be got."""
    await cache.put(key, value)
    await until(lambda: not cache.writing)
    assert await cache.get(key) == value


async def until(condition: Callable[[], bool]) -> None:
    """Return when it holds; an error after 120 s."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.005)


async def timed(cache: RedisCache, key: str = KEY) -> tuple[bytes | None, float]:
    began = time.perf_counter()
    found = await cache.get(key)
    return found, time.perf_counter() - began


async def until_kept(cache: RedisCache, key: str, value: bytes) -> None:
    """Put until it is there: with a short time-out on a busy machine one try may fail."""
    deadline = time.monotonic() + 120
    while await cache.get(key) != value:
        assert time.monotonic() < deadline
        await cache.put(key, value)
        await asyncio.sleep(0.005)
