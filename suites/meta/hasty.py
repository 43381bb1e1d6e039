"""For `--targets=suites.meta.hasty`: visits to a case follow one another without a pause."""

from __future__ import annotations

from fixtures.baseline import series

for name in ("PAUSE_S", "LATE_S"):
    setattr(series, name, 0.0)  # no name that others may import
