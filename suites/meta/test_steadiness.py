"""Drifts and modes of laps: how often they are seen where there are none, and where there are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from fixtures.statistics import steady
from fixtures.steadiness import BEND, bend, examine
from targets.api import Floats

TEXTS = np.exp(np.random.default_rng(0).normal(0, 0.7, 32))
"""How long each text of a mix takes: a mix alone makes laps of many levels."""
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]
ONE_MODE: dict[str, Draw] = {
    "normal": lambda g, shape: g.normal(10, 0.5, shape),
    "log-normal": lambda g, shape: g.lognormal(0, 0.1, shape),
    "long log-normal": lambda g, shape: g.lognormal(0, 1, shape),
    "exponential": lambda g, shape: 1 + 0.3 * g.exponential(size=shape),
    "gamma": lambda g, shape: g.gamma(2, size=shape),
    "Pareto": lambda g, shape: 1 + 0.1 * g.pareto(2, shape),
    "uniform": lambda g, shape: g.uniform(1, 2, shape),
}


def laps(noise: Floats, pace: Floats | float = 1.0) -> list[float]:
    """Laps over the mix with this noise, shape (passes, texts)."""
    found: list[float] = (noise * TEXTS * pace).ravel().tolist()
    return found


@pytest.mark.parametrize("passes", [8, 9, 24])
@pytest.mark.parametrize("kind", ONE_MODE)
def test_one_mode_is_seldom_taken_for_two(kind: str, passes: int) -> None:
    """Of runs with one mode and no drift, skewed or not, at most 2 % are said to have either, less sampling error."""
    generator = np.random.default_rng(passes)
    runs = 150
    found = [examine(laps(ONE_MODE[kind](generator, (passes, 32))), 32) for _ in range(runs)]
    for seen in ("modes", "drift"):
        false = sum(any(seen[:5] in note for note in each.notes("latency_ms", "ms")) for each in found)
        assert false / runs <= 0.02 + 2 * math.sqrt(0.02 * 0.98 / runs)


def test_the_level_of_the_distance() -> None:
    """The uniform distribution, the worst with one mode, exceeds the bound in 1 % of samples of any size."""
    generator = np.random.default_rng(4)
    for n, runs in ((32, 2500), (256, 700)):
        over = sum(bend(np.sort(generator.uniform(size=n))) * math.sqrt(n) > BEND for _ in range(runs)) / runs
        assert over <= 0.01 + 3 * math.sqrt(0.01 / runs)


def test_the_distance_is_that_from_the_majorant() -> None:
    """By hand: three values at 1, 2, 3 bend by a step; two clusters bend by what lies between them."""
    assert bend(np.array([1.0, 2.0, 3.0])) == pytest.approx(1 / 3)
    assert bend(np.array([0.1, 0.2, 9.9, 10.0])) == pytest.approx(0.5 + 0.5 * (9.9 - 0.2) / (10 - 0.2) - 0.5)


@pytest.mark.parametrize("share", [0.25, 0.3, 0.5, 0.7])
def test_two_modes_are_seen(share: float) -> None:
    """A share of laps that takes 2.5 times as long, in a mix of lengths, is seen with its place and share."""
    generator = np.random.default_rng(9)
    seen, runs = [], 40
    for _ in range(runs):
        slow = np.where(generator.random((16, 32)) < share, 2.5, 1.0)
        found = examine(laps(slow * generator.lognormal(0, 0.08, (16, 32))), 32).modes
        if found and found.matters:
            seen.append(found)
    assert len(seen) >= 0.95 * runs
    assert np.median([each.upper / each.lower for each in seen]) == pytest.approx(2.5, rel=0.05)
    assert np.median([each.upper_share for each in seen]) == pytest.approx(share, abs=0.05)
    assert np.median([each.lower for each in seen]) == pytest.approx(float(np.median(TEXTS)), rel=0.1)


@pytest.mark.parametrize(("change", "least"), [(0.0, 0.0), (0.02, 0.0), (0.10, 0.95), (-0.15, 0.95)])
def test_a_drift_is_seen(change: float, least: float) -> None:
    """A run that changes pace by a tenth says so, with an interval that holds the truth; a small change does not."""
    generator = np.random.default_rng(6)
    pace = np.linspace(1, 1 + change, 24 * 32).reshape(24, 32)
    found = [examine(laps(generator.lognormal(0, 0.05, (24, 32)), pace), 32).drift for _ in range(100)]
    told = sum(each is not None and each.matters for each in found)
    held = sum(each is not None and each.low <= change * 23 / 24 <= each.high for each in found)
    assert told >= 100 * least
    assert told <= 4 or least
    assert held >= 93


def test_busy_spells_are_no_drift() -> None:
    """Noise that lasts for several laps (correlation 0.9 from one to the next) is seldom taken for a drift."""
    generator = np.random.default_rng(11)
    told = 0
    for _ in range(150):
        noise = np.zeros(40 * 32)
        for at, step in enumerate(generator.normal(0, 0.1, 40 * 32)):
            noise[at] = 0.9 * noise[at - 1] + step
        drift = examine(laps(np.exp(noise).reshape(40, 32)), 32).drift
        told += drift is not None and drift.matters
    assert told <= 6


def test_findings_are_told_with_figures() -> None:
    """A note says metric, change and interval, or both modes with their shares; the evidence has the numbers."""
    generator = np.random.default_rng(3)
    noise = generator.lognormal(0, 0.02, (16, 32)) * np.where(generator.random((16, 32)) < 0.3, 2.5, 1.0)
    found = examine(laps(noise, np.linspace(1, 1.3, 16)[:, None]), 32)
    drift, modes = found.notes("latency_ms", "ms")
    assert drift.startswith("latency_ms drifted by +")
    assert "over the run [+" in drift
    assert modes.startswith("latency_ms has two modes: ")
    assert modes.count(" ms (") == 2
    assert set(found.as_json()) == {"drift", "modes"}
    assert set(found.as_json()["modes"]) == {"lower", "upper", "upper_share"}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1.0] * 200, "6 passes over 32 texts; it takes 8, and 64 laps"),
        ([], "0 passes over 32 texts; it takes 8, and 64 laps"),
        ([1.0] * 255 + [0.0], "a lap is not finite, or not above 0"),
        ([1.0] * 255 + [math.nan], "a lap is not finite, or not above 0"),
    ],
)
def test_too_little_says_so(values: list[float], reason: str) -> None:
    """Where nothing can be seen there is a reason, and no finding."""
    found = examine(values, 32)
    assert found.as_json() == {"drift": None, "modes": None, "reason": reason}
    assert found.notes("latency_ms", "ms") == []


def test_equal_laps_are_steady() -> None:
    """Laps without any spread neither drift nor have modes."""
    found = examine([2.0] * 512, 32)
    assert found.notes("latency_ms", "ms") == []
    assert steady([2.0] * 30, 10)
