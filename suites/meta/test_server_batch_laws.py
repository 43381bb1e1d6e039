from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from suites.meta.held_engine import Died, Poisoned, Policy, TimedEngine, answer, ask, length
from suites.meta.virtual_time import run, settle
from targets.api import Answer
from targets.server.batching.batcher import Batcher, DeadlinePassed, QueueFull
from targets.server.batching.queue import bucket

SOON = 1e-4
"""Seconds; the clock is virtual, so this is only for the rounding of sums."""


@dataclass(frozen=True)
class Visit:
    """A request to come: when (ms after the one before), how long its text is, and what befalls it."""

    gap_ms: float
    length: int
    fate: str
    patience_ms: float
    group: int


@dataclass
class Story:
    """What became of a visit."""

    text: str
    visit: Visit
    came: float
    depth: int = 0
    ended: float = 0.0
    outcome: Answer | BaseException | None = None


VISITS = st.lists(
    st.builds(
        Visit,
        gap_ms=st.sampled_from((0.0, 0.0, 0.1, 1.0, 5.0, 30.0)),
        length=st.integers(4, 80),
        fate=st.sampled_from(("answered",) * 12 + ("poison", "deadly", "cancel", "cancel", "deadline")),
        patience_ms=st.floats(0.01, 40),
        group=st.integers(0, 1),
    ),
    min_size=1,
    max_size=40,
)
POLICIES = st.builds(
    Policy,
    max_batch_size=st.integers(1, 6),
    max_wait_ms=st.sampled_from((0.0, 2.0, 5.0)),
    max_queue=st.integers(1, 12),
)
ENGINES = st.builds(
    TimedEngine, call_s=st.sampled_from((0.0001, 0.002, 0.01)), unit_s=st.sampled_from((0.0, 1e-6, 2e-5, 1e-4))
)


