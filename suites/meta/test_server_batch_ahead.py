from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from suites.meta.held_engine import HeldEngine, Policy, TimedEngine, answer, ask, outcomes, send
from suites.meta.virtual_time import run, settle
from targets.api import Answer, Request
from targets.server.batching.batcher import LEAD_S, Batcher
from targets.server.engine.errors import EngineDied


class Patient(TimedEngine):
    """Takes batches while it is busy, and does them one after another."""

    def __init__(self, call_s: float, unit_s: float = 0.0) -> None:
        super().__init__(call_s, unit_s)
        self.given: list[float] = []
        self._turn = asyncio.Lock()

    async def run(self, batch: Sequence[Request]) -> Sequence[Answer]:
        self.given.append(asyncio.get_running_loop().time())
        async with self._turn:
            return await super().run(batch)


class Notes:
    """What an observer hears."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self.queued: list[float] = []

    def ran(self, queued_s: Sequence[float], run_s: float) -> None:
        self.took.append(run_s)
        self.queued += queued_s


def test_a_full_batch_is_given_ahead_and_a_second_one_is_not() -> None:
    """Beside the batch that runs, one more is given to the engine as soon as it is full; the rest waits."""

    async def main() -> None:
        engine = HeldEngine()
        batcher = Batcher(engine.run, Policy(), ahead=True)
        tasks = send(batcher, "0")
        first = await engine.next()
        tasks += send(batcher, *"123")
        await settle()
        assert batcher.depth == 3, "it may become fuller"
        tasks += send(batcher, *"45678")
        second = await engine.next()
        await settle()
        assert (second.texts, batcher.depth, engine.calls.empty()) == (list("1234"), 4, True)
        first.end()
        third = await engine.next()
        assert third.texts == list("5678")
        second.end()
        third.end()
        assert await outcomes(tasks) == [answer(ask(text)) for text in "012345678"]

    run(main())


def test_the_next_batch_is_there_when_the_engine_is_free() -> None:
    """Once the engine's times are known, what waits is given LEAD_S before it is free, and it never pauses."""

    async def main() -> None:
        engine, notes = Patient(0.1), Notes()
        batcher = Batcher(engine.run, Policy(), ahead=True, observer=notes)
        await outcomes(send(batcher, "a"))
        tasks = send(batcher, "b")
        await asyncio.sleep(0.02)
        tasks += send(batcher, "c")
        await asyncio.sleep(0.02)
        tasks += send(batcher, "d")
        await outcomes(tasks)
        assert engine.given == pytest.approx([0.0, 0.1, 0.2 - LEAD_S])
        assert [len(batch) for _, _, batch in engine.calls] == [1, 1, 2]
        began = [start for start, _, _ in engine.calls]
        assert began == pytest.approx([0.0, 0.1, 0.2])
        assert notes.took == pytest.approx([0.1] * 3), "the time at the engine's door is none of its own"
        assert sorted(notes.queued) == pytest.approx([0.0, 0.0, 0.06, 0.08])

    run(main())


def test_who_had_not_begun_is_not_at_fault() -> None:
    """When the engine dies, the batch that it had not begun is asked again as it was, and counts no death."""

    async def main() -> None:
        engine = HeldEngine()
        asked = []

        async def recovered() -> None:
            asked.append("recovered")

        batcher = Batcher(engine.run, Policy(), ahead=True, died=(EngineDied,), recovered=recovered)
        tasks = send(batcher, "0")
        first = await engine.next()
        tasks += send(batcher, *"1234")
        for _ in range(3):  # more deaths than a request at fault has
            second = await engine.next()
            assert second.texts == list("1234")
            second.fail(EngineDied("gone", begun=False))
        second = await engine.next()
        second.end()
        first.end()
        assert await outcomes(tasks) == [answer(ask(text)) for text in "01234"]
        assert len(asked) == 3

    run(main())


def test_draining_awaits_what_was_given_ahead() -> None:
    """Both batches at the engine, and what waits behind them, are answered before the batcher ends."""

    async def main() -> None:
        engine = Patient(0.1)
        batcher = Batcher(engine.run, Policy(), ahead=True)
        tasks = send(batcher, *"0123456789")
        await settle()
        await batcher.drain()
        assert all(task.done() for task in tasks)
        assert await outcomes(tasks) == [answer(ask(text)) for text in "0123456789"]

    run(main())
