from __future__ import annotations

import asyncio
import math
import random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.meta.held_engine import Policy, TimedEngine, ask, length
from suites.meta.virtual_time import run
from targets.server.batching.batcher import Batcher
from targets.server.batching.company import Company
from targets.server.batching.cost import ENOUGH, BatchCost


@given(
    st.floats(1e-4, 0.1),
    st.floats(1e-7, 1e-3),
    st.lists(st.integers(1, 2000), min_size=12, max_size=60).filter(lambda sizes: max(sizes[-12:]) > 2 * sizes[-1]),
)
def test_the_cost_of_a_call_is_learnt(call_s: float, unit_s: float, sizes: list[int]) -> None:
    """From times that are a call and so much a unit, both are found; so is the padding that is worth a call."""
    cost = BatchCost()
    for size in sizes:
        cost.add(size, call_s + unit_s * size)
    rounding = 1e-3 * (call_s + unit_s * max(sizes))
    assert cost.call_s == pytest.approx(call_s, abs=rounding)
    assert cost.allowance == pytest.approx(call_s / unit_s, abs=rounding / unit_s)


@given(st.integers(0, 1000), st.floats(1e-4, 1), st.integers(0, 100))
def test_nothing_is_learnt_from_batches_that_are_alike(size: int, seconds: float, count: int) -> None:
    """From one size no slope can be told: padding is not held against anyone, and nobody waits."""
    cost = BatchCost()
    for _ in range(count):
        cost.add(size, seconds)
    assert (cost.call_s, cost.allowance) == (0.0, math.inf)
    assert cost.mean_s == pytest.approx(seconds if count else 0.0)


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 1)), max_size=40))
def test_any_times_give_a_cost_that_can_be_used(runs: list[tuple[int, float]]) -> None:
    """However odd the times: a call costs no less than nothing, and padding is allowed or not, never undefined."""
    cost = BatchCost()
    for size, seconds in runs:
        cost.add(size, seconds)
    assert 0 <= cost.call_s < math.inf
    assert cost.allowance >= 0


def test_noisy_times_prove_little() -> None:
    """Of times that vary by half, a call is seldom said to cost more than it does, and padding is weighed rightly."""
    draw = random.Random(1)
    too_dear, allowances = 0, []
    for _ in range(200):
        cost = BatchCost()
        for _ in range(200):
            size = draw.randint(300, 500)
            cost.add(size, (0.002 + 1e-5 * size) * draw.uniform(0.5, 1.5))
        too_dear += cost.call_s > 0.002
        allowances.append(cost.allowance)
    assert too_dear <= 20
    assert median(allowances) == pytest.approx(200, rel=0.3)


def test_what_was_learnt_first_is_forgotten() -> None:
    """An engine that has become ten times as fast is known as such after some hundred batches."""
    cost = BatchCost()
    draw = random.Random(1)
    for call_s in (0.01, 0.001):
        for _ in range(400):
            size = draw.randint(1, 100)
            cost.add(size, call_s + 1e-5 * size)
        assert cost.call_s == pytest.approx(call_s, rel=0.15)


def test_a_few_batches_prove_nothing() -> None:
    """Before enough batches were seen there is no estimate."""
    cost = BatchCost()
    for size in range(1, int(ENOUGH)):
        cost.add(size, 0.001 * size)
    assert (cost.call_s, cost.allowance) == (0.0, math.inf)


@pytest.mark.parametrize(("waiting", "call_s", "pays"), [(1, 0.001, True), (1, 0.0005, False), (8, 0.001, False)])
def test_a_wait_has_to_pay(waiting: int, call_s: float, pays: bool) -> None:
    """With two newcomers in 1 ms as a rule, holding n requests that long pays if two calls cost more than n ms."""
    company = Company(0.001)
    for moment in range(40):
        company.wait_for(1, call_s, moment)
        company.arrived(moment + 0.0002)
        company.arrived(moment + 0.0004)
        company.arrived(moment + 0.5)  # too late to be company
    assert company.expected == pytest.approx(2, abs=0.01)
    assert bool(company.wait_for(waiting, call_s, 100)) is pays
    assert company.wait_for(waiting, 0.0, 200) == 0


