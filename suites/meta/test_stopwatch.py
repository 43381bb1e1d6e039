from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import stopwatch
from fixtures.guest import Guest
from fixtures.sequential import Goal
from fixtures.stopwatch import WINDOW, LatencyPlan, ThroughputPlan
from targets.api import Answer, Request

MIX = tuple({"text": f"text {number}"} for number in range(8))


class Clock:
    """A stopwatch's clock that only a fake target moves, in ns."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@dataclass
class Machine:
    """A fake target: each call takes `cost(number of the call, batch)` ms of the clock, and is written down."""

    clock: Clock
    cost: Any
    calls: list[list[Request]] = field(default_factory=list)

    def run(self, batch: Sequence[Request]) -> list[Answer]:
        self.calls.append(list(batch))
        self.clock.now += round(self.cost(len(self.calls), batch) * 1e6)
        return [{} for _ in batch]

    @property
    def guest(self) -> Guest:
        return Guest(cast(Any, self))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock in place of the real one."""
    made = Clock()
    monkeypatch.setattr(time, "perf_counter_ns", made)  # the stopwatch looks it up there
    return made


def steady(ms: float) -> Any:
    return lambda _number, _batch: ms


def plan(
    least: int = 5, most: int = 1000, budget_s: float = 0.1, warm_s: float = 1.0, cap_s: float = 2.0
) -> LatencyPlan:
    return LatencyPlan(MIX, least, most, budget_s, warm_s, cap_s)


def test_a_steady_target_is_warm_after_three_windows(clock: Clock) -> None:
    """Warm-up takes as many laps as it needs to compare three windows, and no more."""
    laps = stopwatch.latency(Machine(clock, steady(2.0)).guest, plan())
    assert (laps.warm_laps, laps.steady) == (3 * WINDOW, True)
    assert laps.warm_s == pytest.approx(0.06)


def test_warm_up_goes_on_until_it_is_warm(clock: Clock) -> None:
    """A target that is slow at first is warmed until three windows agree, and none of the slow laps is measured."""
    cold = 2 * WINDOW + WINDOW // 2
    machine = Machine(clock, lambda number, _batch: 50.0 if number <= cold else 2.0)
    laps = stopwatch.latency(machine.guest, plan(warm_s=60))
    assert laps.steady
    assert cold + 2 * WINDOW <= laps.warm_laps <= cold + 4 * WINDOW
    assert set(laps.ms) == {2.0}


def test_warm_up_has_a_cap(clock: Clock) -> None:
    """A target that never settles is measured when the cap is over, and the laps say that it was not steady."""
    machine = Machine(clock, lambda number, _batch: float(number))
    laps = stopwatch.latency(machine.guest, plan(warm_s=1.0))
    assert not laps.steady
    assert 1.0 < laps.warm_s < 1.0 + 2 * WINDOW * 0.1


def test_a_window_sees_the_same_requests(clock: Clock) -> None:
    """Windows are comparable: each holds the same requests, so that their lengths do not count as unsteadiness."""
    machine = Machine(clock, lambda _number, batch: 1.0 + 10 * MIX.index(batch[0]))
    laps = stopwatch.latency(machine.guest, plan())
    windows = [machine.calls[start : start + WINDOW] for start in range(0, laps.warm_laps, WINDOW)]
    assert windows == [windows[0]] * 3
    assert laps.steady


def test_laps_are_what_the_clock_said(clock: Clock) -> None:
    """A lap is one call of one request, in ms, in the order of the mix; nothing else lies in the measuring time."""
    machine = Machine(clock, lambda _number, batch: 1.0 + MIX.index(batch[0]))
    laps, spent, _ = stopwatch.lap(machine.guest, plan(least=20, budget_s=0))
    assert [lap / 1e6 for lap in laps] == [1.0 + number % 8 for number in range(20)]
    assert spent == pytest.approx(sum(laps) / 1e9)


