"""Ratios of percentiles and means against simulated truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.ratios import FEW_BLOCKS, ratio, ratio_of_blocks
from fixtures.statistics import Estimate

SETS = st.lists(st.floats(0.01, 1e4), min_size=90, max_size=150)


def interval(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def coverage(truth: float, draw: Callable[[], Estimate], repeats: int) -> float:
    ends = [interval(draw()) for _ in range(repeats)]
    return sum(low <= truth <= high for low, high in ends) / repeats


@pytest.mark.parametrize("statistic", ["p50", "p95", "mean"])
def test_ratio_covers_the_truth(statistic: str) -> None:
    """Over 300 pairs of sets of skewed laps, about 95 % of the intervals hold the true ratio."""
    generator = np.random.default_rng(3)

    def draw() -> Estimate:
        tops, bottoms = 1.1 * generator.lognormal(0, 0.3, 250), generator.lognormal(0, 0.3, 200)
        return ratio(tops.tolist(), bottoms.tolist(), statistic, resamples=200)

    assert 0.91 <= coverage(1.1, draw, 300) <= 0.985


@pytest.mark.parametrize("statistic", ["p50", "p90", "mean"])
@pytest.mark.parametrize(("above", "below"), [(3, 3), (5, 5), (1, 5), (2, 8)])
def test_ratio_of_blocks_covers_the_truth(statistic: str, above: int, below: int) -> None:
    """Where processes differ by 5 %, the intervals hold the true ratio in 91 % or more, however few processes."""
    generator = np.random.default_rng(above * 10 + below)

    def blocks(count: int, pace: float) -> list[list[float]]:
        speeds = pace * generator.lognormal(0, 0.05, (count, 1))
        found: list[list[float]] = (speeds * generator.lognormal(0, 0.2, (count, 60))).tolist()
        return found

    def draw() -> Estimate:
        return ratio_of_blocks(blocks(above, 1.2), blocks(below, 1.0), statistic, resamples=60)

    assert coverage(1.2, draw, 200) >= 0.91


def test_blocks_are_not_laps() -> None:
    """Of the same laps, blocks that differ give a wider interval than laps taken as independent."""
    generator = np.random.default_rng(1)
    sides = [(generator.lognormal(0, 0.1, (4, 1)) * generator.lognormal(0, 0.05, (4, 100))).tolist() for _ in "ab"]
    wide = interval(ratio_of_blocks(*sides))
    tops, bottoms = ([lap for block in side for lap in block] for side in sides)
    narrow = interval(ratio(tops, bottoms))
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_one_block_each_says_what_it_lacks() -> None:
    """With one process on either side the interval is that of the laps, and a reason says what is not in it."""
    tops, bottoms = [1.0, 1.1, 1.2] * 10, [2.0, 2.1, 2.2] * 10
    found, laps = ratio_of_blocks([tops], [bottoms]), ratio(tops, bottoms)
    assert (found.value, *interval(found)) == (laps.value, *interval(laps))
    assert found.reason == FEW_BLOCKS


@given(tops=SETS, bottoms=SETS, statistic=st.sampled_from(["p50", "p90", "mean"]))
def test_ratio_lies_in_its_interval(tops: list[float], bottoms: list[float], statistic: str) -> None:
    """The ends are in order, and in another unit the same laps have the same ratio (powers of two scale exactly)."""
    found = ratio(tops, bottoms, statistic, resamples=200)
    low, high = interval(found)
    assert found.value is not None
    assert low <= high
    scaled = ratio([8 * lap for lap in tops], [8 * lap for lap in bottoms], statistic, resamples=200)
    assert (scaled.value, *interval(scaled)) == pytest.approx((found.value, low, high))


def test_a_percentiles_resamples_are_those_of_drawing() -> None:
    """The ranks drawn from a beta distribution are as spread as percentiles of sets drawn lap by lap."""
    generator = np.random.default_rng(8)
    laps = np.sort(generator.lognormal(0, 0.5, 300))
    drawn = [np.sort(generator.choice(laps, 300))[math.ceil(300 * 0.9) - 1] for _ in range(4000)]
    found = interval(ratio(laps.tolist(), [1.0] * 300, "p90", resamples=4000))
    assert found == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), rel=0.04)


@pytest.mark.parametrize(
    ("tops", "bottoms", "statistic", "reason"),
    [
        ([1.0] * 40, [1.0] * 90, "p95", "n=40; p95 needs 90"),
        ([1.0] * 9, [1.0], "mean", "n=1; mean needs 2"),
        ([1.0] * 9, [0.0] * 9, "p50", "9 of 9 samples are not finite or not above 0"),
        ([1.0, math.nan] * 9, [1.0] * 9, "p50", "9 of 18 samples are not finite or not above 0"),
    ],
)
def test_ratio_of_little_says_why(tops: list[float], bottoms: list[float], statistic: str, reason: str) -> None:
    """Where no ratio may be claimed there is no number, and the reason; the same of blocks."""
    assert (ratio(tops, bottoms, statistic).value, ratio(tops, bottoms, statistic).reason) == (None, reason)
    assert ratio_of_blocks([tops], [bottoms], statistic).reason == reason


def test_no_blocks_no_ratio() -> None:
    """A side without laps has no ratio; a name that is no statistic is a mistake of the caller."""
    assert ratio_of_blocks([[]], [[1.0]]).reason == "no blocks"
    with pytest.raises(ValueError, match="'best'"):
        ratio([1.0], [1.0], "best")
