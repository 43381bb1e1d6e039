"""What queueing theory says of one server with a fixed service time, to hold the load generator against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def lindley(due: NDArray[np.float64], service: float) -> NDArray[np.float64]:
    """Time in the system of each arrival, in order (D. V. Lindley, The theory of queues with a single server, 1952)."""
    found = np.empty_like(due)
    wait = 0.0
    for place, gap in enumerate(np.diff(due, prepend=due[:1])):
        wait = max(wait + service - gap, 0.0) if place else 0.0
        found[place] = wait + service
    return found


def mean_md1(load: float, service: float) -> float:
    """Mean time in the system of M/D/1 at a load below 1 (Pollaczek and Khinchine's formula)."""
    return service + load * service / (2 * (1 - load))
