"""How often something may happen: a bucket of tokens that fills again with time."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """Lets `burst` pass at once, and `per_s` a second in the long run. `clock`: seconds."""

    def __init__(self, burst: int, per_s: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._per_s = per_s
        self._clock = clock
        self._left = float(burst)
        self._then = clock()

    def take(self) -> bool:
        """Whether one more may pass now."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._then) * self._per_s)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