@pytest.mark.parametrize("wait_ms", [0.0, 2.0])
def test_a_lone_client_never_waits_for_company(wait_ms: float) -> None:
    """One client that asks again after each answer is answered in the engine's own time, to the last request."""

    async def main() -> None:
        engine = TimedEngine(0.01, 1e-5)
        batcher = Batcher(engine.run, Policy(max_wait_ms=wait_ms), length=length)
        for number in range(60):
            text = "x" * (number % 30 + 1)
            began = asyncio.get_running_loop().time()
            await batcher.submit(ask(text))
            assert asyncio.get_running_loop().time() - began == pytest.approx(0.01 + 1e-5 * len(text))

    run(main())


def rate(clients: int, wait_ms: float, call_s: float, unit_s: float) -> float:
    """Requests per second of so many clients that each ask again 0.2 to 0.5 ms after an answer."""

    async def main() -> float:
        draw = random.Random(1)
        batcher = Batcher(TimedEngine(call_s, unit_s).run, Policy(16, wait_ms, 64), length=length)

        async def client() -> None:
            for _ in range(100):
                await asyncio.sleep(draw.uniform(2e-4, 5e-4))
                await batcher.submit(ask("x" * draw.randint(10, 20)))

        await asyncio.gather(*(client() for _ in range(clients)))
        return clients * 100 / asyncio.get_running_loop().time()

    return run(main())


@pytest.mark.parametrize("clients", [4, 12])
def test_a_few_clients_of_a_dear_engine_are_brought_together(clients: int) -> None:
    """Where each call is dear, clients that would take turns in two halves share their calls: 1.5 times the rate."""
    assert rate(clients, 2.0, 0.01, 2e-6) > 1.5 * rate(clients, 0.0, 0.01, 2e-6)


@pytest.mark.parametrize("clients", [1, 4, 12, 40])
def test_waiting_costs_a_cheap_engine_nothing(clients: int) -> None:
    """Where calls are cheap, permission to wait changes the rate by 3 % at most."""
    assert rate(clients, 2.0, 0.0004, 2e-5) > 0.97 * rate(clients, 0.0, 0.0004, 2e-5)


def test_outliers_in_length_do_not_slow_the_rest() -> None:
    """Where padding to one text of 2000 costs more than a call, the short ones are not batched with it."""

    async def main() -> list[int]:
        engine = TimedEngine(0.004, 1e-5)
        batcher = Batcher(engine.run, Policy(16, 2.0, 64), length=length)
        draw = random.Random(1)
        for _ in range(40):  # the batcher gets to know the engine
            await asyncio.gather(*(batcher.submit(ask("x" * draw.randint(10, 30))) for _ in range(draw.randint(1, 16))))
        del engine.calls[:]
        long = asyncio.create_task(batcher.submit(ask("y" * 2000)))
        await asyncio.gather(long, *(batcher.submit(ask("x" * draw.randint(10, 30))) for _ in range(15)))
        return sorted(len(batch) for _, _, batch in engine.calls)

    assert run(main()) == [1, 15]


def test_who_leaves_while_waiting_for_company_ends_nothing() -> None:
    """When the only request leaves while it is held for others, no empty batch is run, and the next one is answered."""

    async def main() -> None:
        engine = TimedEngine(0.01, 2e-6)
        batcher = Batcher(engine.run, Policy(16, 2.0, 64), length=length)

        draw = random.Random(1)

        async def client() -> None:
            for _ in range(100):
                await asyncio.sleep(draw.uniform(2e-4, 5e-4))
                await batcher.submit(ask("x" * draw.randint(10, 20)))

        await asyncio.gather(*(client() for _ in range(4)))  # it learns that to wait pays
        del engine.calls[:]
        alone = asyncio.create_task(batcher.submit(ask("a")))
        await asyncio.sleep(0.001)
        assert batcher.depth == 1, "it is held"
        alone.cancel()
        await asyncio.sleep(0.01)
        await batcher.submit(ask("b"))
        assert [batch for _, _, batch in engine.calls] == [[ask("b")]]

    run(main())
