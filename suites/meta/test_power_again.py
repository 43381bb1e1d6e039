from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fixtures.baseline.figures import location
from fixtures.results import CaseRecord
from fixtures.verdict import Outcome, Verdict
from suites.meta import power_again, slow_backend
from suites.meta.power_again import Held, against_baseline, planted, study
from suites.meta.power_study import read
from suites.meta.runs import data, limits, model
from targets.api import Answer, Request, Tick, UserError


class Clock:
    """A clock that goes on only when somebody works or sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_slow_backend_is_late_by_a_share_of_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token and the end come later by the share, and what is done at a token is no time of the backend's."""
    clock = Clock()
    monkeypatch.setattr(slow_backend, "time", clock)
    monkeypatch.setattr(slow_backend, "wait", clock.sleep)
    ticks: list[float] = []

    def run(batch: Sequence[Request], tick: Tick) -> list[Answer]:
        clock.sleep(1.0)
        tick()
        clock.sleep(2.0)
        tick()
        clock.sleep(0.5)
        return [{"text": "done"} for _ in batch]

    def tick() -> None:
        ticks.append(clock.now)
        clock.sleep(10.0)

    runner: Any = SimpleNamespace(run=run)
    backend = SimpleNamespace(load=lambda *_: runner)
    monkeypatch.setattr(slow_backend, "backends", {"engine": backend})
    slow_backend.plant("engine", 0.1)
    assert backend.load("model").run([{}], tick) == [{"text": "done"}]
    assert ticks == pytest.approx([1.1, 1.1 + 10 + 2.2])
    assert clock.now == pytest.approx(1.1 + 10 + 2.2 + 10 + 0.55)


def test_to_be_late_by_a_little_is_not_to_be_late_by_much() -> None:
    """A wait of 50 us takes that, and at best hardly more: a tenth of a short answer is a tenth."""
    found = []
    for _ in range(200):
        began = time.perf_counter()
        slow_backend.wait(50e-6)
        found.append(time.perf_counter() - began)
    assert 50e-6 <= min(found) < 60e-6


def test_a_backend_that_is_none_cannot_be_slow() -> None:
    """A name that no backend has is refused."""
    with pytest.raises(UserError, match="unknown backend 'onnx'"):
        slow_backend.plant("onnx", 0.1)


def verdict(outcome: Outcome, statistic: str = "vs_baseline") -> Verdict:
    return Verdict("latency_ms", statistic, 1.0, outcome)


def test_a_case_is_as_bad_as_its_worst_metric() -> None:
    """One red metric makes a case red; limits are no business of the baseline's."""
    record = CaseRecord("a/b/c/d", "a", "b", "c", "d")
    assert against_baseline(record) is Outcome.UNBOUNDED
    record.verdicts = [verdict(Outcome.PASS), verdict(Outcome.INVALID), verdict(Outcome.FAIL, "p95")]
    assert against_baseline(record) is Outcome.INVALID
    record.verdicts.append(verdict(Outcome.FAIL))
    assert against_baseline(record) is Outcome.FAIL


def test_red_cases_are_held_against_those_that_are_slow() -> None:
    """What is red and should not be, and what should be red and is not, are both listed."""
    found = Held(
        {
            "qa/m/slow/fp32": Outcome.FAIL,
            "qa/m/slow/int8": Outcome.INVALID,
            "qa/m/other/fp32": Outcome.FAIL,
            "qa/m/other/int8": Outcome.PASS,
        },
        60.0,
    )
    told = "\n".join(planted(found, "slow"))
    assert "4 cases in 60 s: 1 PASS, 2 FAIL, 1 INVALID" in told
    assert "red of slow's cases: 1 of 2; of all others: 1 of 2" in told
    assert "not red: qa/m/slow/int8 (INVALID)" in told
    assert "    red: qa/m/other/fp32" in told


def middles(series: Path) -> dict[str, float]:
    """By case the median of what its launches show."""
    found = read(series)
    return {
        case: float(np.median([location("latency_ms", each) for each in visits[0]])) for case, visits in found.items()
    }


@pytest.mark.alone
def test_a_slow_backend_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against its own baseline nothing is red, with one backend slower its case alone; all series and runs are kept."""
    monkeypatch.setattr(power_again, "RUNS", 1)
    monkeypatch.setenv("SLOW_BACKEND", "partial")
    monkeypatch.setenv("SLOW_SHARE", "0.5")
    words = [
        "--targets=suites.meta.lagging",
        "--targets=suites.meta.hasty",
        "--backend=fake,partial",
        "--optimization=lag",
        f"--model=sentiment={model(tmp_path / 'tiny')}",
        f"--data=sentiment={data(tmp_path / 'data.tsv')}",
        f"--thresholds={limits(tmp_path / 'limits.yaml')}",
    ]
    told = study(tmp_path / "again", words)
    assert "again, run 1: 2 cases in " in told
    assert "red of partial's cases: 1 of 1; of all others: 0 of 1" in told
    then, now = (middles(tmp_path / f"again/{name}.jsonl") for name in ("record", "planted"))
    assert then.keys() == now.keys()
    assert [case for case in then if now[case] > 1.25 * then[case]] == [case for case in then if "/partial/" in case]
    monkeypatch.setattr(power_again, "ROOT", tmp_path)  # nothing can run from here
    assert study(tmp_path / "again", words) == told


def test_a_run_that_broke_off_is_told(tmp_path: Path) -> None:
    """A run that could not start ends the study with its status and where its words are."""
    with pytest.raises(SystemExit, match=r"status 4.*record\.log"):
        study(tmp_path, ["--backend=nonesuch"])