async def tell(engine: TimedEngine, policy: Policy, visits: list[Visit]) -> list[Story]:
    """Let all the visits happen."""
    loop = asyncio.get_running_loop()
    batcher = Batcher(
        engine.run,
        policy,
        length=length,
        compatible=lambda request: request["group"],
        died=(Died,),
        recovered=settle,
    )

    async def live(story: Story) -> None:
        visit, patience = story.visit, story.visit.patience_ms / 1000
        fates = {visit.fate: True} if visit.fate in ("poison", "deadly") else {}
        deadline = story.came + patience if visit.fate == "deadline" else None

        async def submitted() -> Answer:
            story.depth = batcher.depth  # when it comes, not when its task was made: a batch may start in between
            return await batcher.submit(ask(story.text, group=visit.group, **fates), deadline)

        asking = asyncio.ensure_future(submitted())
        if visit.fate == "cancel":
            loop.call_later(patience, asking.cancel)
        story.outcome = (await asyncio.gather(asking, return_exceptions=True))[0]
        story.ended = loop.time()

    stories, lives = [], []
    for number, visit in enumerate(visits):
        await asyncio.sleep(visit.gap_ms / 1000)
        stories.append(Story(f"{number:03}".ljust(visit.length, "."), visit, loop.time()))
        lives.append(asyncio.create_task(live(stories[-1])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(*lives)
    await batcher.drain()
    assert batcher.depth == 0
    return stories


def starts(engine: TimedEngine) -> dict[str, float]:
    """When each text was first run."""
    found: dict[str, float] = {}
    for began, _, batch in engine.calls:
        for request in batch:
            found.setdefault(request["text"], began)
    return found


def accepted(stories: list[Story]) -> Iterator[Story]:
    return (story for story in stories if not isinstance(story.outcome, QueueFull))


@settings(deadline=None, max_examples=60)
@given(ENGINES, POLICIES, VISITS)
def test_each_request_gets_its_own_answer_or_its_own_failure(
    engine: TimedEngine, policy: Policy, visits: list[Visit]
) -> None:
    """Whatever befalls the others: an answer that is its own, its own poison, its own death, its own deadline."""
    for story in accepted(run(tell(engine, policy, visits))):
        outcome, fate = story.outcome, story.visit.fate
        if isinstance(outcome, dict):
            assert outcome == answer(ask(story.text))
            assert fate in ("answered", "cancel", "deadline")
        else:
            kinds = {"poison": Poisoned, "deadly": Died, "cancel": asyncio.CancelledError, "deadline": DeadlinePassed}
            assert isinstance(outcome, kinds[fate]), (fate, outcome)
            if fate == "poison":
                assert str(outcome) == story.text
            if fate == "deadline":
                assert story.ended - story.came <= story.visit.patience_ms / 1000 + SOON


@settings(deadline=None, max_examples=60)
@given(ENGINES, POLICIES, VISITS)
def test_batches_keep_their_bounds_and_the_queue_its_own(
    engine: TimedEngine, policy: Policy, visits: list[Visit]
) -> None:
    """No batch is larger than allowed or mixes groups; a request is refused if and only if the queue was full."""
    stories = run(tell(engine, policy, visits))
    for _, _, batch in engine.calls:
        assert len(batch) <= policy.max_batch_size
        assert len({request["group"] for request in batch}) == 1
    for story in stories:
        assert story.depth <= policy.max_queue
        assert isinstance(story.outcome, QueueFull) == (story.depth == policy.max_queue)


@settings(deadline=None, max_examples=60)
@given(ENGINES, POLICIES, VISITS)
def test_nobody_waits_long_for_an_idle_engine(engine: TimedEngine, policy: Policy, visits: list[Visit]) -> None:
    """While the engine is idle a request waits `max_wait_ms` at most, and not at all when a batch is full."""
    stories = {story.text: story for story in accepted(run(tell(engine, policy, visits)))}
    began = starts(engine)
    for text, start in began.items():
        story = stories[text]
        free = max([end for _, end, _ in engine.calls if end <= start], default=0.0)
        assert start - max(story.came, free) <= policy.max_wait_ms / 1000 + SOON
    for start, _, batch in engine.calls:
        free = max([end for _, end, _ in engine.calls if end <= start], default=0.0)
        if len(batch) == policy.max_batch_size:
            assert start - max(free, *(stories[request["text"]].came for request in batch)) <= SOON


@settings(deadline=None, max_examples=60)
@given(ENGINES, POLICIES, VISITS)
def test_the_oldest_goes_first_and_buckets_are_queues(engine: TimedEngine, policy: Policy, visits: list[Visit]) -> None:
    """Of two requests of one group and bucket the older starts no later; the oldest of all is in every new batch."""
    stories = list(accepted(run(tell(engine, policy, visits))))
    began = starts(engine)
    never = float("inf")
    queues: dict[tuple[int, int], float] = {}
    for story in (story for story in stories if story.text in began):
        key = (story.visit.group, bucket(story.visit.length))
        assert began[story.text] >= queues.get(key, 0.0)
        queues[key] = began[story.text]
    tried: set[str] = set()
    for start, _, batch in engine.calls:
        if not tried.intersection(request["text"] for request in batch):
            waiting = [
                story.text
                for story in stories
                if story.came < start and story.ended > start and began.get(story.text, never) >= start
            ]
            assert not waiting or waiting[0] in {request["text"] for request in batch}
        tried.update(request["text"] for request in batch)


@settings(deadline=None, max_examples=60)
@given(ENGINES, POLICIES, VISITS)
def test_those_who_have_left_are_not_run(engine: TimedEngine, policy: Policy, visits: list[Visit]) -> None:
    """No batch holds a request that was cancelled or whose deadline had passed before the batch began."""
    stories = {story.text: story for story in run(tell(engine, policy, visits))}
    for start, _, batch in engine.calls:
        for request in batch:
            assert stories[request["text"]].ended >= start - SOON
