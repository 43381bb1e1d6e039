"""What a call of an engine costs, learnt from the calls that are made anyway.

The time of a batch is close to a fixed part (the call: a pipe, a framework, kernel launches) and a part that grows
with its padded size. From the two follow the batcher's two choices: how much padding is cheaper than one more call,
and whether an idle engine should wait for company.
"""

from __future__ import annotations

import math

MEMORY = 0.98
"""The weight that each older batch keeps: some 50 batches are remembered."""
ENOUGH = 8.0
"""Batches before the first estimate."""
SPREAD = 0.02
"""The least variance of the sizes, relative to their squared mean, from which a slope can be told."""


class BatchCost:
    """Weighted least squares of seconds over padded size, newer batches weighing more."""

    def __init__(self) -> None:
        self._weight = self._size = self._seconds = self._squares = self._products = 0.0
        self.call_s: float | None = None
        """Seconds of a call without its contents; None while unknown."""
        self.allowance = math.inf
        """Padding that costs as much as a call, in units of size; infinite while unknown."""

    @property
    def mean_s(self) -> float:
        """The weighted mean time of a batch; 0 before the first."""
        return self._seconds / self._weight if self._weight else 0.0

    def add(self, size: int, seconds: float) -> None:
        """A batch of so many requests times the longest one's length took so long."""
        self._weight = self._weight * MEMORY + 1
        self._size = self._size * MEMORY + size
        self._seconds = self._seconds * MEMORY + seconds
        self._squares = self._squares * MEMORY + size * size
        self._products = self._products * MEMORY + size * seconds
        variance = self._weight * self._squares - self._size * self._size
        if self._weight < ENOUGH or variance <= SPREAD * self._size * self._size:  # equal: all sizes are 0
            return  # what was learnt from sizes that differed still holds
        slope = max(0.0, (self._weight * self._products - self._size * self._seconds) / variance)
        self.call_s = max(0.0, (self._seconds - slope * self._size) / self._weight)
        self.allowance = self.call_s / slope if slope else math.inf
