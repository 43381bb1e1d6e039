from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fixtures.baseline.comparison import compare
from fixtures.baseline.launch import Launch
from fixtures.baseline.ratio import ratio_of, weights_of
from fixtures.baseline.visits import APART_S, by_visit, visits
from fixtures.baseline.weather import EXPECTED, LEAST_CASES, Following, learned, of, surplus
from fixtures.verdict import Outcome
from suites.meta.sample_launches import series

CASES = 90
Recorded = list[tuple[str, Sequence[Launch]]]


def visited(seed: int, slow: Iterable[float], others: Iterable[float] = (1.0, 1.0)) -> list[Launch]:
    """A case in visits a while apart: how many times slower it was in each, and random reads from memory were."""
    return [
        replace(each, at=number * 1000.0 + second)
        for number, (case, reads) in enumerate(zip(slow, others, strict=False))
        for second, each in enumerate(series(10 * seed + number, case=case, others=reads))
    ]


def restless(spread: float, share: float = 0.0, weather: float = 0.0, seed: int = 0) -> Recorded:
    """Cases whose visits differ by so much (standard deviation of the logarithm), and follow the reads by a share."""
    draw = np.random.default_rng(seed)
    found: Recorded = []
    for each in range(CASES):
        reads = np.exp(draw.normal(0, weather, 2))
        found.append(("engine", visited(each, np.exp(draw.normal(0, spread, 2)) * reads**share, reads)))
    return found


def test_launches_apart_are_other_visits() -> None:
    """Launches in a row are one visit, however long each takes; those after a gap are another."""
    launches = [replace(series(1, count=1)[0], at=at, seconds=40.0) for at in (0, 40, 80, 120 + 1.1 * APART_S, 180)]
    assert [each.tolist() for each in by_visit(launches, np.arange(5.0))] == [[0, 1, 2], [3, 4]]
    assert visits(launches) == [launches[:3], launches[3:]]


@pytest.mark.parametrize("spread", [0.03, 0.08])
def test_unrest_is_what_visits_differ_by(spread: float) -> None:
    """Of many cases visited twice the spread of visits is found, whatever their launches scatter by."""
    assert of(learned(restless(spread)), "engine", "latency_ms").unrest == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_what_witnesses_explain_is_no_unrest(share: float) -> None:
    """By how much times follow the reads is learned over cases, and what they explain is taken off."""
    found = of(learned(restless(0.01, share, weather=0.2)), "engine", "latency_ms")
    assert found.shares[1:].sum() == pytest.approx(share, abs=0.06)
    assert found.unrest < 0.02
    old, new = visited(500, (1.0, 1.0)), series(7000, case=1.5**share, others=1.5)
    assert compare("latency_ms", old, new, follows=found).outcome is Outcome.PASS
    slower = compare("latency_ms", old, series(7000, case=1.2 * 1.5**share, others=1.5), follows=found)
    assert slower.outcome is Outcome.FAIL
    assert slower.ratio.value == pytest.approx(1.2, abs=0.06)


def test_a_quiet_machine_has_next_to_none() -> None:
    """Where only launches differ visits are not said to; cases that were visited once tell nothing."""
    assert of(learned(restless(0.0)), "engine", "latency_ms").unrest < 0.007
    assert learned([("engine", series(1))]) == {}


def test_what_is_noisy_does_not_hide_what_is_not() -> None:
    """Visits that differ by 3 % are known to, though one case in ten scatters by 20 %; no more than noise is 0."""
    noise = np.where(np.arange(2000) % 10, 0.01, 0.2) ** 2
    for seed in range(20):
        drawn = np.random.default_rng(seed).normal(0, np.sqrt(noise + 0.03**2))
        assert surplus(drawn**2, noise) ** 0.5 == pytest.approx(0.03, rel=0.1)
    assert surplus(noise / 2, noise) < 1e-9
    assert surplus(np.zeros(3), np.zeros(3)) == 0.0


def test_an_engine_of_few_cases_is_taken_with_all_others() -> None:
    """An engine is known by its own cases where they are enough, else by all, and where there are none as expected."""
    cases = restless(0.05)
    few = [("rare", launches) for _, launches in cases[: LEAST_CASES - 1]]
    weather = learned([*few, *cases[LEAST_CASES:]])
    assert of(weather, "rare", "latency_ms") is of(weather, "none", "latency_ms") is weather["", "latency_ms"]
    assert of(weather, "engine", "latency_ms") is weather["engine", "latency_ms"]
    expected = of({}, "engine", "latency_ms")
    assert expected.doubt(np.array([0.5, 0.0, 0.0])) == 0.0
    assert expected.doubt(np.array([0.0, 0.0, 0.5])) == pytest.approx(0.15)
    assert expected.shares.tolist() == EXPECTED.tolist()
    assert expected.unrest == 0.0


