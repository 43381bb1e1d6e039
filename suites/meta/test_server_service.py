"""The service between routes and engines: what it answers from its cache, joins, batches and lets fail alone."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from suites.meta.server_kit import settings
from suites.meta.service_kit import text, value, with_service
from targets.api import UserError
from targets.server.batching.batcher import DeadlinePassed
from targets.server.engine.errors import EngineDied, TargetRefused
from targets.server.lane import decoding, length, policy
from targets.server.service import Service, TaskNotServed, open_cache, together
from targets.server.settings import Batching, ServedTask


def test_the_same_again_comes_from_the_cache() -> None:
    """A text is answered by the engine once, and the second answer is equal; another text is another question."""

    async def use(service: Service, engine: Any) -> None:
        first = await service.answer("sentiment", text("a"))
        assert await service.answer("sentiment", text("a")) == first
        assert (await service.answer("sentiment", text("b")))["label"] == "b"
        assert engine.batches == [[text("a")], [text("b")]]
        assert value(service, "nlp_cache_requests_total", result="hit") == 1
        assert value(service, "nlp_cache_requests_total", result="miss") == 2
        assert value(service, "nlp_tokens_total", task="sentiment", kind="read") == 6
        assert value(service, "nlp_tokens_total", task="sentiment", kind="written") == 0

    with_service(use)


def test_another_model_is_another_question() -> None:
    """When an engine comes back with other weights, nothing that the old ones answered is told."""

    async def use(service: Service, engine: Any) -> None:
        await service.answer("sentiment", text("a"))
        engine.digest = "2" * 64
        await service.answer("sentiment", text("a"))
        assert len(engine.batches) == 2

    with_service(use)


def test_without_a_cache_everything_is_asked() -> None:
    """With the cache off, identical requests are neither kept nor joined."""

    async def use(service: Service, engine: Any) -> None:
        await asyncio.gather(*(service.answer("sentiment", text("a")) for _ in range(3)))
        assert sum(map(len, engine.batches)) == 3

    with_service(use, cache="off")


def test_identical_requests_are_joined() -> None:
    """Those who ask the same at the same time share one answer, and each of several texts gets its own."""

    async def use(service: Service, engine: Any) -> None:
        found = await service.answers("sentiment", [text("a"), text("b"), text("a")])
        assert [each["label"] for each in found] == ["a", "b", "a"]
        assert sum(map(len, engine.batches)) == 2
        assert value(service, "nlp_cache_requests_total", result="joined") == 1

    with_service(use)


def test_several_texts_make_batches() -> None:
    """The texts of one request go to the engine together, or as many at once as it asks for."""

    async def use(service: Service, engine: Any) -> None:
        engine.gate.clear()
        asked = [text(each) for each in "abcd"]
        first = asyncio.ensure_future(service.answers("sentiment", asked))
        await engine.running.wait()
        engine.gate.set()
        await first
        assert sum(map(len, engine.batches)) == 4
        assert len(engine.batches) <= 2
        engine.batches.clear()
        await service.answers("sentiment", [text(each) for each in "efghi"], at_once=2)
        assert all(len(batch) <= 2 for batch in engine.batches)

    with_service(use)


def test_more_texts_than_may_wait_are_answered_in_turns() -> None:
    """A request with more texts than the queue holds is answered all the same."""

    async def use(service: Service, engine: Any) -> None:
        found = await service.answers("sentiment", [text(str(each)) for each in range(10)])
        assert [each["label"] for each in found] == [str(each) for each in range(10)]

    with_service(use, batching=Batching(max_batch_size=2, max_queue=3))


def test_a_failure_is_its_own() -> None:
    """What the target refuses fails its own request, and is asked again by the next; others are answered."""

    async def use(service: Service, engine: Any) -> None:
        engine.errors = [TargetRefused("no"), TargetRefused("no")]
        with pytest.raises(TargetRefused):
            await service.answer("sentiment", text("a"))
        engine.errors = []
        assert (await service.answer("sentiment", text("a")))["label"] == "a"
        engine.errors = [EngineDied("gone"), EngineDied("gone")]
        with pytest.raises(EngineDied):
            await service.answer("sentiment", text("c"))

    with_service(use)


def test_a_refusal_says_which_text() -> None:
    """Of several texts, the one that the target does not take is named by its place."""

    async def use(service: Service, engine: Any) -> None:
        engine.refused = "c"
        with pytest.raises(TargetRefused, match="text 3: not this"):
            await service.answers("sentiment", [text(each) for each in "abcd"])
        with pytest.raises(TargetRefused, match=r"^not this$"):
            await service.answers("sentiment", [text("c")])

    with_service(use)


def test_the_first_failure_ends_a_request() -> None:
    """When one of several texts fails, the others are given up before the failure is told."""

    async def use(service: Service, engine: Any) -> None:
        engine.gate.clear()
        asking = asyncio.ensure_future(service.answers("sentiment", [text(each) for each in "abcd"], 0.05))
        with pytest.raises(DeadlinePassed):
            await asking
        engine.gate.set()
        assert (await service.answer("sentiment", text("z")))["label"] == "z"
        assert service.metrics.registry.get_sample_value("nlp_queue_depth", {"task": "sentiment"}) == 0

    with_service(use)


def test_an_unknown_task_is_refused() -> None:
    """A task without an engine is named, with those that have one."""

    async def use(service: Service, engine: Any) -> None:
        with pytest.raises(TaskNotServed, match="does not serve ner; it serves sentiment"):
            await service.answer("ner", text("a"))

    with_service(use)


def test_caches_by_their_names() -> None:
    """`off`, `memory` and a URL name a cache; what is no URL of Redis is refused."""
    metrics: Any = SimpleNamespace(cache={"error": SimpleNamespace(inc=lambda: None)})
    assert open_cache(settings(cache="off"), metrics) is None
    kept: Any = open_cache(settings(cache="memory", cache_mb=2), metrics)
    assert kept.max_bytes == 2 * 2**20
    with pytest.raises(UserError, match="Redis"):
        open_cache(settings(cache="http://x"), metrics)


def test_lengths_and_groups() -> None:
    """A request's length is that of its texts; only those decoded alike share a batch."""
    assert length({"question": "who", "context": "Ada"}) == 6
    assert length({"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes"}]}) == 8
    assert decoding({"question": "who", "context": "Ada"}) is None
    assert decoding({"text": "a", "max_tokens": 3}) == decoding({"max_tokens": 3, "text": "b"})
    assert decoding({"text": "a", "max_tokens": 3}) != decoding({"text": "a", "max_tokens": 4})
    hash(decoding({"prompt": "a", "stop": ["x"]}))


def test_engines_that_take_one_by_one_are_not_batched() -> None:
    """Where an engine answers one request after another, a batch would only delay the first of them."""
    assert policy(ServedTask("chat", "llama-cpp-python", "q8_0"), Batching()).max_batch_size == 1
    assert policy(ServedTask("ner", "onnxruntime", "int8"), Batching()) == Batching()


def test_together_leaves_nothing_behind() -> None:
    """When one of several fails, the others have ended before its error is told."""
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("long")

    async def short() -> None:
        raise ValueError("short")

    with pytest.raises(ValueError, match="short"):
        asyncio.run(together([long(), short()]))
    assert ended == ["long"]
