from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suites.meta.virtual_time import run, settle
from targets.server.batcher import DeadlinePassed
from targets.server.single_flight import SingleFlight


class Maker:
    """Makes a value that tells how often one was made; takes a second."""

    def __init__(self, error: Exception | None = None) -> None:
        self.made = 0
        self.under_way = 0
        self.error = error

    async def __call__(self) -> str:
        assert not self.under_way, "one at a time"
        self.made += 1
        self.under_way += 1
        try:
            await asyncio.sleep(1)
        finally:
            self.under_way -= 1
        if self.error:
            raise self.error
        return f"value {self.made}"


def test_identical_requests_at_one_moment_are_one() -> None:
    """Five callers with one key: the value is made once, and four have joined."""
    joined: list[None] = []

    async def main() -> None:
        flights: SingleFlight[str] = SingleFlight(lambda: joined.append(None))
        make = Maker()
        assert await asyncio.gather(*(flights.do("a", make) for _ in range(5))) == ["value 1"] * 5
        assert (make.made, len(joined), len(flights)) == (1, 4, 0)

    run(main())


def test_other_keys_and_later_callers_are_on_their_own() -> None:
    """Nothing is shared between keys, nor kept after it has landed."""

    async def main() -> None:
        flights: SingleFlight[str] = SingleFlight()
        make, other = Maker(), Maker()
        await asyncio.gather(flights.do("a", make), flights.do("b", other))
        assert await flights.do("a", make) == "value 2"
        assert other.made == 1

    run(main())


def test_a_cancelled_leader_does_not_fail_its_followers() -> None:
    """When the one who makes the value leaves, one of the others makes it, and once only."""

    async def main() -> None:
        flights: SingleFlight[str] = SingleFlight()
        make = Maker()
        leader, *followers = (asyncio.create_task(flights.do("a", make)) for _ in range(4))
        await settle()
        leader.cancel()
        assert await asyncio.gather(*followers) == ["value 2"] * 3
        assert leader.cancelled()
        assert len(flights) == 0

    run(main())


def test_a_cancelled_follower_disturbs_nobody() -> None:
    """One who joined and leaves ends neither the value nor the wait of the others."""

    async def main() -> None:
        flights: SingleFlight[str] = SingleFlight()
        make = Maker()
        leader, gone, stays = (asyncio.create_task(flights.do("a", make)) for _ in range(3))
        await settle()
        gone.cancel()
        assert [await leader, await stays] == ["value 1"] * 2

    run(main())


def test_a_failure_is_everybodys() -> None:
    """What fails for one fails for all who asked the same, once; the next one may try again."""

    async def main() -> None:
        flights: SingleFlight[str] = SingleFlight()
        make = Maker(ValueError("too long"))
        found = await asyncio.gather(*(flights.do("a", make) for _ in range(3)), return_exceptions=True)
        assert [str(error) for error in found] == ["too long"] * 3
        assert make.made == 1
        make.error = None
        assert await flights.do("a", make) == "value 2"

    run(main())


def test_a_failure_without_followers_is_told_once() -> None:
    """No other part of the program hears of it: nothing is left behind that was never looked at."""
    said: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        flights: SingleFlight[str] = SingleFlight()
        with pytest.raises(ValueError, match="no"):
            await flights.do("a", Maker(ValueError("no")))

    run(main())
    import gc

    gc.collect()
    assert said == []


def test_deadlines_are_each_callers_own() -> None:
    """A follower in a hurry leaves at its time; a leader whose time is over hands the work on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        flights: SingleFlight[str] = SingleFlight()

        async def hurried() -> str:
            await asyncio.sleep(0.5)
            raise DeadlinePassed

        leader = asyncio.create_task(flights.do("a", hurried))
        await settle()
        make = Maker()
        quick = asyncio.create_task(flights.do("a", make, deadline=0.2))
        patient = asyncio.create_task(flights.do("a", make, deadline=9.0))
        for late, moment in ((quick, 0.2), (leader, 0.5)):
            with pytest.raises(DeadlinePassed):
                await late
            assert loop.time() == pytest.approx(moment, abs=1e-3)
        assert await patient == "value 1"
        assert loop.time() == pytest.approx(1.5, abs=1e-3)

    run(main())


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.none() | st.floats(0, 2), st.sampled_from("ab")), max_size=12))
def test_whoever_stays_gets_a_value(visits: list[tuple[float, float | None, str]]) -> None:
    """Callers come and are cancelled at any time: those who stay get a value of their key, made one at a time."""

    async def main() -> None:
        flights: SingleFlight[str] = SingleFlight()
        makers = {name: Maker() for name in "ab"}

        async def call(come: float, leave: float | None, name: str) -> str | BaseException:
            await asyncio.sleep(come)
            make: Callable[[], Awaitable[str]] = makers[name]
            task = asyncio.ensure_future(flights.do(name, make))
            if leave is not None:
                asyncio.get_running_loop().call_later(leave, task.cancel)
            return (await asyncio.gather(task, return_exceptions=True))[0]

        found = await asyncio.gather(*(call(*visit) for visit in visits))
        for (_, leave, _), value in zip(visits, found, strict=True):
            assert isinstance(value, str) or leave is not None
        assert len(flights) == 0

    run(main())
