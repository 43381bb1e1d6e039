from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from suites.meta.redis_server import HINT, PROGRAM, RedisServer, free_port, redis_server
from targets.api import UserError
from targets.server import redis_cache
from targets.server.redis_cache import RedisCache

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=HINT)
TIMEOUT_S = 0.02
NOTICEABLE_S = 0.25
"""An exchange ends after 0.02 s; the rest is for a test machine that is busy."""
KEY = "0123456789abcdef" * 4


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not wait for seconds until Redis is asked again."""
    monkeypatch.setattr(redis_cache, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(redis_cache, "LONGEST_PAUSE_S", 0.05)


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
    """Return when it holds; an error after 10 s."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.005)


async def timed(cache: RedisCache, key: str = KEY) -> tuple[bytes | None, float]:
    began = time.perf_counter()
    found = await cache.get(key)
    return found, time.perf_counter() - began


def test_replicas_share_what_one_of_them_keeps(redis: RedisServer) -> None:
    """What one cache puts another gets, byte by byte; what nobody put is not found."""

    async def main() -> None:
        failures = Failures()
        async with opened(redis.url, failures) as one, opened(redis.url, failures) as other:
            assert await one.get(KEY) is None
            await kept(one, KEY, b'{"label":"\xc3\xa4","n":"\x00"}')
            assert await other.get(KEY) == b'{"label":"\xc3\xa4","n":"\x00"}'
        assert failures.count == 0

    asyncio.run(main())


def test_answers_are_forgotten_in_time(redis: RedisServer) -> None:
    """Each is kept with the time to live that was asked for."""

    async def main() -> None:
        async with opened(redis.url) as cache:
            await kept(cache, KEY, b"{}")

    asyncio.run(main())
    assert 50 < int(redis.ask("TTL", f"edge-nlp:{KEY}")[1:]) <= 60


def test_a_value_of_another_question_is_not_an_answer(redis: RedisServer) -> None:
    """A value that does not repeat its own key, whoever put it there, is not returned."""

    async def main() -> None:
        async with opened(redis.url) as cache:
            await kept(cache, KEY, b'{"label":"positive"}')
            redis.ask("COPY", f"edge-nlp:{KEY}", "edge-nlp:another")
            assert await cache.get("another") is None

    asyncio.run(main())


def test_cancelled_requests_mix_nothing_up(redis: RedisServer) -> None:
    """Requests that are cancelled at any point of their exchange leave no reply behind for the next one."""

    async def main() -> None:
        async with opened(redis.url) as cache:
            for number in range(20):
                await kept(cache, f"{number:064}", f"{number}".encode())
            for round_ in range(40):
                tasks = [asyncio.create_task(cache.get(f"{number:064}")) for number in range(20)]
                for _ in range(round_ % 8):
                    await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                found = await asyncio.gather(*tasks, return_exceptions=True)
                assert found[1::2] == [f"{number}".encode() for number in range(1, 20, 2)]
                assert all(isinstance(v, asyncio.CancelledError) or v == b"%d" % n for n, v in enumerate(found))

    asyncio.run(main())


def test_many_at_once_share_few_connections(redis: RedisServer) -> None:
    """Two hundred requests at one moment are all served, by sixteen connections at most."""

    async def main() -> None:
        failures = Failures()
        async with opened(redis.url, failures, timeout_s=5) as cache:
            await kept(cache, KEY, b"{}")
            assert await asyncio.gather(*(cache.get(KEY) for _ in range(200))) == [b"{}"] * 200
        assert failures.count == 0

    asyncio.run(main())
    received = redis.info("total_connections_received")
    assert received <= redis_cache.CONNECTIONS + 1, "one is ours"


def test_a_redis_that_is_not_there_is_no_obstacle() -> None:
    """Nothing listens: requests find nothing, at once, and Redis is left alone after the first."""

    async def main() -> None:
        failures = Failures()
        async with opened(f"redis://127.0.0.1:{free_port()}/0", failures) as cache:
            assert cache.available
            found, took = await timed(cache)
            assert (found, cache.available) == (None, False)
            assert took < NOTICEABLE_S
            for _ in range(100):
                assert await cache.get(KEY) is None
                await cache.put(KEY, b"{}")
            assert failures.count == 1

    asyncio.run(main())


def test_a_killed_redis_is_used_again_once_it_is_back(tmp_path: Path) -> None:
    """Killed under the server's feet it costs one failed request; restarted, it is found without a request's help."""

    async def main() -> None:
        failures = Failures()
        with redis_server(tmp_path) as first:
            async with opened(first.url, failures) as cache:
                await kept(cache, KEY, b"{}")
                first.kill()
                assert await cache.get(KEY) is None
                assert not cache.available
                with redis_server(tmp_path, port=first.port):
                    await until(lambda: cache.available)
                    assert await cache.get(KEY) is None
                    await kept(cache, KEY, b"{}")
                assert failures.count == 1

    asyncio.run(main())


