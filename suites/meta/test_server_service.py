"""The service between routes and engines: cache, joining, batches, streams, start and end, with made-up engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from suites.meta.server_kit import settings
from targets.api import Answer, Request, Unavailable, UserError
from targets.server.batching.batcher import Closed, DeadlinePassed, QueueFull
from targets.server.engine.engine import EngineFacts, Timing
from targets.server.engine.errors import EngineBusyStarting, EngineDied, TargetRefused
from targets.server.lane import decoding, length, policy
from targets.server.service import Service, TaskNotServed, open_cache, together
from targets.server.settings import Batching, ServedTask, Settings

T = TypeVar("T")


class FakeEngine:
    """An engine without a process. The next calls of `run` raise `errors`, and every one with the text `refused`.

    `gate` holds every call, and `first` every stream before its first piece.
    """

    def __init__(self, served: ServedTask, settings: Settings, *, log: Any) -> None:
        self.served, self.settings, self.log = served, settings, log
        self.ahead = False
        self.state, self.restarts, self.pid = "starting", 0, None
        self.last_timing = Timing(0.001, 0.0005)
        self.refusal: Exception | None = None
        self.errors: list[Exception] = []
        self.refused: str | None = None
        self.batches: list[list[Request]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = asyncio.Event()
        self.first = asyncio.Event()
        self.first.set()
        self.closed = 0
        self.streams_ended = 0
        self.digest = "1" * 64
        self.known: EngineFacts | None = None

    @property
    def facts(self) -> EngineFacts:
        if self.state == "starting":
            raise EngineBusyStarting("it starts")
        named = (self.served.task, self.served.model, self.digest, self.served.backend, self.served.optimization)
        if self.known is None or self.known.digest != self.digest:
            self.known = EngineFacts(*named, labels={}, evidence=None, load_s=0.1, family="encoder")
        return self.known

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        self.state = "ready"

    async def close(self) -> None:
        self.closed += 1
        self.state = "stopped"

    async def wait_ready(self, timeout_s: float) -> bool:
        return self.state == "ready"

    async def run(self, batch: Sequence[Request]) -> list[Answer]:
        self.batches.append(list(batch))
        self.running.set()
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        if any(request["text"] == self.refused for request in batch):
            raise TargetRefused("not this")
        return [{"label": request["text"], "tokens": 3, "truncated": False} for request in batch]

    async def stream(self, request: Request) -> AsyncGenerator[str | Answer, None]:
        try:
            await self.first.wait()
            for piece in request["text"]:
                yield piece
                await self.gate.wait()
            yield {"text": request["text"], "tokens": 2, "output_tokens": 5}
        finally:
            self.streams_ended += 1


MADE_UP: Any = FakeEngine
Use = Callable[[Service, Any], Awaitable[T]]


def with_service(use: Use[T], **changes: Any) -> T:
    """What `use` makes of a started service of one task and its engine."""

    async def main() -> T:
        tasks = {"sentiment": ServedTask("sentiment", "onnxruntime", "int8")}
        service = Service(settings(**{"tasks": tasks, **changes}), engine=MADE_UP)
        await service.start()
        try:
            return await use(service, service.engines["sentiment"])
        finally:
            await service.close()

    return asyncio.run(main())


def text(content: str) -> Request:
    return {"text": content}


def value(service: Service, name: str, **labels: str) -> float:
    """A metric's value now."""
    found = service.metrics.registry.get_sample_value(name, labels)
    assert found is not None, f"{name}{labels} is not measured"
    return found


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


def test_an_unknown_task_is_refused() -> None:
    """A task without an engine is named, with those that have one."""

    async def use(service: Service, engine: Any) -> None:
        with pytest.raises(TaskNotServed, match="does not serve ner; it serves sentiment"):
            await service.answer("ner", text("a"))

    with_service(use)


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
