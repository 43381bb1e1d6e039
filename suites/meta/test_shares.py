"""Shares and paired shares against scipy's own tests and enumeration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from fixtures.shares import McNemar, mcnemar, wilson
from fixtures.statistics import Estimate

COUNTS = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def interval(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


@given(counts=COUNTS, confidence=st.sampled_from([0.8, 0.95, 0.999]))
def test_wilson_is_scipys(counts: tuple[int, int], confidence: float) -> None:
    """Wilson's interval is that of scipy, which is too slow to import in a run."""
    hits, n = counts
    theirs = binomtest(hits, n).proportion_ci(confidence, method="wilson")
    assert interval(wilson(hits, n, confidence)) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@given(counts=COUNTS)
def test_a_share_lies_in_its_interval(counts: tuple[int, int]) -> None:
    """The share lies in its interval, the interval in [0, 1], and it has a width even for none and all."""
    hits, n = counts
    found = wilson(hits, n)
    low, high = interval(found)
    assert found.value == hits / n
    assert 0 <= low <= hits / n <= high <= 1
    assert high > low


@pytest.mark.parametrize("share", [0.5, 0.85, 0.98])
def test_wilson_covers_the_truth(share: float) -> None:
    """Over all outcomes of 200 examples, weighed by their probability, intervals hold the truth in about 95 %."""
    hits = np.arange(201)
    chance = np.array([math.comb(200, k) * share**k * (1 - share) ** (200 - k) for k in hits])
    held = [interval(wilson(int(k), 200))[0] <= share <= interval(wilson(int(k), 200))[1] for k in hits]
    assert 0.93 <= float(chance @ held) <= 0.97


def test_no_share_of_nothing() -> None:
    """Of no examples there is no share, and more hits than examples are a mistake of the caller."""
    assert wilson(0, 0) == Estimate(None, reason="n=0; a share needs 1")
    for hits, n in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no share"):
            wilson(hits, n)


@given(gained=st.integers(0, 60), lost=st.integers(0, 60))
def test_mcnemar_is_the_binomial_test(gained: int, lost: int) -> None:
    """McNemar's exact p-value is the binomial test of the discordant examples at 1/2, whichever way they lean."""
    found = McNemar(gained, lost, 200)
    exact = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert found.p == pytest.approx(exact)
    assert found.p == McNemar(lost, gained, 200).p


def test_mcnemar_counts_pairs() -> None:
    """Only examples that exactly one of the two gets right count, and the sentence says how many."""
    found = mcnemar([True, True, False, False, True], [True, False, True, True, False])
    assert (found.gained, found.lost, found.discordant, found.n) == (2, 2, 4, 5)
    assert str(found) == "4 discordant of 5 examples: 2 right in the reference only, 2 in this case only"
    with pytest.raises(ValueError, match="argument"):
        mcnemar([True], [True, False])


def test_mcnemar_seldom_cries_wolf() -> None:
    """Of two models that are equally right, at most 5 % are told apart at 0.05: counted exactly, not drawn."""
    for discordant in range(1, 80):
        splits = range(discordant + 1)
        chance = sum(math.comb(discordant, k) for k in splits if McNemar(k, discordant - k, 100).p <= 0.05)
        assert chance / 2**discordant <= 0.05
