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
