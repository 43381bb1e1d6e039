"""Sequential decisions: how often they are wrong, and how soon they come."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.sequential import ALPHA, GROWTH, MEAN_LEAST, Goal, Pace, Stop, confidence, goals
from fixtures.statistics import Estimate, percentile
from fixtures.thresholds import Limit
from fixtures.verdict import Measurement, Outcome, judge
from targets.api import Floats

Draw = Callable[[np.random.Generator, int], Floats]
MOST = 2000
RUNS = 300
LAPS: dict[str, tuple[Draw, dict[str, float]]] = {
    "log-normal": (
        lambda g, n: g.lognormal(0, 1, n),
        {"p50": 1.0, "p90": math.exp(1.2815516), "p95": math.exp(1.6448536), "mean": math.exp(0.5)},
    ),
    "exponential": (
        lambda g, n: g.exponential(size=n),
        {"p50": math.log(2), "p90": math.log(10), "p95": math.log(20), "mean": 1.0},
    ),
    "uniform": (lambda g, n: g.uniform(size=n), {"p50": 0.5, "p90": 0.9, "p95": 0.95, "mean": 0.5}),
    "two modes": (lambda g, n: np.where(g.random(n) < 0.7, 1.0, 3.0) + g.uniform(-0.1, 0.1, n), {"mean": 1.6}),
}
"""How laps are drawn, and what their statistics truly are."""


@dataclass
class Plan:
    """Laps without end but for `most`."""

    goals: tuple[Goal, ...]
    least: int = 7
    most: int = MOST
    budget_s: float = 0.0
    cap_s: float = 1e9
    patience_s: float = 1e9
    settle: int = 0


def stopped(goal: Goal, laps: Floats, least: int = 7) -> Stop:
    """What became of laps that are looked at whenever a look is due."""
    pace = Pace(Plan((goal,), least, len(laps)), 0)
    while not pace.over(min(pace.due, len(laps)), 0, lambda _: laps[: pace.due].tolist()):
        assert pace.due > pace.stop.laps
    return pace.stop


@pytest.mark.parametrize(
    ("laps", "statistic"), [(name, statistic) for name, (_, truths) in LAPS.items() for statistic in truths]
)
def test_a_limit_at_the_truth_is_seldom_decided(laps: str, statistic: str) -> None:
    """Where the truth lies at the limit, at most 5 % of runs ever decide, either way, less sampling error."""
    draw, truths = LAPS[laps]
    generator = np.random.default_rng(sum(map(ord, laps + statistic)))
    goal = Goal("latency_ms", statistic, "max", truths[statistic])
    wrong = sum(stopped(goal, draw(generator, MOST)).decided for _ in range(RUNS)) / RUNS
    assert wrong <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / RUNS)


@pytest.mark.parametrize("statistic", ["p50", "p95", "mean"])
@pytest.mark.parametrize(("factor", "within"), [(0.25, 1.0), (3.0, 1.0), (0.8, 20.0)])
def test_far_from_the_limit_is_soon(statistic: str, factor: float, within: float) -> None:
    """Far from the limit nearly every run stops at its first look, nearer to it later, and on the right side."""
    generator = np.random.default_rng(5)
    truth = {"p50": 1.0, "p95": math.exp(0.3 * 1.6448536), "mean": math.exp(0.045)}[statistic]
    goal = Goal("latency_ms", statistic, "max", truth / factor)
    found = [stopped(goal, generator.lognormal(0, 0.3, MOST)) for _ in range(60)]
    first = max(goal.least, 7)
    assert sum(stop.laps <= math.ceil(within * first) for stop in found) >= 57
    assert sum(stop.decided for stop in found) >= 59


def test_looks_share_the_error() -> None:
    """The error of all looks together is that of one interval at 95 %; without looks intervals are at 95 %."""
    assert sum(1 - confidence(look) for look in range(1, 100_000)) == pytest.approx(ALPHA, rel=1e-4)
    assert confidence(0) == pytest.approx(0.95)


def test_looks_are_few() -> None:
    """Looks grow geometrically: of 100,000 laps without a decision fewer than 30 are looked at."""
    goal = Goal("latency_ms", "p50", "max", 1.0)
    pace = Pace(Plan((goal,), most=10**6), 0)
    calls = []
    while pace.due < 100_000:
        calls.append(pace.due)
        assert not pace.over(pace.due, 0, lambda _: [0.9, 1.1] * 50)
    assert len(calls) < 30
    assert all(GROWTH * a <= b <= GROWTH * a + 1 for a, b in pairwise(calls))


@given(
    samples=st.lists(st.floats(0.1, 10), min_size=90, max_size=300),
    bound=st.floats(0.1, 10),
    direction=st.sampled_from(["min", "max"]),
    statistic=st.sampled_from(["p50", "p90", "p95", "mean"]),
    look=st.integers(1, 8),
)
def test_verdict_and_stop_agree(samples: list[float], bound: float, direction: str, statistic: str, look: int) -> None:
    """A look decides exactly where the verdict on the same samples, at the same confidence, is PASS or FAIL."""
    limit = Limit("latency_ms", statistic, direction, bound, "made up", "limits.yaml:1", "*/*/*/*", "cpu")
    (goal,) = goals([limit], "latency_ms")
    measured = Measurement("latency_ms", "ms", tuple(samples), confidence=confidence(look))
    (verdict,) = judge(measured, [limit])
    assert goal.decided(samples, confidence(look)) == (verdict.outcome in (Outcome.PASS, Outcome.FAIL))


def test_every_limit_is_decided() -> None:
    """Sampling goes on while one of several limits is open."""
    easy, hard = (Goal("latency_ms", "p50", "max", bound) for bound in (100.0, 1.0))
    laps = np.tile([0.5, 1.5], 500).tolist()
    pace = Pace(Plan((easy, hard), most=1000), 0)
    assert next(n for n in range(1, 1001) if pace.over(n, 0, lambda _: laps)) == 1000
    assert not pace.stop.decided
    assert (
        str(pace.stop) == "stopped after 1000 laps at the most that are taken (1000): an interval still holds its limit"
    )


def test_nothing_is_claimed_of_too_few() -> None:
    """No look comes before the least samples of the percentile, nor of the plan, and a mean needs its own."""
    for statistic, least, first in (("p95", 7, 90), ("p50", 44, 44), ("mean", 7, MEAN_LEAST), ("p99", 90, 459)):
        stop = stopped(Goal("latency_ms", statistic, "max", 1e9), np.ones(600), least)
        assert (stop.laps, stop.looks, stop.decided) == (first, 1, True)


def test_the_budget_ends_what_is_open() -> None:
    """At the budget an undecided limit stays open, after one more look; too few laps for it say so."""
    near, far = Goal("latency_ms", "p50", "max", 1.0), Goal("latency_ms", "p99", "max", 1.0)
    for goal, words in ((near, "an interval still holds its limit"), (far, "there were too few laps to judge")):
        pace = Pace(Plan((goal,), least=20, patience_s=2.0), 0)
        assert next(n for n in range(1, 200) if pace.over(n, n * 10**8, lambda _: [0.5, 1.5] * 10)) == 21
        assert str(pace.stop) == f"stopped after 21 laps at the budget (2 s): {words}"


def test_looks_see_whole_passes() -> None:
    """A look comes after whole passes over the mix, unless a pass is much longer than what is needed."""
    for step, first in ((8, 96), (32, 96), (1000, 90)):
        pace = Pace(Plan((Goal("latency_ms", "p95", "max", 9.0),), least=90, budget_s=1.0), 0, step)
        assert next(n for n in range(1, 2000) if pace.over(n, 0, lambda _: [1.0] * 2000)) == first


def test_steadiness_gets_its_time() -> None:
    """A decided limit waits for the laps that steadiness is seen in, but not beyond half the short budget."""
    for settle, budget_s, count in ((50, 12.0, 50), (500, 2.0, 11), (0, 9.0, 7)):
        plan = Plan((Goal("latency_ms", "p50", "max", 9.0),), budget_s=budget_s, settle=settle)
        pace = Pace(plan, 0)
        assert next(n for n in range(1, 600) if pace.over(n, n * 10**8, lambda _: [1.0] * 600)) == count


def test_without_limits_the_short_budget_holds() -> None:
    """Where no limit asks for more, sampling ends at the short budget, and nothing is said of limits."""
    pace = Pace(Plan((), budget_s=1.0), 0)
    assert next(n for n in range(1, 600) if pace.over(n, n * 10**8, lambda _: [])) == 11
    assert pace.stop.looks == 0
    assert pace.stop.confidence == pytest.approx(0.95)
    assert pace.stop.told("11 laps") == "11 laps"


def test_limits_become_goals() -> None:
    """A plain rate is its median; limits on other metrics, or on what laps do not show, are left to the judge."""

    def limit(metric: str, statistic: str) -> Limit:
        return Limit(metric, statistic, "min", 5.0, "made up", "limits.yaml:1", "*/*/*/*", "cpu")

    limits = [limit("decode_tokens_per_s", ""), limit("load_s", ""), limit("throughput_per_s", "best")]
    assert goals(limits, "decode_tokens_per_s", "throughput_per_s") == (Goal("decode_tokens_per_s", "p50", "min", 5.0),)


def test_wider_looks_are_wider() -> None:
    """Intervals of later looks hold those of earlier ones, and open up where samples do not reach that far."""
    samples = np.random.default_rng(2).lognormal(0, 1, 90).tolist()
    for statistic in ("p95", "mean"):
        goal = Goal("latency_ms", statistic, "max", 1.0)
        found = [interval(goal.estimate(samples, confidence(look))) for look in (1, 2, 5, 40)]
        assert all(b[0] <= a[0] <= a[1] <= b[1] for a, b in pairwise(found))
    assert percentile(samples, 0.95, confidence(40)).high == math.inf


def interval(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high
