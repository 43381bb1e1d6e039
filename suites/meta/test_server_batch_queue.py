from __future__ import annotations

import math
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from targets.server.batching.queue import BatchQueue, Waiting, bucket

NOBODY: Any = None
"""In the place of a future: the queue never looks at it."""
LENGTHS = st.lists(st.integers(0, 3000), min_size=1, max_size=60)
LIMITS = st.integers(1, 20)


def waiting(length: int, group: int = 0) -> Waiting:
    return Waiting({}, NOBODY, length, group, since=0.0)


def queue_of(*lengths: int) -> BatchQueue:
    queue = BatchQueue()
    for length in lengths:
        queue.add(waiting(length))
    return queue


def lengths(batch: list[Waiting]) -> list[int]:
    return [item.length for item in batch]


def padding(batch: list[Waiting]) -> int:
    return len(batch) * max(lengths(batch)) - sum(lengths(batch))


@given(st.integers(1, 100_000))
def test_less_than_an_eighth_of_a_bucket_is_padding(length: int) -> None:
    """A bucket's top is above its members' lengths by less than an eighth of it, and buckets follow each other."""
    top = bucket(length)
    assert length <= top
    assert top - length < top / 8
    assert bucket(top) == top
    assert bucket(top + 1) > top


@given(LENGTHS, LIMITS)
def test_what_fits_goes_along(sizes: list[int], limit: int) -> None:
    """While padding costs nothing that is known, a batch is as large as it can be, whatever the lengths."""
    queue = queue_of(*sizes)
    assert len(queue.take(limit)) == min(limit, len(sizes))


@given(LENGTHS, LIMITS, st.floats(0, 5000))
def test_neighbours_add_no_more_padding_than_allowed(sizes: list[int], limit: int, allowance: float) -> None:
    """Beyond the padding within the oldest request's own bucket, a batch has at most what is allowed."""
    queue = queue_of(*sizes)
    batch = queue.take(limit, allowance)
    own = [item for item in batch if bucket(item.length) == bucket(sizes[0])]
    assert padding(batch) <= padding(own) + allowance
    assert len(own) == min(limit, sum(bucket(size) == bucket(sizes[0]) for size in sizes))


@given(LENGTHS, LIMITS, st.floats(0, 5000))
def test_a_queue_loses_nothing_and_gives_nothing_twice(sizes: list[int], limit: int, allowance: float) -> None:
    """Batch after batch, each request comes exactly once, those of a bucket in their order."""
    queue = queue_of(*sizes)
    order = [item.number for item in queue]
    taken: list[Waiting] = []
    while len(queue):
        batch = queue.take(limit, allowance)
        assert min(order) in [item.number for item in batch]
        taken += batch
        order = [item.number for item in queue]
    assert queue.take(limit) == []
    assert Counter(lengths(taken)) == Counter(sizes)
    for top in {bucket(size) for size in sizes}:
        numbers = [item.number for item in taken if bucket(item.length) == top]
        assert numbers == sorted(numbers)


@settings(max_examples=50)
@given(st.lists(st.tuples(LENGTHS, st.integers(0, 1)), min_size=1, max_size=12), LIMITS, st.floats(0, 5000))
def test_nobody_starves(arrivals: list[tuple[list[int], int]], limit: int, allowance: float) -> None:
    """However many come later: as many batches go first as the older ones fill, bucket by bucket, and no more."""
    queue = BatchQueue()
    bounds: dict[Waiting, int] = {}

    def take() -> None:
        batch = queue.take(limit, allowance)
        for item in batch:
            assert bounds.pop(item) > 0
        for item in bounds:
            bounds[item] -= 1

    for sizes, group in arrivals:
        for size in sizes:
            older = Counter((item.group, bucket(item.length)) for item in queue)
            item = waiting(size, group)
            older[group, bucket(size)] += 1
            bounds[item] = sum(math.ceil(count / limit) for count in older.values())
            queue.add(item)
        take()
    while len(queue):
        take()
    assert not bounds


@given(LENGTHS, st.data())
def test_those_who_leave_are_gone(sizes: list[int], data: st.DataObject) -> None:
    """A request that left is in no batch and counts no more; leaving twice is leaving once."""
    queue = queue_of(*sizes)
    gone = data.draw(st.lists(st.sampled_from(list(queue)), max_size=10), label="gone")
    for item in gone:
        queue.leave(item)
    left = len(sizes) - len(set(gone))
    assert len(queue) == len(list(queue)) == left
    assert not set(gone).intersection(queue.take(left + 1))
    assert len(queue) == 0


def test_the_cheapest_neighbours_come_first() -> None:
    """Shorter ones pad themselves only, a longer one pads the whole batch: what needs the least goes along."""
    assert sorted(lengths(queue_of(100, 40, 90, 160, 10).take(3))) == [40, 90, 100]
    assert sorted(lengths(queue_of(100, 10, 110).take(2))) == [100, 110]
    assert sorted(lengths(queue_of(100, 10, 3000, 101, 102).take(5, allowance=95))) == [10, 100, 101, 102]


def test_groups_do_not_mix() -> None:
    """Only requests of the oldest one's group are taken, however few."""
    queue = BatchQueue()
    for group in (1, 2, 2, 1, 2):
        queue.add(waiting(10, group))
    assert [item.group for item in queue.take(5)] == [1, 1]
    assert [item.group for item in queue.take(5)] == [2, 2, 2]
