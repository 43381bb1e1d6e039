from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from suites.meta.held_engine import HeldEngine, Poisoned, Policy, TimedEngine, answer, ask, outcomes, send
from suites.meta.virtual_time import run, settle
from targets.api import UserError
from targets.server.batching.batcher import Batcher, QueueFull


def test_an_idle_engine_starts_at_once_and_what_comes_meanwhile_is_batched() -> None:
    """The first request leaves alone and without waiting; those that come while it runs leave together."""

    async def main() -> None:
        engine = HeldEngine()
        batcher = Batcher(engine.run, Policy())
        first = send(batcher, "a")
        call = await engine.next()
        assert (call.texts, asyncio.get_running_loop().time()) == (["a"], 0.0)
        rest = send(batcher, "b", "c", "d")
        await settle()
        assert batcher.depth == 3
        call.end()
        call = await engine.next()
        assert call.texts == ["b", "c", "d"]
        call.end()
        assert await outcomes([*first, *rest]) == [answer(ask(text)) for text in "abcd"]

    run(main())


def test_no_batch_is_larger_than_the_maximum() -> None:
    """Nine requests that wait leave as four, four and one, the oldest first."""

    async def main() -> None:
        engine = HeldEngine()
        batcher = Batcher(engine.run, Policy())
        tasks = send(batcher, "0")
        call = await engine.next()
        tasks += send(batcher, *"123456789")
        seen = []
        for _ in range(4):
            await settle()
            call.end()
            seen.append(call.texts)
            call = await engine.next() if len(seen) < 4 else call
        assert seen == [["0"], list("1234"), list("5678"), ["9"]]
        assert await outcomes(tasks) == [answer(ask(text)) for text in "0123456789"]

    run(main())


def test_a_cancelled_request_leaves_the_queue() -> None:
    """It is not run, and makes room for another."""

    async def main() -> None:
        engine = HeldEngine()
        batcher = Batcher(engine.run, Policy(max_queue=2))
        running = send(batcher, "running")
        call = await engine.next()
        gone, stays = send(batcher, "gone", "stays")
        await settle()
        gone.cancel()
        await settle()
        assert batcher.depth == 1
        late = send(batcher, "late")
        call.end()
        call = await engine.next()
        assert call.texts == ["stays", "late"]
        call.end()
        assert await outcomes([*running, stays, *late]) == [answer(ask(t)) for t in ("running", "stays", "late")]

    run(main())


def test_a_request_cancelled_while_it_runs_takes_nobody_along() -> None:
    """Its batch goes on, its answer is dropped, and the others get theirs."""

    async def main() -> None:
        engine = HeldEngine()
        batcher = Batcher(engine.run, Policy())
        gone, stays = send(batcher, "gone", "stays")
        call = await engine.next()
        gone.cancel()
        await settle()
        call.end()
        assert await stays == answer(ask("stays"))
        assert gone.cancelled()

    run(main())


def test_the_queue_is_bounded_and_says_when_to_come_back() -> None:
    """Beyond `max_queue` waiting requests one is refused, with about the time that those will take."""

    async def main() -> None:
        engine = TimedEngine(0.5)
        batcher = Batcher(engine.run, Policy(max_queue=8))
        tasks = send(batcher, "first")
        await tasks[0]
        tasks = send(batcher, "running")
        await settle()
        tasks += send(batcher, *"abcdefgh")
        await settle()
        with pytest.raises(QueueFull) as full:
            await batcher.submit(ask("one too many"))
        assert full.value.retry_after_s == pytest.approx(2 * 0.5)
        assert len(await outcomes(tasks)) == 9
        assert await batcher.submit(ask("later")) == answer(ask("later"))

    run(main())


def test_several_requests_of_one_caller_are_taken_in_together_or_not_at_all() -> None:
    """Their answers come in their order; a queue without room for all takes none; more than it holds is an error."""

    async def main() -> None:
        engine = TimedEngine(0.01)
        batcher = Batcher(engine.run, Policy(max_queue=6))
        assert await batcher.submit_all([ask(text) for text in "abcde"]) == [answer(ask(text)) for text in "abcde"]
        assert await batcher.submit_all([]) == []
        waiting = asyncio.create_task(batcher.submit_all([ask(text) for text in "fgh"]))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await batcher.submit_all([ask(text) for text in "ijkl"])
        assert len(await waiting) == 3
        with pytest.raises(UserError, match="7 inputs in one request, but the queue holds 6"):
            await batcher.submit_all([ask(text) for text in "1234567"])

    run(main())


@pytest.mark.parametrize("poison", [True, False])
def test_when_one_of_several_fails_or_their_caller_leaves_the_rest_leave_too(poison: bool) -> None:
    """What still waits for a caller who will not look at it is not run."""

    async def main() -> None:
        engine = TimedEngine(0.01)
        batcher = Batcher(engine.run, Policy(max_batch_size=1))
        several = asyncio.create_task(batcher.submit_all([ask("x", poison=poison), *(ask(text) for text in "abcd")]))
        await settle()
        if not poison:
            several.cancel()
        with pytest.raises(Poisoned if poison else asyncio.CancelledError):
            await several
        assert batcher.depth == 0
        await batcher.drain()
        assert 1 <= len(engine.calls) <= 1 + poison

    run(main())


def test_a_request_costs_no_task_of_its_own() -> None:
    """The batcher runs on a task and one more a batch, however many requests pass."""

    async def main() -> int:
        engine = TimedEngine(0.0)
        batcher = Batcher(engine.run, Policy())
        before = len(asyncio.all_tasks())
        for text in "abc":
            await batcher.submit(ask(text), 1e9)
        return len(asyncio.all_tasks()) - before

    assert run(main()) == 1


def test_the_observer_hears_of_each_batch() -> None:
    """How long each request waited, and how long the engine took; a batch that failed is not told."""
    heard: list[tuple[list[float], float]] = []

    class Observer:
        def ran(self, queued_s: Sequence[float], run_s: float) -> None:
            heard.append((list(queued_s), run_s))

    async def main() -> None:
        engine = TimedEngine(2.0)
        batcher = Batcher(engine.run, Policy(), observer=Observer())
        tasks = send(batcher, "a")
        await asyncio.sleep(0.5)
        tasks += send(batcher, "b")
        await asyncio.sleep(0.5)
        tasks += send(batcher, "c") + send(batcher, "bad", poison=True)
        await outcomes(tasks)

    run(main())
    assert [len(queued) for queued, _ in heard] == [1, 1, 1]
    assert [queued[0] for queued, _ in heard] == pytest.approx([0.0, 3.5, 7.0])
    assert [took for _, took in heard] == pytest.approx([2.0] * 3)


def test_a_slip_beside_the_engine_costs_one_batch(caplog: pytest.LogCaptureFixture) -> None:
    """An observer that raises is told of in the log; the batches after it are run, and their requests answered."""

    class Broken:
        calls = 0

        def ran(self, queued_s: Sequence[float], run_s: float) -> None:
            self.calls += 1
            if self.calls == 1:
                raise ZeroDivisionError("float division by zero")

    async def main() -> None:
        batcher = Batcher(TimedEngine(0.5).run, Policy(), observer=Broken())
        assert await batcher.submit(ask("first")) == answer(ask("first"))
        assert await batcher.submit(ask("second")) == answer(ask("second"))
        await batcher.drain()

    run(main())
    assert [record.message for record in caplog.records] == ["batch_failed"]
