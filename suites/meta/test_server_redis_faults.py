from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from suites.meta.redis_kit import KEY, Failures, kept, opened, timed, until, until_kept
from suites.meta.redis_server import HINT, PROGRAM, RedisServer, free_port, redis_server
from targets.server.caching import redis_cache

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=HINT)
TIMEOUT_S = 0.02
NOTICEABLE_S = 0.25
"""An exchange ends after 0.02 s; the rest is for a test machine that is busy."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not wait for seconds until Redis is asked again."""
    monkeypatch.setattr(redis_cache, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(redis_cache, "LONGEST_PAUSE_S", 0.05)


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
            failures.count = 0
            redis.freeze()
            began = time.perf_counter()
            assert await asyncio.gather(*(cache.get(KEY) for _ in range(300))) == [None] * 300
            assert time.perf_counter() - began < NOTICEABLE_S
            assert not cache.available
            began = time.perf_counter()
            for _ in range(200):
                assert await cache.get(KEY) is None
                await cache.put(KEY, b"{}")
            assert time.perf_counter() - began < NOTICEABLE_S
            assert failures.count == 1
            redis.thaw()
            await until(lambda: cache.available)
            assert await cache.get(KEY) == b"{}"

    asyncio.run(main())


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
            for steps in range(8):  # so that it strikes in every phase of an exchange
                asking = asyncio.create_task(cache.get(KEY))
                for _ in range(steps):
                    await asyncio.sleep(0)
                time.sleep(0.05)  # as a long computation in the loop would
                assert await asking == b"{}"

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


def test_closing_does_not_wait_for_a_frozen_redis(redis: RedisServer) -> None:
    """A server that ends while Redis is stopped ends in time, with reads and writes under way."""

    async def main() -> None:
        async with opened(redis.url, timeout_s=TIMEOUT_S) as cache:
            await until_kept(cache, KEY, b"{}")
            redis.freeze()
            asking = [asyncio.create_task(cache.get(KEY)) for _ in range(20)]
            for number in range(20):
                await cache.put(f"{number:064}", b"{}")
            await asyncio.sleep(0)
            began = time.perf_counter()
        assert time.perf_counter() - began < redis_cache.GIVEN_UP_S + NOTICEABLE_S
        assert await asyncio.gather(*asking) == [None] * 20

    asyncio.run(main())
