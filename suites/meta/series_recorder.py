"""A module for `--targets` that keeps every series of launches which a run takes, whatever is decided on them.

Each goes to the file SERIES_FILE as a line of JSON: case, launches; suites/meta/power_study.py reads them.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def kept(take: Callable[..., Any]) -> Callable[..., Any]:
    """What takes a series of a target, and writes it down."""

    def both(target: Any, *arguments: Any) -> Any:
        found = take(target, *arguments)
        line = {"case": target.case.id, "launches": [each.as_json() for each in found]}
        with Path(os.environ["SERIES_FILE"]).open("a") as file:
            file.write(json.dumps(line) + "\n")
        return found

    return both


# Hosts import it too; what takes the series is pytest's alone, and a host should not become larger by it.
if "fixtures.baseline.run" in sys.modules:
    series: Any = importlib.import_module("fixtures.baseline.series")
    series.launches = kept(series.launches)
