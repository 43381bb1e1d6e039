from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fixtures.baseline.calibrate import TIME
from fixtures.baseline.launches import LAUNCHES, LEAST_LAUNCHES, SERIES_S
from fixtures.verdict import Outcome
from suites.meta import power_again
from suites.meta.power_study import Session, read, stored, table, taken, threshold, trials
from suites.meta.sample_launches import series

CASE = "sentiment/tiny/fake/plain"


def recorded(seed: int, count: int = LAUNCHES, seconds: float = 1.0) -> Session:
    """A recording on a machine that stands still."""
    return Session([replace(each, seconds=seconds) for each in series(seed, count)], True)


def line(began: float, session: Session) -> str:
    """As what records writes it down."""
    launches = [each.as_json() for each in session.launches]
    return json.dumps({"case": CASE, "began": began, "recorded": session.recorded, "launches": launches})


@pytest.mark.parametrize(("slow", "outcome"), [(0.0, Outcome.PASS), (0.2, Outcome.FAIL)])
def test_a_slowdown_is_injected_into_one_side(slow: float, outcome: Outcome) -> None:
    """On a steady machine nothing new is green and a fifth is red; a second series, and its seconds, come on top."""
    draw = np.random.default_rng(0)
    found, seconds = stored([recorded(1), recorded(2)], 0, 1, slow, draw)
    assert found is outcome
    assert seconds == LAUNCHES * (2 if slow else 1)


@pytest.mark.parametrize(("slow", "outcome"), [(0.0, Outcome.PASS), (1.2 * TIME - 1, Outcome.FAIL)])
def test_limits_have_their_margin(slow: float, outcome: Outcome) -> None:
    """A limit calibrated on other sessions is red beyond its margin, and green where nothing is new."""
    sessions = [recorded(each) for each in range(5)]
    assert threshold(sessions, 0, 1, slow, np.random.default_rng(0)) == (outcome, LAUNCHES)


def test_a_recording_is_cut_to_what_a_comparison_takes() -> None:
    """What a recording took longer for than a comparison would is not used to decide, and never fewer launches are."""
    then = recorded(1)
    assert len(taken(recorded(2, count=14, seconds=SERIES_S / 5.5), then)) == 6
    assert len(taken(recorded(2, count=14, seconds=SERIES_S), then)) == LEAST_LAUNCHES
    assert len(taken(recorded(2, count=3), then)) == 3


def test_only_a_recording_is_compared_with(tmp_path: Path) -> None:
    """The first series of each run is a session; those that were taken to be compared are no baseline of others."""
    file, more = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    now = replace(recorded(2), recorded=False)
    file.write_text("\n".join([line(1.0, recorded(1)), line(2.0, now)]))
    more.write_text("\n".join([line(3.0, now), line(3.0, recorded(3, count=2))]))
    cases = read(file, more)
    assert [len(each.launches) for each in cases[CASE]] == [LAUNCHES] * 3
    assert [(then, now) for _, then, now in trials(cases)] == [(0, 1), (0, 2)]
    told = table(cases)
    assert f"sessions: {CASE} 3" in told
    assert len([row for row in told.splitlines() if row.startswith("stored baseline")]) == 5


def test_what_had_a_slow_backend_is_not_replayed(tmp_path: Path) -> None:
    """Of the runs on the whole matrix those that ended and had nothing planted are replayed."""
    for name in ("record.ended", "record.jsonl", "again-1.ended", "again-2.jsonl", "planted.ended", "planted.jsonl"):
        (tmp_path / name).touch()
    assert power_again.unchanged(tmp_path) == [tmp_path / "again-1.jsonl", tmp_path / "record.jsonl"]
    assert power_again.unchanged(tmp_path / "none") == []
