"""Percentiles, means, ratios and steadiness against closed forms, published tables and simulated truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fixtures.statistics import Estimate, mean, min_samples, percentile, ratio_of_medians, steady
from suites.meta.statistics_kit import coverage, interval, value

SHARES = st.floats(0.01, 0.995)
LAPS = st.lists(st.floats(0.001, 1e6), min_size=44, max_size=200)


@pytest.mark.parametrize(
    ("q", "overruns", "needed"),
    [
        *[(0.5, 0, 7), (0.9, 0, 44), (0.95, 0, 90), (0.99, 0, 459), (0.999, 0, 4603)],
        *[(0.5, 1, 11), (0.9, 1, 64), (0.95, 1, 130), (0.99, 1, 662), (0.999, 1, 6636)],
    ],
)
def test_samples_needed_are_loadgens(q: float, overruns: int, needed: int) -> None:
    """The samples needed for a percentile are those that LoadGen's early stopping asks for at 99 %."""
    assert min_samples(q, overruns) == needed


@given(q=SHARES, overruns=st.integers(0, 6))
def test_samples_needed_are_the_fewest(q: float, overruns: int) -> None:
    """One sample less leaves more than 1 % chance to see so few overruns; the tail is summed here term by term."""

    def tail(n: int) -> float:
        over = 1 - max(q, 1 - q)
        return math.fsum(math.comb(n, k) * over**k * (1 - over) ** (n - k) for k in range(overruns + 1))

    n = min_samples(q, overruns)
    assert tail(n) <= 0.01 * (1 + 1e-9)
    assert n == overruns + 1 or tail(n - 1) > 0.01 * (1 - 1e-9)


@pytest.mark.parametrize(("q", "ends"), [(0.5, (50, 40, 61)), (0.9, (90, 84, 96)), (0.1, (10, 5, 17))])
def test_percentile_of_a_hundred(q: float, ends: tuple[float, float, float]) -> None:
    """Of 1 to 100, nearest rank and interval are the ranks that tables of binomial order statistics give."""
    samples = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    assert percentile(samples.tolist(), q) == Estimate(*ends, 100)


@pytest.mark.parametrize(("q", "n"), [(0.5, 7), (0.5, 60), (0.9, 44), (0.95, 90), (0.95, 300), (0.99, 459)])
def test_percentile_interval_covers_the_truth(q: float, n: int) -> None:
    """Over 1,500 runs on skewed laps, at least 95 % of the intervals hold the true percentile, less sampling error."""
    generator = np.random.default_rng(7)
    truth, repeats = -math.log(1 - q), 1500
    found = coverage(truth, lambda: percentile(generator.exponential(size=n).tolist(), q), repeats)
    assert found >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / repeats)


@given(samples=LAPS, q=st.floats(0.1, 0.9))
def test_percentile_lies_in_its_interval(samples: list[float], q: float) -> None:
    """A percentile and both ends of its interval are samples, in order."""
    found = percentile(samples, q)
    low, high = interval(found)
    assert low <= value(found) <= high
    assert {low, value(found), high} <= set(samples)


@given(samples=LAPS, first=st.floats(0.1, 0.9), second=st.floats(0.1, 0.9))
def test_percentiles_rise_with_their_share(samples: list[float], first: float, second: float) -> None:
    """A higher percentile is never below a lower one, nor are the ends of its interval."""
    less, more = (percentile(samples, q) for q in sorted((first, second)))
    assert value(less) <= value(more)
    assert np.all(np.subtract(interval(more), interval(less)) >= 0)


@given(samples=LAPS, q=st.floats(0.1, 0.9), power=st.integers(-20, 20))
def test_percentile_scales_with_the_unit(samples: list[float], q: float, power: int) -> None:
    """In another unit, or order, the same laps have the same percentile and interval (powers of two scale exactly)."""
    scaled = percentile([sample * 2.0**power for sample in reversed(samples)], q)
    plain = percentile(samples, q)
    assert (value(scaled), *interval(scaled)) == tuple(end * 2.0**power for end in (value(plain), *interval(plain)))


@pytest.mark.parametrize(
    ("samples", "q", "reason"),
    [
        ([1.0] * 40, 0.95, "n=40; p95 needs 90"),
        ([1.0] * 4602, 0.999, "n=4602; p99.9 needs 4603"),
        ([], 0.5, "n=0; p50 needs 7"),
        ([1.0] * 99 + [math.nan], 0.5, "1 of 100 samples are not finite"),
        ([1.0] * 98 + [math.inf] * 2, 0.5, "2 of 100 samples are not finite"),
    ],
)
def test_percentile_without_a_value_says_why(samples: list[float], q: float, reason: str) -> None:
    """Where no percentile may be claimed there is no number, and the reason."""
    assert percentile(samples, q) == Estimate(None, n=len(samples), reason=reason)


@pytest.mark.parametrize("q", [0.0, 1.0, 95.0, -0.5, math.nan])
def test_a_percentile_is_a_share(q: float) -> None:
    """A share outside (0, 1) is a mistake of the caller."""
    with pytest.raises(ValueError, match=r"p95 is 0\.95"):
        percentile([1.0] * 100, q)


def test_mean_interval_is_students_for_normal_samples() -> None:
    """On normal samples the bootstrap interval is the textbook one (1.96 standard errors) within a tenth."""
    samples = np.random.default_rng(3).normal(10, 2, 400)
    found = mean(samples.tolist(), resamples=4000)
    half = norm.ppf(0.975) * samples.std(ddof=1) / 20
    assert value(found) == pytest.approx(samples.mean())
    assert interval(found) == pytest.approx((samples.mean() - half, samples.mean() + half), abs=0.1 * half)


