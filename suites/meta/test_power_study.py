from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.baseline.calibrate import TIME
from fixtures.baseline.visits import LATE, VISITS
from fixtures.baseline.weather import Following, Weather
from fixtures.verdict import Outcome
from suites.meta import power_again
from suites.meta.power_study import RARE, Trial, Visit, read, stored, table, threshold, trials
from suites.meta.sample_launches import series

CASE = "sentiment/tiny/fake/plain"


def visits(count: int = 2 * VISITS + LATE) -> list[Visit]:
    """Visits a thousand seconds apart to a case on a machine that stands still, of eight launches of a second each."""
    return [
        [replace(each, at=1000.0 * visit + second) for second, each in enumerate(series(visit))]
        for visit in range(count)
    ]


def trial(weather: Weather | None = None) -> Trial:
    """As many visits then as now."""
    found = visits()
    return Trial(found[:VISITS], found[VISITS:], weather or {}, "fake")


@pytest.mark.parametrize(
    ("slow", "outcome", "seconds"), [(0.0, Outcome.PASS, 8), (0.2, Outcome.FAIL, 8 * (VISITS + LATE))]
)
def test_a_slowdown_is_injected_into_what_is_now(slow: float, outcome: Outcome, seconds: int) -> None:
    """On a steady machine nothing new is green, a fifth is red; more visits, where needed, take their seconds."""
    assert stored(trial(), slow) == (outcome, seconds)


def test_what_the_machine_does_by_itself_is_not_red() -> None:
    """A slowdown that the unrest of the baseline explains is not decided."""
    known = Following(unrest=0.1)
    assert stored(trial({("fake", "latency_ms"): known}), 0.1)[0] is Outcome.INCONCLUSIVE
    assert stored(trial({("other", "latency_ms"): known}), 0.1)[0] is Outcome.FAIL


@pytest.mark.parametrize(("slow", "outcome"), [(0.0, Outcome.PASS), (1.2 * TIME - 1, Outcome.FAIL)])
def test_limits_have_their_margin(slow: float, outcome: Outcome) -> None:
    """A limit calibrated on other visits is red beyond its margin, and green where nothing is new."""
    assert threshold(trial(), slow) == (outcome, 8)


def test_trials_are_what_could_have_been(tmp_path: Path) -> None:
    """Visits in a row are held against each as many in a row after them, whatever order files are in; and backwards."""
    found = visits(2 * VISITS + LATE + 1)
    for name, each in zip("cabedigfhkj", found, strict=True):
        line = {"case": CASE, "launches": [launch.as_json() for launch in each]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    cases = read(*tmp_path.glob("*.jsonl"))
    starts = [[visit[0].at / 1000 for visit in (*each.then, *each.now)] for each in trials(cases)]
    assert starts[:3] == [[0, 1, 2, 3, *range(4, 10)], [0, 1, 2, 3, *range(5, 11)], [1, 2, 3, 4, *range(5, 11)]]
    assert len(starts) == 6
    assert all(times == sorted(set(times)) for times in starts)
    others = {f"{CASE}{number}": visits(2 * VISITS) for number in range(RARE)}
    assert {len(each.now) for each in trials(others)} == {VISITS}
    assert len([*trials({**cases, **others})]) == 2 * (1 + RARE)
    told = table(cases)
    assert "1 cases of 11 visits" in told
    assert len([row for row in told.splitlines() if row.startswith("stored baseline")]) == 5


def test_what_had_a_slow_backend_is_not_replayed(tmp_path: Path) -> None:
    """Of the runs on the whole matrix those that ended and had nothing planted are replayed."""
    for name in ("record.ended", "record.jsonl", "again-1.ended", "again-2.jsonl", "planted.ended", "planted.jsonl"):
        (tmp_path / name).touch()
    assert power_again.unchanged(tmp_path) == [tmp_path / "again-1.jsonl", tmp_path / "record.jsonl"]
    assert power_again.unchanged(tmp_path / "none") == []
