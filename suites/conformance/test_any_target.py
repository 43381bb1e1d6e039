"""Laws that every target keeps, whatever its task, engine and optimization."""

from __future__ import annotations

import pytest

from fixtures.provision import Target
from fixtures.quality import well_formed
from fixtures.results import CaseRecord
from targets.api import Answer


def test_engaged(target: Target, record: CaseRecord) -> None:
    """What was asked for is what runs: device, provider, number format, technique."""
    evidence = target.evidence()
    record.evidence |= {"requested": dict(evidence.requested), "actual": dict(evidence.actual), **evidence.details}
    record.notes += [note for note in evidence.details.get("notes", ()) if note not in record.notes]
    assert not evidence.mismatches, "; ".join(evidence.mismatches)


def test_answers_are_well_formed(target: Target) -> None:
    """Probabilities sum to one, spans lie inside the text and equal what they quote."""
    batch = [example.request for example in target.subject.examples[: 8 if target.subject.is_generator else 100]]
    parts = target.run_each([batch[start : start + 10] for start in range(0, len(batch), 10)])
    well_formed(target, batch, [answer for part in parts for answer in part])


def test_empty_batch(target: Target) -> None:
    """No request, no answer."""
    answers = target.run([])
    assert answers == [], f"got {len(answers)} answers to no request, should be none"


def test_determinism(target: Target) -> None:
    """The same request has the same answer, every time."""
    batch = target.subject.probes(4)
    first, *rest = target.run_each([batch] * 3)
    for again in rest:
        assert again == first, f"got {differing(first, again)}, should be the same in every run"


def differing(left: list[Answer], right: list[Answer]) -> str:
    """The first pair that differs."""
    return next((f"{a} then {b}" for a, b in zip(left, right, strict=True) if a != b), "nothing")


def test_reloading_leaks_nothing(target: Target) -> None:
    """Load, close and load again leaves no memory behind."""
    bound = max(8.0, 0.5 * target.size_mb)
    for rounds in (2, 6):  # an allocator takes a step and stays there; a leak grows with the rounds
        grown = target.reload_growth_mb(rounds)
        if grown < bound:
            return
    pytest.fail(f"{rounds} more loads grew the process by {grown:.1f} MB, should be < {bound:.0f} MB", pytrace=False)