def test_mean_interval_covers_the_truth() -> None:
    """Over 600 runs of 100 skewed laps, 95 % of the intervals hold the mean, less what the bootstrap lacks."""
    generator = np.random.default_rng(5)
    found = coverage(1.0, lambda: mean(generator.exponential(size=100).tolist(), resamples=400), 600)
    assert 0.91 <= found <= 0.98


@pytest.mark.parametrize(
    ("samples", "estimate"),
    [
        ([], Estimate(None, n=0, reason="n=0; a mean needs 1")),
        ([3.0], Estimate(3.0, n=1, reason="n=1; an interval needs 2")),
        ([3.0] * 5, Estimate(3.0, 3.0, 3.0, 5)),
        ([1.0, math.nan], Estimate(None, n=2, reason="1 of 2 samples are not finite")),
    ],
)
def test_mean_of_little(samples: list[float], estimate: Estimate) -> None:
    """A mean of nothing, one, equal or broken samples is what it can be."""
    assert mean(samples) == estimate


def test_ratio_is_free_of_drift() -> None:
    """A machine that slows down fivefold over the rounds changes no ratio of blocks that ran side by side."""
    drift = np.linspace(1, 5, 9)
    ours = [[pace * lap for lap in (1.0, 2.0, 9.0)] for pace in drift]
    theirs = [[3 * lap for lap in block] for block in ours]
    found = ratio_of_medians(theirs, ours)
    assert (value(found), *interval(found)) == pytest.approx((3, 3, 3))
    assert (found.n, found.reason) == (9, None)


@pytest.mark.parametrize(("rounds", "share"), [(3, 0.75), (5, 0.9375), (6, 0.95), (7, 0.95), (15, 0.95)])
def test_ratio_interval_covers_the_truth(rounds: int, share: float) -> None:
    """Over 1,000 runs with noise and drift, the intervals hold the true ratio as often as they claim."""
    generator = np.random.default_rng(11)

    def draw() -> Estimate:
        pace = generator.uniform(1, 3, (rounds, 1))
        laps = pace * generator.lognormal(0, 0.2, (2, rounds, 5))
        return ratio_of_medians((1.7 * laps[0]).tolist(), laps[1].tolist())

    assert coverage(1.7, draw, 1000) >= share - 3 * math.sqrt(share * (1 - share) / 1000)


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)), min_size=3, max_size=9))
def test_ratio_lies_in_its_interval(pairs: list[tuple[float, float]]) -> None:
    """The ratio lies in its interval, and the interval within the range of the rounds."""
    found = ratio_of_medians([[top] for top, _ in pairs], [[bottom] for _, bottom in pairs])
    low, high = interval(found)
    ratios = [top / bottom for top, bottom in pairs]
    assert min(ratios) * (1 - 1e-9) <= low <= value(found) * (1 + 1e-9)
    assert value(found) * (1 - 1e-9) <= high <= max(ratios) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("tops", "bottoms", "estimate"),
    [
        ([], [], Estimate(None, reason="no rounds")),
        ([[4.0]], [[2.0]], Estimate(2.0, n=1, reason="n=1 round; an interval needs 2")),
        ([[4.0], []], [[2.0], [1.0]], Estimate(None, n=2, reason="a round without samples")),
        (
            [[4.0]] * 3,
            [[2.0]] * 3,
            Estimate(2.0, 2.0, 2.0, 3, "n=3 rounds; the interval covers 75%, not 95%"),
        ),
        *(
            (
                [[4.0], [4.0]],
                [[2.0], [bad]],
                Estimate(None, n=2, reason="a block's median is not finite, or not above 0 in the denominator"),
            )
            for bad in (0.0, -1.0, math.nan, math.inf)
        ),
    ],
)
def test_ratio_of_little(tops: list[list[float]], bottoms: list[list[float]], estimate: Estimate) -> None:
    """A ratio of nothing, one, few or broken rounds is what it can be, and says what its interval lacks."""
    assert ratio_of_medians(tops, bottoms) == estimate


def test_rounds_must_pair() -> None:
    """A round of the one without a round of the other is a mistake of the caller."""
    with pytest.raises(ValueError, match="2 numerators, 1 denominators"):
        ratio_of_medians([[1.0], [1.0]], [[1.0]])


@pytest.mark.parametrize(
    ("laps", "is_steady"),
    [
        ([10, 10, 11, 11, 10, 10], True),
        ([10, 10, 11.1, 11.1, 10, 10], False),
        ([90, 90, 90, 10, 10, 10, 10, 10, 10], True),
        ([10, 10, 10, 10, 90, 90], False),
        ([10, 10, 10, 10, 10], False),
        ([], False),
        ([10, 10, 10, 10, 10, math.nan], False),
    ],
)
def test_steady(laps: Sequence[float], is_steady: bool) -> None:
    """Warm means: the medians of the last three windows lie within 10 % of each other."""
    assert steady(laps, window=2) is is_steady


def test_one_slow_lap_does_not_unsettle() -> None:
    """A window is judged by its median: a single outlier in it changes nothing."""
    assert steady([10.0] * 14 + [500.0], window=5)


@pytest.mark.parametrize(("window", "windows"), [(0, 3), (5, 1)])
def test_windows_to_compare(window: int, windows: int) -> None:
    """Steadiness of no window, or of one, is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least 2 windows"):
        steady([1.0] * 9, window, windows=windows)


@pytest.mark.parametrize("ends", [{"value": None}, {"value": 1.0, "low": 0.5}, {"value": 1.0, "high": 2.0}])
def test_estimates_are_whole(ends: dict[str, float | None]) -> None:
    """No estimate lacks both value and reason, or one end of its interval."""
    with pytest.raises(ValueError, match=r"reason|two ends"):
        Estimate(**ends)  # type: ignore[arg-type]
