from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from suites.meta.held_engine import (
    Died,
    HeldEngine,
    Poisoned,
    Policy,
    TimedEngine,
    Unready,
    answer,
    ask,
    outcomes,
    send,
)
from suites.meta.virtual_time import run, settle
from targets.api import Answer, Request
from targets.server.batching.batcher import Batcher


def test_a_poisoned_request_fails_alone() -> None:
    """A batch that fails is split until the request at fault stands alone; the others get their answers."""

    async def main() -> None:
        engine = TimedEngine(0.01)
        batcher = Batcher(engine.run, Policy(max_batch_size=8))
        tasks = send(batcher, *"abc") + send(batcher, "bad", poison=True) + send(batcher, *"defg")
        found = await outcomes(tasks)
        assert [f for f in found if isinstance(f, dict)] == [answer(ask(text)) for text in "abcdefg"]
        assert isinstance(found[3], Poisoned)
        assert str(found[3]) == "bad"
        assert [len(batch) for _, _, batch in engine.calls] == [8, 4, 2, 2, 1, 1, 4]

    run(main())


def test_each_of_several_poisoned_requests_gets_its_own_failure() -> None:
    """Two poisoned requests in one batch fail each with what was raised for it."""

    async def main() -> None:
        engine = TimedEngine(0.01)
        batcher = Batcher(engine.run, Policy())
        found = await outcomes(send(batcher, "x", "y", poison=True) + send(batcher, "z"))
        assert [str(error) for error in found[:2]] == ["x", "y"]
        assert found[2] == answer(ask("z"))

    run(main())


@pytest.mark.parametrize("answers", [[], [{"echo": "whose?"}]])
def test_answers_that_cannot_be_told_apart_reach_nobody(answers: list[Answer]) -> None:
    """An engine that gives too few answers fails them all: none gets another's."""

    async def short(batch: Sequence[Request]) -> list[Answer]:
        return answers if len(batch) == 2 else []

    async def main() -> None:
        found = await outcomes(send(Batcher(short, Policy()), "a", "b"))
        assert [str(error) for error in found] == ["the engine gave 0 answers to 1 requests"] * 2

    run(main())


def test_a_request_that_kills_the_engine_twice_is_given_up() -> None:
    """A batch that kills the engine is asked again one by one, after it recovered: two deaths, one request refused."""

    async def main() -> None:
        engine = TimedEngine(0.01)
        recoveries: list[float] = []

        async def recovered() -> None:
            await asyncio.sleep(0.5)
            recoveries.append(asyncio.get_running_loop().time())

        batcher = Batcher(engine.run, Policy(), died=(Died,), recovered=recovered)
        tasks = send(batcher, "a", "b") + send(batcher, "killer", deadly=True) + send(batcher, "c")
        found = await outcomes(tasks)
        assert isinstance(found.pop(2), Died)
        assert found == [answer(ask(text)) for text in "abc"]
        assert [len(batch) for _, _, batch in engine.calls] == [4, 1, 1, 1, 1]
        assert len(recoveries) == 1

    run(main())


def test_a_lone_killer_gets_a_second_chance_and_no_third() -> None:
    """An engine may die of something else, so a request that was alone is asked twice, and then given up."""

    async def main() -> None:
        engine = TimedEngine(0.01)
        batcher = Batcher(engine.run, Policy(), died=(Died,), recovered=settle)
        found = await outcomes(send(batcher, "killer", deadly=True))
        assert isinstance(found[0], Died)
        assert len(engine.calls) == 2

    run(main())


def test_without_a_recovery_to_wait_for_all_of_a_batch_that_died_are_refused() -> None:
    """Nothing is asked again of an engine of which nobody knows when it will be back."""

    async def main() -> None:
        engine = TimedEngine(0.01)
        batcher = Batcher(engine.run, Policy(), died=(Died,))
        found = await outcomes(send(batcher, "a") + send(batcher, "killer", deadly=True))
        assert [type(error) for error in found] == [Died, Died]
        assert len(engine.calls) == 1
        assert await batcher.submit(ask("next")) == answer(ask("next"))

    run(main())


def test_an_engine_that_is_given_up_refuses_its_suspects() -> None:
    """If the recovery fails, the requests that were to be asked again are told why."""

    async def lost() -> None:
        raise Unready

    async def main() -> None:
        engine = TimedEngine(0.01)
        batcher = Batcher(engine.run, Policy(), died=(Died,), recovered=lost)
        found = await outcomes(send(batcher, "a") + send(batcher, "killer", deadly=True))
        assert [type(error) for error in found] == [Unready, Unready]

    run(main())


def test_an_engine_that_is_not_ready_is_not_asked_again() -> None:
    """Every request of the batch is refused at once, and none is tried alone."""

    async def main() -> None:
        engine = HeldEngine()
        batcher = Batcher(engine.run, Policy(), unready=(Unready,))
        tasks = send(batcher, "a", "b", "c")
        (await engine.next()).fail(Unready())
        assert [type(error) for error in await outcomes(tasks)] == [Unready] * 3
        assert engine.calls.empty()

    run(main())


def test_a_cancelled_request_is_not_tried_again() -> None:
    """When its batch fails, only those that still wait are run again."""

    async def main() -> None:
        engine = HeldEngine()
        batcher = Batcher(engine.run, Policy())
        gone, *rest = send(batcher, "gone", "b", "c")
        call = await engine.next()
        gone.cancel()
        await settle()
        call.fail(Poisoned("some"))
        call = await engine.next()
        assert call.texts == ["b", "c"]
        call.end()
        assert await outcomes(rest) == [answer(ask("b")), answer(ask("c"))]

    run(main())
