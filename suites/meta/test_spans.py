from __future__ import annotations

import time

import pytest

from fixtures.spans import Span, Spans


def test_a_phase_is_kept_from_its_start_to_its_end() -> None:
    """A span covers what happened inside it, a failing one too, and is handed out once."""
    spans = Spans()
    before = time.perf_counter_ns()
    with pytest.raises(RuntimeError), spans.phase("warm-up"):
        raise RuntimeError
    spans.add("decode", 5, 2_000_000_005)
    (first, second) = spans.take()
    assert first.phase == "warm-up"
    assert before <= first.start_ns <= first.end_ns <= time.perf_counter_ns()
    assert second == Span("decode", 5, 2_000_000_005)
    assert second.seconds == 2
    assert spans.take() == []


def test_an_unknown_phase_is_refused() -> None:
    """A phase that no one looks for is a mistake of ours, so it is told."""
    with pytest.raises(ValueError, match="'cooling' is no phase"):
        Spans().add("cooling", 0, 1)
