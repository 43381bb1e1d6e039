"""A module for `--targets`: a fake engine that is slower, or not installed at all, where OTHER_SIDE is set.

LAG is how many times as long as on this side an answer takes there. Comparisons are short, so that tests are.
"""

from __future__ import annotations

import os
import time

from fixtures.versus import duel
from suites.meta import fake
from targets.api import Requirement
from targets.registry import backends, optimizations

BASE_S = 0.002
duel.TURN_MS, duel.TURNS = 12.0, 3


def lag(_: object) -> None:
    """Take as long as this side takes."""
    time.sleep(BASE_S * (float(os.environ.get("LAG", "1")) if os.environ.get("OTHER_SIDE") else 1.0))


def find() -> str | None:
    """An engine that the other side does not have."""
    return None if os.environ.get("OTHER_SIDE") else "here"


backends.register("partial")(
    fake.Fake("partial", (Requirement("partial_engine", "pip install partial-engine", find),)),
)
optimizations.register("lag")(
    fake.Behaviour(
        name="lag",
        group="fake",
        summary="as slow as its side",
        backends=frozenset({"fake", "partial"}),
        max_drop=0.0,
        min_agreement=1.0,
        logit_tolerance=0.0,
        at_call=lag,
    )
)
