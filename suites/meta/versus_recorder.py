"""A module for `--targets` that has a comparison take VERSUS_ROUNDS rounds, come what may, and keeps their laps.

Each round goes to the file VERSUS_LAPS as a line of JSON: case, metric, seconds measured (the slower side), laps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fixtures.versus.case import Comparison


def record(comparison: Comparison, wanted: Sequence[str]) -> dict[str, list[float]]:
    """All rounds, written down; nothing of it is judged."""
    for _ in range(int(os.environ["VERSUS_ROUNDS"])):
        before = comparison.duel.seconds
        found = comparison.duel.round()
        spent = comparison.duel.seconds - before
        with Path(os.environ["VERSUS_LAPS"]).open("a") as file:
            for metric, laps in found.items():
                line = {"case": comparison.ours.case.id, "metric": metric, "seconds": spent, **asdict(laps)}
                file.write(json.dumps(line) + "\n")
    return {}


Comparison.series = record  # type: ignore[method-assign, assignment]