@settings(deadline=None)
@given(
    ms=st.floats(0.1, 500).map(lambda value: round(value, 3)),
    least=st.integers(1, 60),
    extra=st.integers(0, 100),
    budget_s=st.floats(0, 3),
    cap_s=st.floats(3, 10),
)
def test_budget_and_bounds(ms: float, least: int, extra: int, budget_s: float, cap_s: float) -> None:
    """Measuring ends at `most` laps or the cap, else as soon as the budget is spent and `least` laps are taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter_ns", clock := Clock())
        most = least + extra
        laps, spent, _ = stopwatch.lap(Machine(clock, steady(ms)).guest, plan(least, most, budget_s, cap_s=cap_s))
    count, before = len(laps), spent - ms / 1e3
    assert count == most or spent > cap_s or (spent > budget_s and count >= least)
    assert count <= most
    assert before <= cap_s + 1e-6
    assert count - 1 < least or before <= budget_s + 1e-6, "it went on although nothing more was needed"


@pytest.mark.parametrize("bound", [3.0, 1.0, 2.0, 1.999])
def test_a_decided_limit_ends_it(clock: Clock, bound: float) -> None:
    """Laps end at the first look, after whole passes, that decides the limit, long before the budget."""
    goal = Goal("latency_ms", "p50", "max", bound)
    asked = replace(plan(least=10, budget_s=1.0), goals=(goal,), patience_s=60.0)
    found = stopwatch.latency(Machine(clock, steady(2.0)).guest, asked)
    assert (len(found.ms), found.stop.looks, found.stop.decided) == (16, 1, True)
    assert found.stop.confidence == pytest.approx(0.975)


def test_an_open_limit_takes_the_budget(clock: Clock) -> None:
    """Laps on both sides of the limit go on until the budget of limits is spent, not the short one."""
    goal = Goal("latency_ms", "p50", "max", 2.0)
    machine = Machine(clock, lambda number, _batch: 1.0 if number % 2 else 3.0)
    asked = replace(plan(least=10, cap_s=9.0, most=10_000), goals=(goal,), patience_s=3.0)
    found = stopwatch.latency(machine.guest, asked)
    assert not found.stop.decided
    assert 3.0 < found.measure_s < 3.01
    assert found.stop.looks > 8


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 16, 32])
def test_throughput_counts_whole_rounds(clock: Clock, size: int) -> None:
    """Every request of the mix is served equally often, in full batches; the rate is theirs."""
    machine = Machine(clock, lambda _number, batch: 1.0 + 0.5 * len(batch))
    found = stopwatch.throughput(machine.guest, ThroughputPlan(MIX, size, 0.05))
    _warm, *served = machine.calls
    assert [len(batch) for batch in served] == [size] * len(found.laps_ms)
    assert len(found.laps_ms) % -(-len(MIX) // size) == 0
    assert {request["text"] for batch in served for request in batch} == {request["text"] for request in MIX}
    assert found.per_s == pytest.approx(size / (1.0 + 0.5 * size) * 1e3)
    assert sum(found.laps_ms) / 1e3 >= 0.05


def test_throughput_keeps_its_books(clock: Clock) -> None:
    """Warm-up and measuring time together are all the time that was spent."""
    found = stopwatch.throughput(Machine(clock, steady(3.0)).guest, ThroughputPlan(MIX, 4, 0.02))
    assert found.warm_s == pytest.approx(0.003)
    assert found.warm_s + found.measure_s == pytest.approx(clock.now / 1e9)


def test_a_turn_leads_in(clock: Clock) -> None:
    """A turn of a comparison begins with its unmeasured laps, then measures every request once."""
    machine = Machine(clock, lambda number, _batch: 90.0 if number <= 2 else 5.0)
    turn = stopwatch.block(machine.guest, MIX, 2)
    assert turn.ms == (5.0,) * len(MIX)
    assert turn.warm_laps == 2
    assert turn.warm_s == pytest.approx(0.18)
    assert turn.measure_s == pytest.approx(0.04)
    assert [batch[0] for batch in machine.calls] == [*MIX[:2], *MIX]


def test_the_clock_is_the_monotonic_one() -> None:
    """Laps of a target that sleeps are at least as long as it slept, by the machine's own clock."""

    def doze(number: int, batch: Sequence[Request]) -> float:
        time.sleep(0.002)
        return 0.0

    laps, *_ = stopwatch.lap(Machine(Clock(), doze).guest, plan(least=5, most=5))
    assert all(2.0 <= value / 1e6 < 500 for value in laps)
