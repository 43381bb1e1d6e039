"""Whether a case answers worse than when its baseline was recorded."""

from __future__ import annotations

import math

import pytest

from fixtures.baseline.findings import explain
from fixtures.baseline.keeper import Keeper
from fixtures.baseline.numbers import worse
from fixtures.provision import Target
from fixtures.quality import evaluate

pytestmark = pytest.mark.usefixtures("meaningful")


def test_not_worse(keeper: Keeper, target: Target, request: pytest.FixtureRequest) -> None:
    """Every score is that of the baseline, but for one example that stood at a tie."""
    found = evaluate(target)
    if found.missing:
        pytest.skip(found.missing)
    now = {name: estimate.value for name, estimate in found.scores.items() if estimate.value is not None}
    if keeper.gate.record:
        keeper.new(target.case).numbers |= {name: value for name, value in now.items() if math.isfinite(value)}
        return
    entry = keeper.entry(target.case)
    keeper.measured.add(target.case.id)
    if red := worse(target.case, entry, now):
        pytest.fail(explain(keeper, target.case, entry, red, request.config, "accuracy"), pytrace=False)
