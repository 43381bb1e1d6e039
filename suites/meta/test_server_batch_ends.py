from __future__ import annotations

import asyncio

import pytest

from suites.meta.held_engine import HeldEngine, Policy, TimedEngine, answer, ask, outcomes, send
from suites.meta.virtual_time import run, settle
from targets.server.batching.batcher import Batcher, Closed, DeadlinePassed


def test_a_deadline_is_kept_while_waiting_and_while_running() -> None:
    """A request that is not answered by then is refused at that very time; if it was waiting, it is never run."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        engine = TimedEngine(10.0)
        batcher = Batcher(engine.run, Policy())
        ends: dict[str, float] = {}

        async def timed(text: str, deadline: float | None) -> None:
            with pytest.raises(DeadlinePassed):
                await batcher.submit(ask(text), deadline)
            ends[text] = loop.time()

        running = asyncio.create_task(timed("runs", 5.0))
        await settle()
        patient = asyncio.create_task(batcher.submit(ask("patient"), 100.0))
        await asyncio.gather(running, timed("later", 3.0), timed("soon", 1.0), timed("latest", 9.0))
        assert ends == pytest.approx({"runs": 5.0, "later": 3.0, "soon": 1.0, "latest": 9.0})
        assert await patient == answer(ask("patient"))
        assert [[r["text"] for r in batch] for _, _, batch in engine.calls] == [["runs"], ["patient"]]
        with pytest.raises(DeadlinePassed):
            await batcher.submit(ask("late from the start"), loop.time())

    run(main())


def test_a_request_whose_deadline_has_passed_makes_room() -> None:
    """It leaves the queue at that time, although the engine is busy with others."""

    async def main() -> None:
        batcher = Batcher(TimedEngine(10.0).run, Policy(max_queue=1))
        running = send(batcher, "runs")
        await settle()
        with pytest.raises(DeadlinePassed):
            await batcher.submit(ask("hurried"), 1.0)
        assert batcher.depth == 0
        assert await outcomes(running + send(batcher, "next")) == [answer(ask("runs")), answer(ask("next"))]

    run(main())


def test_drain_finishes_what_was_accepted_and_takes_nothing_more() -> None:
    """Everything that waits is answered, what comes now is refused, and then drain returns."""

    async def main() -> None:
        engine = TimedEngine(1.0)
        batcher = Batcher(engine.run, Policy())
        tasks = send(batcher, *"abcdefghi")
        await settle()
        draining = asyncio.create_task(batcher.drain())
        await settle()
        with pytest.raises(Closed):
            await batcher.submit(ask("late"))
        await draining
        assert all(task.done() for task in tasks)
        assert await outcomes(tasks) == [answer(ask(text)) for text in "abcdefghi"]
        await batcher.drain()

    run(main())


def test_a_drain_that_is_cut_short_leaves_nobody_waiting() -> None:
    """When the time to finish is over, what still waits or runs is refused at once."""

    async def main() -> None:
        engine = HeldEngine()
        batcher = Batcher(engine.run, Policy(max_batch_size=1))
        tasks = send(batcher, "runs", "waits")
        await settle()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(batcher.drain(), 1.0)
        assert [type(error) for error in await outcomes(tasks)] == [Closed, Closed]

    run(main())


def test_a_batcher_that_never_ran_drains() -> None:
    """Ending a server that was never asked anything waits for nothing."""
    run(Batcher(HeldEngine().run, Policy()).drain())


def test_what_nobody_waits_for_is_stopped() -> None:
    """An engine that can be stopped is, when the last of its batch has left or is too late; the next one is served."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        engine = TimedEngine(10.0)
        batcher = Batcher(engine.run, Policy(), stoppable=True)
        leaving = send(batcher, "a", "b")
        await settle()
        leaving[0].cancel()
        await asyncio.sleep(1)
        assert batcher.depth == 0
        late = asyncio.create_task(batcher.submit(ask("late"), loop.time() + 3.0))
        leaving[1].cancel()  # the second of two batches now, for the first one began alone
        await settle()
        found = await outcomes([*leaving, late])
        assert [type(each) for each in found] == [asyncio.CancelledError, asyncio.CancelledError, DeadlinePassed]
        began = loop.time()
        assert await outcomes(send(batcher, "next")) == [answer(ask("next"))]
        assert loop.time() - began == pytest.approx(10.0)
        assert [[request["text"] for request in batch] for _, _, batch in engine.calls] == [["next"]]

    run(main())


def test_what_somebody_waits_for_is_not_stopped() -> None:
    """As long as one of a batch waits, the engine goes on; one that cannot be stopped goes on for nobody."""

    async def main() -> None:
        for stoppable, others in ((True, 1), (False, 0)):
            engine = TimedEngine(10.0)
            batcher = Batcher(engine.run, Policy(), stoppable=stoppable)
            first = send(batcher, "first")
            await settle()
            tasks = send(batcher, "a", "b")
            await asyncio.gather(*first)
            await settle()
            for task in tasks[others:]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await batcher.drain()
            assert [[r["text"] for r in batch] for _, _, batch in engine.calls] == [["first"], ["a", "b"]]

    run(main())


def test_one_slip_ends_no_task_for_good(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake in the batcher itself costs those who wait their answers, is in the log, and the next one is served."""

    async def main() -> None:
        batcher = Batcher(TimedEngine(1.0).run, Policy())
        with monkeypatch.context() as broken:
            broken.setattr("targets.server.batching.queue.BatchQueue.take", lambda *_: 1 // 0)
            (found,) = await outcomes(send(batcher, "unlucky"))
        assert isinstance(found, ZeroDivisionError)
        assert "batcher_failed" in caplog.text
        assert batcher.depth == 0
        assert await outcomes(send(batcher, "next")) == [answer(ask("next"))]
        await batcher.drain()
        with pytest.raises(Closed):
            await batcher.submit(ask("too late"))

    run(main())
