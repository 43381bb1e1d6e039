"""What a call of an engine costs, learnt from the calls that are made anyway.

The time of a batch is close to a fixed part (the call: a pipe, a framework, kernel launches) and a part that grows
with its padded size. From the two follow the batcher's two choices: how much padding is cheaper than one more call,
and whether an idle engine should wait for company. Padding is weighed by the estimate itself: too much of it wastes as
much as one call too many. To wait is chosen only as far as the times prove it: by the lower end of the interval in
which the fixed part lies.
"""

from __future__ import annotations

import math

MEMORY = 0.98
"""The weight that each older batch keeps: some 50 batches are remembered."""
ENOUGH = 8.0
"""Weight of the batches before the first estimate."""
ERRORS = 2.0
"""Standard errors on either side of an estimate: an interval of about 95 %."""
ALIKE = 1e-6
"""A variance of the sizes, relative to their squared mean, that is no more than rounding."""


class BatchCost:
    """Weighted least squares of seconds over padded size, newer batches weighing more."""

    def __init__(self) -> None:
        self._weight = self._size = self._seconds = 0.0
        self._sizes = self._products = self._squares = 0.0
        self.call_s = 0.0
        """Seconds that a call takes at least, without its contents; 0 while unknown."""
        self.allowance = math.inf
        """Padding that costs as much as a call, in units of size; infinite while unknown."""
        self._call_s = self._slope = 0.0

    @property
    def mean_s(self) -> float:
        """The weighted mean time of a batch; 0 before the first."""
        return self._seconds / self._weight if self._weight else 0.0

    def expected_s(self, size: int) -> float | None:
        """About how long a batch of this padded size will take; None before the first."""
        if not self._weight:
            return None
        return self._call_s + self._slope * size if self._slope else self.mean_s

    def add(self, size: int, seconds: float) -> None:
        """A batch of so many requests times the longest one's length took so long."""
        self._weight = self._weight * MEMORY + 1
        self._size = self._size * MEMORY + size
        self._seconds = self._seconds * MEMORY + seconds
        self._sizes = self._sizes * MEMORY + size * size
        self._products = self._products * MEMORY + size * seconds
        self._squares = self._squares * MEMORY + seconds * seconds
        if self._weight >= ENOUGH:
            self._estimate()

    def _estimate(self) -> None:
        weight = self._weight
        size, seconds = self._size / weight, self._seconds / weight
        spread = self._sizes / weight - size * size
        if spread <= ALIKE * size * size:
            return  # what was learnt from sizes that differed still holds
        covariance = self._products / weight - size * seconds
        slope = max(0.0, covariance / spread)
        call_s = seconds - slope * size
        unexplained = max(0.0, self._squares / weight - seconds * seconds - slope * covariance)
        error = ERRORS * math.sqrt(unexplained / weight * (1 + size * size / spread))
        self._call_s, self._slope = max(0.0, call_s), slope
        self.call_s = max(0.0, call_s - error)
        self.allowance = max(0.0, call_s) / slope if slope else math.inf
