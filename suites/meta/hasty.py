"""For `--targets=suites.meta.hasty`: visits to a case follow one another without a pause."""

from __future__ import annotations

from fixtures.baseline import series

setattr(series, "PAUSE_S", 0.0)  # noqa: B010 - no name that others may import
