"""What tests read from estimates: value and interval, and how often intervals hold the truth."""

from __future__ import annotations

from collections.abc import Callable

from fixtures.statistics import Estimate


def interval(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


def value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value


def coverage(truth: float, draw: Callable[[], Estimate], repeats: int) -> float:
    ends = [interval(draw()) for _ in range(repeats)]
    return sum(low <= truth <= high for low, high in ends) / repeats
