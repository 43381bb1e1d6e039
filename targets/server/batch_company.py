"""Whether an idle engine waits for company before it starts.

Starting at once is best nearly always: while the engine runs, the next requests gather by themselves. The exception
are a few clients that each wait for an answer before they ask again, on an engine whose calls are dear: they fall into
two halves that take turns, each paying a call. A wait brings them together. Holding n requests for w seconds pays if
the k that join spare more than that: k * call_s > n * w.
"""

from __future__ import annotations

LATEST = 0.2
"""The weight of the latest observation in the running mean."""


class Company:
    """How many requests come within `wait_s` of a moment at which the engine could start, observed all the time."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        self.expected = 0.0
        """The running mean of the newcomers."""
        self._since: float | None = None
        self._newcomers = 0

    def arrived(self, now: float) -> None:
        """A request has come."""
        if self._since is not None:
            self._settle(now)
            self._newcomers += 1

    def wait_for(self, waiting: int, call_s: float, now: float) -> int:
        """How many newcomers the requests now waiting should wait for, `wait_s` at most; 0: start at once."""
        self._settle(now)
        if self._since is None:
            self._since, self._newcomers = now, 0
        pays = self.expected * call_s > waiting * self.wait_s
        return max(1, round(self.expected)) if pays else 0

    def _settle(self, now: float) -> None:
        """Once the time is over, what was seen goes into the mean."""
        if self._since is not None and now - self._since >= self.wait_s:
            self.expected += LATEST * (self._newcomers - self.expected)
            self._since = None