def test_cases_count_and_not_their_visits() -> None:
    """An engine of few cases is not known by itself, however often each was visited."""
    many = [("rare", visited(each, np.ones(6), np.ones(6))) for each in range(LEAST_CASES - 1)]
    assert ("rare", "latency_ms") not in learned(many)
    assert ("rare", "latency_ms") in learned([*many, ("rare", visited(99, (1.0, 1.0)))])


def test_more_visits_tell_more_of_the_same() -> None:
    """The unrest of cases visited four times is found as that of those visited twice, and shares are known better."""
    draw = np.random.default_rng(0)
    found = {}
    for count in (2, 4):
        cases = []
        for each in range(60):
            reads = np.exp(draw.normal(0, 0.1, count))
            slow = np.exp(draw.normal(0, 0.03, count)) * reads**0.4
            cases.append(("engine", visited(each, slow, reads)))
        found[count] = of(learned(cases), "engine", "latency_ms")
        assert found[count].unrest == pytest.approx(0.03, rel=0.25)
        assert found[count].shares[1:].sum() == pytest.approx(0.4, abs=0.08)
    moved = np.array([0.0, 0.1, 0.1])
    assert found[4].doubt(moved) == pytest.approx(found[2].doubt(moved) / 3**0.5, rel=0.15)


def test_what_uses_no_time_has_no_unrest() -> None:
    """Memory does not follow the machine's speed."""
    assert {metric for _, metric in learned(restless(0.03)[:3])} == {"latency_ms", "load_s"}


def test_more_visits_weigh_more_where_visits_differ() -> None:
    """Of a quiet machine launches count, of a restless one visits do, however many launches each has."""
    few, many = np.random.default_rng(0).normal(0, 0.01, 4), np.random.default_rng(1).normal(0, 0.01, 16)
    assert weights_of([few, many], 0.0) == pytest.approx([0.2, 0.8])
    assert weights_of([few, many], 0.5) == pytest.approx([0.5, 0.5], abs=0.01)


def test_unrest_widens_the_interval() -> None:
    """The interval of a ratio holds what visits differ by; a second visit of either side makes it narrower."""
    draw = np.random.default_rng(0)
    one, two, three, four = (draw.normal(0, 0.01, 8) for _ in range(4))

    def width(then: list[NDArray[np.float64]], now: list[NDArray[np.float64]], share: float) -> float:
        found = ratio_of(then, now, share)
        assert found.low is not None
        assert found.high is not None
        return float(np.log(found.high / found.low))

    assert width([one], [two], 0.0) < 0.03 < width([one], [two], 0.03)
    assert width([one, two], [three, four], 0.03) == pytest.approx(width([one], [two], 0.03) / 2**0.5, rel=0.1)


def test_what_the_weather_may_explain_is_told() -> None:
    """Where reads took longer and how far the case follows them is not known, a slowdown is not decided."""
    old, new = visited(1, (1.0, 1.0)), visited(2, (1.1,), (1.6,))
    assert compare("latency_ms", old, new).outcome is Outcome.INCONCLUSIVE
    sure = Following(EXPECTED, 0.0, np.zeros((3, 3)))
    assert compare("latency_ms", old, visited(2, (1.25,), (1.6,)), follows=sure).outcome is Outcome.FAIL


@pytest.mark.parametrize(("share", "outcome"), [(0.005, Outcome.FAIL), (0.05, Outcome.INCONCLUSIVE)])
def test_red_is_what_the_machine_does_not_do_by_itself(share: float, outcome: Outcome) -> None:
    """A tenth slower is red on a quiet machine; on one that differs by itself it is not, and the reason says so."""
    found = compare("latency_ms", visited(1, (1.0, 1.0)), visited(2, (1.1,)), follows=Following(unrest=share))
    assert found.outcome is outcome
    assert ("from visit to visit" in found.reason) == (outcome is Outcome.INCONCLUSIVE)


def test_false_alarms_on_a_restless_machine() -> None:
    """Where visits differ by 4 %, two in a hundred of nothing new are red at most, before a second look."""
    follows = of(learned(restless(0.04)), "engine", "latency_ms")
    draw = np.random.default_rng(5)
    red = 0
    for seed in range(1000, 1400, 2):
        old, new = visited(seed, np.exp(draw.normal(0, 0.04, 2))), visited(seed + 1, np.exp(draw.normal(0, 0.04, 1)))
        red += compare("latency_ms", old, new, follows=follows).outcome is Outcome.FAIL
    assert red <= 4
