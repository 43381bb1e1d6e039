"""For `--targets=suites.meta.gate_kit`: made-up launches, so that a run of the gate is quick and the same again.

GATE_SEED is the session's, GATE_SLOW how many times longer the technique `twin` takes than it did, GATE_WAITED the
share of its time that the yardstick had no core. Without GATE_SEED launches are real, and short.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from fixtures.baseline import launches as real
from fixtures.baseline import series as taken
from fixtures.baseline.launch import Launch
from fixtures.provision import Target
from suites.meta import fake, hasty  # noqa: F401 - registers the fake engine; nothing waits
from suites.meta.sample_launches import series

VISITS: Counter[str] = Counter()


def launches(target: Target, _size: int | None = None, _beside: Sequence[Launch] = ()) -> list[Launch]:
    """Eight launches, seeded by session and case; at another visit, which is a while later, others."""
    target.start()
    visit = VISITS[target.case.id]
    VISITS[target.case.id] += 1
    slow = float(os.environ.get("GATE_SLOW", "1")) if target.case.optimization == "twin" else 1.0
    seed = int(os.environ["GATE_SEED"]) * 1000 + len(target.case.id)
    found = series(seed + visit * 100, speed=1.2, case=slow, waited=float(os.environ.get("GATE_WAITED", "0")))
    return [replace(each, at=1000.0 * visit + second) for second, each in enumerate(found)]


if "GATE_SEED" in os.environ:
    setattr(taken, "launches", launches)  # noqa: B010 - no name that others may import
real.BUDGET_S = 0.02
