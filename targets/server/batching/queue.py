"""The requests that wait for an engine, sorted into buckets by length, and which of them make the next batch.

A batch is padded to its longest request, so a short one beside a long one costs as much as the long one. Within a
bucket less than an eighth of a batch is padding: engines without a gain from batches lose no more by them, and
neighbours join where calls are dear (cost.py). Each bucket is a queue of its own, first in first out, and the oldest
request of all is always in the next batch, so that an unusual length is never starved.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from targets.api import Answer, Request


@dataclass(slots=True, eq=False)
class Waiting:
    """A request, and the future that its caller awaits. Times are those of the event loop, in seconds."""

    request: Request
    future: asyncio.Future[Answer]
    length: int
    group: Hashable
    since: float
    deadline: float | None = None
    number: int = 0
    """Its place in the order of arrival."""
    deaths: int = 0
    """How many engines have died while they ran it."""

    @property
    def gone(self) -> bool:
        """Whether nobody waits for its answer any more: it has one, or its caller has left."""
        return self.future.done()

    def answer(self, answer: Answer) -> None:
        """Give it its answer."""
        if not self.future.done():
            self.future.set_result(answer)

    def refuse(self, error: Exception) -> None:
        """Give it its failure."""
        if not self.future.done():
            self.future.set_exception(error)

    def abandon(self) -> None:
        """Its caller leaves; a failure that came at the same moment has nobody to be told to."""
        if not self.future.cancel() and not self.future.cancelled():
            self.future.exception()


def bucket(length: int) -> int:
    """The greatest length of the bucket that a length belongs to: eight of them from each power of 2 to the next."""
    step = max(1, (1 << max(length - 1, 0).bit_length()) >> 4)
    return max(1, -(-length // step) * step)


class BatchQueue:
    """Waiting requests. Only those of one group can be in one batch."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[Hashable, int], deque[Waiting]] = {}
        self._count = 0
        self._arrivals = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Waiting]:
        for waiting in self._buckets.values():
            yield from waiting

    def add(self, item: Waiting) -> None:
        """Put a request behind those of its bucket."""
        self._arrivals += 1
        item.number = self._arrivals
        self._count += 1
        key = (item.group, bucket(item.length))
        waiting = self._buckets.get(key)
        if waiting is None:
            waiting = self._buckets[key] = deque()
        waiting.append(item)

    def leave(self, item: Waiting) -> None:
        """Take a request out; one that is not here (any more) is none."""
        key = (item.group, bucket(item.length))
        waiting = self._buckets.get(key)
        if waiting is None or item not in waiting:
            return
        waiting.remove(item)
        self._count -= 1
        if not waiting:
            del self._buckets[key]

    def take(self, limit: int, allowance: float = math.inf) -> list[Waiting]:
        """The next batch: the oldest request, what waits in its bucket, and neighbours by length while that pays.

        Args:
            limit: requests in a batch at most.
            allowance: how much padding (in units of length, summed over the requests) may be added for the sake of
                neighbours: what one more call of the engine would cost. Infinite: whatever fits goes along.
        """
        if not self._count:
            return []
        group, size = min(self._buckets, key=self._age)
        batch: list[Waiting] = []
        while len(batch) < limit and (group, size) in self._buckets:
            batch.append(self._pop((group, size)))
        if len(batch) < limit and self._buckets:
            self._fill(batch, size, limit, allowance)
        return batch

    def _fill(self, batch: list[Waiting], size: int, limit: int, allowance: float) -> None:
        """Add requests of the neighbouring buckets, those that need the least padding first."""
        group = batch[0].group
        sizes = sorted(other for key, other in self._buckets if key == group)
        shorter, longer = [one for one in reversed(sizes) if one < size], [one for one in sizes if one > size]
        top = max(item.length for item in batch)
        while len(batch) < limit and (shorter or longer):
            down = self._padding(group, shorter, top, len(batch))
            up = self._padding(group, longer, top, len(batch))
            side, cost = (shorter, down) if down <= up else (longer, up)
            if cost > allowance:
                side.clear()  # further ones on this side need more
                continue
            allowance -= cost
            batch.append(self._pop((group, side[0])))
            top = max(top, batch[-1].length)
            if (group, side[0]) not in self._buckets:
                del side[0]

    def _age(self, key: tuple[Hashable, int]) -> int:
        return self._buckets[key][0].number

    def _padding(self, group: Hashable, sizes: list[int], top: int, count: int) -> float:
        """What the next request of the first of these buckets adds: its own padding; a longer one, all others'."""
        if not sizes:
            return math.inf
        length = self._buckets[group, sizes[0]][0].length
        return top - length if length <= top else (length - top) * count

    def _pop(self, key: tuple[Hashable, int]) -> Waiting:
        waiting = self._buckets[key]
        item = waiting.popleft()
        self._count -= 1
        if not waiting:
            del self._buckets[key]
        return item
