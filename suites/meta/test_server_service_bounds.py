"""Within what bounds the service answers: its queue, deadlines, streams, readiness, start and end."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from suites.meta.server_kit import settings
from suites.meta.service_kit import MADE_UP, text, value, with_service
from targets.api import Unavailable, UserError
from targets.server.batching.batcher import Closed, DeadlinePassed, QueueFull
from targets.server.service import Service
from targets.server.settings import Batching


def test_deadlines_that_are_over_at_once() -> None:
    """In uvloop too, where a timer that is due at once is none, a deadline of no time is told as what it is."""
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        service = Service(settings(), engine=MADE_UP)
        await service.start()
        for within_s in (1e-7, 1e-4):
            with pytest.raises(DeadlinePassed):
                await service.answers("sentiment", [text(each) for each in "abcd"], within_s)
        await service.close()

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_full_queue_refuses() -> None:
    """Beyond the bound, requests are refused at once, with the time to wait."""

    async def use(service: Service, engine: Any) -> None:
        engine.gate.clear()
        first = asyncio.ensure_future(service.answer("sentiment", text("first")))
        await engine.running.wait()
        waiting = [asyncio.ensure_future(service.answer("sentiment", text(each))) for each in "ab"]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull) as refused:
            await service.answer("sentiment", text("c"))
        assert refused.value.retry_after_s >= 0
        engine.gate.set()
        await asyncio.gather(first, *waiting)

    with_service(use, batching=Batching(max_batch_size=1, max_queue=2))


def test_streams_say_pieces_and_the_answer() -> None:
    """A stream passes pieces and the answer on, counts its tokens, and ends with whoever listens."""

    async def use(service: Service, engine: Any) -> None:
        items = [item async for item in service.stream("sentiment", text("ab"))]
        assert items == ["a", "b", {"text": "ab", "tokens": 2, "output_tokens": 5}]
        assert value(service, "nlp_tokens_total", task="sentiment", kind="read") == 2
        assert value(service, "nlp_tokens_total", task="sentiment", kind="written") == 5
        assert value(service, "nlp_request_seconds_count", task="sentiment", phase="first_token") == 1
        engine.gate.clear()
        async with aclosing(service.stream("sentiment", text("ab"))) as left:
            assert await anext(left) == "a"
            assert value(service, "nlp_queue_depth", task="sentiment") == 1
            with pytest.raises(QueueFull):
                await anext(service.stream("sentiment", text("ab")))
        assert engine.streams_ended == 2
        assert value(service, "nlp_queue_depth", task="sentiment") == 0

    with_service(use, batching=Batching(max_queue=1))


def test_a_stream_begins_in_time() -> None:
    """A stream whose first piece does not come before its deadline is given up, and its place is free again."""

    async def use(service: Service, engine: Any) -> None:
        engine.first.clear()
        with pytest.raises(DeadlinePassed):
            await anext(service.stream("sentiment", text("ab"), 0.01))
        assert engine.streams_ended == 1
        assert value(service, "nlp_queue_depth", task="sentiment") == 0

    with_service(use)


def test_the_device_is_measured_when_wanted() -> None:
    """With monitoring, the metrics hold the device's sensors; without it, none of them is read."""

    async def use(service: Service, engine: Any) -> bytes:
        return service.metrics.render()

    assert b"nlp_device_" in with_service(use, enable_monitoring=True)
    assert b"nlp_device_" not in with_service(use)


def test_ready_is_every_engine() -> None:
    """The service is ready while every engine is; the state of each is told."""

    async def use(service: Service, engine: Any) -> None:
        assert service.ready
        engine.state, engine.restarts = "restarting", 2
        assert not service.ready
        assert service.states()["sentiment"] == {
            "state": "restarting",
            "backend": "onnxruntime",
            "optimization": "int8",
            "model": "embedded",
            "restarts": 2,
        }
        assert value(service, "nlp_engine_ready", task="sentiment") == 0
        assert service.model("sentiment")["digest"] == "1" * 64

    with_service(use)


@pytest.mark.parametrize("error", [UserError("no such model"), Unavailable("no GPU; buy one")])
def test_a_start_that_fails_leaves_nothing(error: Exception) -> None:
    """When one model cannot be loaded, every engine is closed, and the user is told in one sentence."""

    async def main() -> None:
        service = Service(settings(), engine=MADE_UP)
        engines: Any = service.engines
        engines["ner"].refusal = error
        with pytest.raises(UserError, match=str(error)):
            await service.start()
        assert all(engine.closed for engine in engines.values())

    asyncio.run(main())


def test_closing_finishes_what_was_accepted() -> None:
    """A closed service has answered what it took in, and takes nothing more."""

    async def use(service: Service, engine: Any) -> None:
        engine.gate.clear()
        asked = asyncio.ensure_future(service.answer("sentiment", text("a")))
        await engine.running.wait()
        closing = asyncio.ensure_future(service.close())
        await asyncio.sleep(0)
        engine.gate.set()
        await closing
        assert (await asked)["label"] == "a"
        assert engine.closed == 1
        with pytest.raises(Closed):
            await service.answer("sentiment", text("b"))

    with_service(use)
