from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fixtures.baseline.comparison import compare, ratio_of, weights_of
from fixtures.baseline.launch import Launch
from fixtures.baseline.unrest import unrest
from fixtures.baseline.visits import APART_S, by_visit, visits
from fixtures.verdict import Outcome
from suites.meta.sample_launches import series


def visited(seed: int, *slow: float) -> list[Launch]:
    """A case in visits a while apart, in each of which it was so many times slower."""
    return [
        replace(each, at=number * 1000.0 + second)
        for number, case in enumerate(slow)
        for second, each in enumerate(series(10 * seed + number, case=case))
    ]


def restless(spread: float, cases: int = 90, seed: int = 0) -> list[Sequence[Launch]]:
    """Cases on a machine whose visits differ by so much, as a standard deviation of the logarithm."""
    draw = np.random.default_rng(seed)
    return [visited(each, *np.exp(draw.normal(0, spread, 2))) for each in range(cases)]


def test_launches_apart_are_other_visits() -> None:
    """Launches in a row are one visit, however long each takes; those after a gap are another."""
    launches = [replace(series(1, count=1)[0], at=at, seconds=40.0) for at in (0, 40, 80, 120 + 1.1 * APART_S, 180)]
    assert [each.tolist() for each in by_visit(launches, np.arange(5.0))] == [[0, 1, 2], [3, 4]]
    assert visits(launches) == [launches[:3], launches[3:]]


@pytest.mark.parametrize("spread", [0.03, 0.08])
def test_unrest_is_what_visits_differ_by(spread: float) -> None:
    """Of many cases visited twice the spread of visits is found, whatever their launches scatter by."""
    assert unrest(restless(spread))["latency_ms"] == pytest.approx(spread, rel=0.25)


def test_a_quiet_machine_has_next_to_none() -> None:
    """Where only launches differ, visits are not said to; cases that were visited once tell nothing."""
    assert unrest(restless(0.0))["latency_ms"] < 0.006
    assert unrest([visited(1, 1.0)]) == {}


def test_what_uses_no_time_has_no_unrest() -> None:
    """Memory does not follow the machine's speed."""
    assert "peak_memory_mb" not in unrest(restless(0.03, cases=3))


def test_more_visits_weigh_more_where_visits_differ() -> None:
    """Of a quiet machine launches count, of a restless one visits do, however many launches each has."""
    few, many = np.random.default_rng(0).normal(0, 0.01, 4), np.random.default_rng(1).normal(0, 0.01, 16)
    assert weights_of([few, many], 0.0) == pytest.approx([0.2, 0.8])
    assert weights_of([few, many], 0.5) == pytest.approx([0.5, 0.5], abs=0.01)


def test_unrest_widens_the_interval() -> None:
    """The interval of a ratio holds what visits differ by; a second visit makes it narrower."""
    draw = np.random.default_rng(0)
    one, two, three, four = (draw.normal(0, 0.01, 8) for _ in range(4))

    def width(then: list[np.ndarray], now: list[np.ndarray], share: float) -> float:
        found = ratio_of(then, now, share)
        assert found.low is not None
        assert found.high is not None
        return float(np.log(found.high / found.low))

    assert width([one], [two], 0.0) < 0.03 < width([one], [two], 0.03)
    assert width([one, two], [three, four], 0.03) == pytest.approx(width([one], [two], 0.03) / 2**0.5, rel=0.1)


@pytest.mark.parametrize(("share", "outcome"), [(0.005, Outcome.FAIL), (0.05, Outcome.INCONCLUSIVE)])
def test_red_is_what_the_machine_does_not_do_by_itself(share: float, outcome: Outcome) -> None:
    """A tenth slower is red on a quiet machine; on one that differs by itself it is not, and the reason says so."""
    found = compare("latency_ms", visited(1, 1.0, 1.0), visited(2, 1.1), unrest=share)
    assert found.outcome is outcome
    assert ("from visit to visit" in found.reason) == (outcome is Outcome.INCONCLUSIVE)


def test_false_alarms_on_a_restless_machine() -> None:
    """Where visits differ by 4 %, one comparison of nothing new in a hundred is red at most."""
    share = unrest(restless(0.04))["latency_ms"]
    draw = np.random.default_rng(5)
    pairs = [
        (visited(2 * n + 1, *np.exp(draw.normal(0, 0.04, 2))), visited(2 * n + 2, float(np.exp(draw.normal(0, 0.04)))))
        for n in range(200)
    ]
    red = [compare("latency_ms", old, new, unrest=share).outcome is Outcome.FAIL for old, new in pairs]
    assert sum(red) <= 4