def test_a_frozen_redis_slows_nobody_noticeably(redis: RedisServer) -> None:
    """Stopped, it costs those who ask just then one time-out and later ones nothing; it is found again."""

    async def main() -> None:
        failures = Failures()
        async with opened(redis.url, failures, TIMEOUT_S) as cache:
            await until_kept(cache, KEY, b"{}")
            redis.freeze()
            began = time.perf_counter()
            found = await asyncio.gather(*(cache.get(KEY) for _ in range(50)))
            assert found == [None] * 50
            assert time.perf_counter() - began < NOTICEABLE_S
            await until(lambda: not cache.available)
            seen = failures.count
            began = time.perf_counter()
            for _ in range(200):
                assert await cache.get(KEY) is None
                await cache.put(KEY, b"{}")
            assert time.perf_counter() - began < NOTICEABLE_S
            assert failures.count == seen
            redis.thaw()
            await until(lambda: cache.available)
            assert await cache.get(KEY) == b"{}"

    asyncio.run(main())


async def until_kept(cache: RedisCache, key: str, value: bytes) -> None:
    """Put until it is there: with a short time-out on a busy machine one try may fail."""
    deadline = time.monotonic() + 10
    while await cache.get(key) != value:
        assert time.monotonic() < deadline
        await cache.put(key, value)
        await asyncio.sleep(0.005)


def test_a_slow_redis_is_left_alone(redis: RedisServer) -> None:
    """One that takes 0.5 s for everything is slower than the answer: requests go on without it until it is quick."""

    async def main() -> None:
        async with opened(redis.url, timeout_s=TIMEOUT_S) as cache:
            await until_kept(cache, KEY, b"{}")
            redis.ask("CLIENT", "PAUSE", "500", "ALL")
            found, took = await timed(cache)
            assert found is None
            assert took < NOTICEABLE_S
            await until(lambda: cache.available and not cache.writing)
            await until_kept(cache, KEY, b"{}")

    asyncio.run(main())


def test_a_full_redis_is_still_read(tmp_path: Path) -> None:
    """One that has no room for more gives what it has; writes fail in the background, and pause."""

    async def main() -> None:
        failures = Failures()
        with redis_server(tmp_path, "--maxmemory-policy", "noeviction") as full:
            async with opened(full.url, failures) as cache:
                await kept(cache, KEY, b"{}")
                full.ask("CONFIG", "SET", "maxmemory", "1")
                for number in range(5):
                    await cache.put(f"{number:064}", b"{}")
                await until(lambda: not cache.writing)
                seen = failures.count
                assert 1 <= seen <= 5
                await cache.put("one more", b"{}")
                assert not cache.writing
                assert cache.available
                assert await cache.get(KEY) == b"{}"
                full.ask("CONFIG", "SET", "maxmemory", "0")
                await asyncio.sleep(redis_cache.LONGEST_PAUSE_S)
                await kept(cache, "and now", b"{}")
                assert failures.count == seen

    asyncio.run(main())


def test_a_busy_process_does_not_blame_redis(redis: RedisServer) -> None:
    """When it was this event loop that was late, Redis is not given up for it."""

    async def main() -> None:
        async with opened(redis.url, timeout_s=TIMEOUT_S) as cache:
            await until_kept(cache, KEY, b"{}")
            asking = asyncio.create_task(cache.get(KEY))
            await asyncio.sleep(0)
            time.sleep(0.1)  # as a long computation in the loop would
            await asking
            assert cache.available

    asyncio.run(main())


def test_a_password_that_is_wrong_is_no_obstacle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Requests go on; the log names the reason, and neither the password nor the URL."""

    async def main() -> None:
        with redis_server(tmp_path, "--requirepass", "right") as closed:
            async with opened(f"redis://:wr0ng@127.0.0.1:{closed.port}/0") as cache:
                assert await cache.get(KEY) is None
                assert not cache.available

    asyncio.run(main())
    fields = [vars(record)["fields"] for record in caplog.records]
    assert fields == [{"reason": "AuthenticationError"}]
    assert "wr0ng" not in caplog.text + str(fields)


def test_closing_waits_for_what_is_being_written(redis: RedisServer) -> None:
    """A server that ends has kept what it put."""

    async def main() -> None:
        async with opened(redis.url) as cache:
            for number in range(30):
                await cache.put(f"{number:064}", b"{}")

    asyncio.run(main())
    assert redis.ask("DBSIZE") == ":30"


@pytest.mark.parametrize("url", ["http://localhost", "redis://localhost:port/0", "memory"])
def test_a_url_that_is_none_is_told_at_once(url: str) -> None:
    """A misspelt URL ends the start with one sentence."""
    with pytest.raises(UserError, match="the cache's URL is not one of Redis"):
        RedisCache(url)
