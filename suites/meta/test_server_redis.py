from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from suites.meta.redis_kit import KEY, Failures, kept, opened
from suites.meta.redis_server import HINT, PROGRAM, RedisServer, redis_server
from targets.api import UserError
from targets.server.redis_cache import RedisCache

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=HINT)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


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


def test_many_at_once_share_a_connection(redis: RedisServer) -> None:
    """Two hundred requests at one moment are all served, over one connection."""

    async def main() -> None:
        failures = Failures()
        async with opened(redis.url, failures, timeout_s=5) as cache:
            await kept(cache, KEY, b"{}")
            assert await asyncio.gather(*(cache.get(KEY) for _ in range(200))) == [b"{}"] * 200
        assert failures.count == 0

    asyncio.run(main())
    assert redis.info("total_connections_received") == 2, "the cache's, and ours that asks"


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
