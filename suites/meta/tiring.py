"""For `--targets=suites.meta.fake,suites.meta.tiring`: techniques whose speed or memory changes under load."""

from __future__ import annotations

import time

from suites.meta.fake import register

FRESH = 700
"""Requests until it tires."""
QUICK_S, TIRED_S = 0.002, 0.004
LEAKED: list[bytearray] = []


def tire(number: int) -> None:
    """Take twice as long from some request on."""
    time.sleep(QUICK_S if number < FRESH else TIRED_S)


def leak(_: int) -> None:
    """Keep 16 KiB of each request."""
    time.sleep(QUICK_S)
    LEAKED.append(bytearray(b"x" * 2**14))


register("tires", at_call=tire)
register("leaks", at_call=leak)
register("lasts", at_call=lambda _: time.sleep(QUICK_S))
