"""For `--targets=suites.meta.near`: a fake technique whose median is nowhere, since every second call takes longer."""

from __future__ import annotations

import time

from suites.meta.fake import register

FAST_MS, SLOW_MS = 2.0, 12.0


def waver(number: int) -> None:
    """Take FAST_MS and SLOW_MS in turn."""
    time.sleep((SLOW_MS if number % 2 else FAST_MS) / 1e3)


register("near", at_call=waver)
