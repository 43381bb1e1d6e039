"""Scores from tallies, and their intervals, against binomial ones and simulated truth."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy.stats import binomtest

from fixtures import statistics
from fixtures.statistics import Estimate, scores
from suites.meta.statistics_kit import coverage, interval, value
from targets.api import Floats


def shares(totals: Floats) -> dict[str, Floats]:
    """Tallies (right, all)."""
    return {"accuracy": totals[..., 0] / totals[..., 1]}


def answers(right: int, n: int) -> Floats:
    return np.column_stack([np.arange(n) < right, np.ones(n)]).astype(np.float64)


def test_score_interval_is_the_binomials() -> None:
    """The interval of an accuracy is Wilson's for a share, within a third of an example in a hundred."""
    found = scores(answers(400, 500), shares)["accuracy"]
    wilson = binomtest(400, 500).proportion_ci(method="wilson")
    assert (value(found), found.n) == (0.8, 500)
    assert interval(found) == pytest.approx((wilson.low, wilson.high), abs=0.0033)


def test_score_interval_covers_the_truth() -> None:
    """Over 400 datasets of 200 examples, 95 % of the intervals hold the true accuracy, within binomial error."""
    generator = np.random.default_rng(13)

    def draw() -> Estimate:
        return scores(answers(int(generator.binomial(200, 0.85)), 200), shares, resamples=400)["accuracy"]

    assert abs(coverage(0.85, draw, 400) - 0.95) <= 3.5 * math.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize("n", [2, 60, 300])
@pytest.mark.parametrize("right", [False, True])
def test_a_perfect_score_is_not_certain(n: int, right: bool) -> None:
    """With no example out of line the interval is Clopper and Pearson's, not a point."""
    found = scores(answers(n if right else 0, n), shares)["accuracy"]
    exact = binomtest(n if right else 0, n).proportion_ci(method="exact")
    assert value(found) == float(right)
    assert interval(found) == pytest.approx((exact.low, exact.high))


def test_a_difference_of_equals_is_open_to_both_sides() -> None:
    """A paired difference that no example shows may still be of either sign."""
    same = np.hstack([answers(45, 50), answers(45, 50)])
    found = scores(same, lambda t: {"drop": t[..., 0] / t[..., 1] - t[..., 2] / t[..., 3]}, bounds=(-1, 1))["drop"]
    unseen = binomtest(0, 50).proportion_ci(method="exact").high
    assert (value(found), *interval(found)) == pytest.approx((0, -unseen, unseen))


def test_scores_are_drawn_example_by_example() -> None:
    """Counts of one example stay together in a resample: a difference that no example shows has no spread."""
    tallies = answers(70, 100)
    found = scores(np.hstack([tallies, tallies]), lambda t: {"gap": t[..., 0] - t[..., 2]}, bounds=(0, 0))["gap"]
    assert (value(found), *interval(found)) == (0, 0, 0)


def test_scores_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset too large to resample at once gets the same interval, up to the luck of the draw."""
    tallies = answers(150, 200)
    whole = interval(scores(tallies, shares)["accuracy"])
    monkeypatch.setattr(statistics, "_CHUNK", 700)  # 3 rows at a time, and an odd end
    assert interval(scores(tallies, shares)["accuracy"]) == pytest.approx(whole, abs=0.01)


def test_scores_repeat_by_seed() -> None:
    """The same seed draws the same intervals; another seed draws others."""
    tallies = answers(150, 200)
    assert scores(tallies, shares, seed=1) == scores(tallies, shares, seed=1)
    assert scores(tallies, shares, seed=1) != scores(tallies, shares, seed=2)


def test_scores_are_fast() -> None:
    """Two thousand examples of six counts take less than 0.2 s of processor time."""
    tallies = np.random.default_rng(0).integers(0, 3, (2000, 6)).astype(np.float64)
    spent = []
    for _ in range(3):
        began = time.process_time()
        scores(tallies, lambda t: {"f1": t[..., 0] / t.sum(axis=-1)})
        spent.append(time.process_time() - began)
    assert min(spent) < 0.2


def test_scores_of_little() -> None:
    """No example gives no score, one gives no interval, and 0/0 stays what it is without a warning."""
    assert scores(np.zeros((0, 2)), shares)["accuracy"].reason == "n=0; a score needs 1 example"
    assert scores([[1, 1]], shares)["accuracy"] == Estimate(1.0, n=1, reason="n=1; an interval needs 2")
    undefined = scores([[0, 0]] * 3, shares)["accuracy"]
    assert math.isnan(value(undefined))
    assert (undefined.low, undefined.reason) == (None, "not defined on every resample")


def test_scores_undefined_on_some_resamples_have_no_interval() -> None:
    """A score that some resamples cannot have (no positive drawn) has no honest interval."""
    found = scores([[1, 1], [0, 0], [0, 0]], shares)["accuracy"]
    assert (found.value, found.low, found.high) == (1.0, None, None)


def test_tallies_have_two_axes() -> None:
    """Tallies of another shape are a mistake of the caller."""
    with pytest.raises(ValueError, match=r"not \(3,\)"):
        scores([1, 2, 3], shares)
