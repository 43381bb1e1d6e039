from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from suites.meta import cost_study
from suites.meta.cost_sampler import ROOT, Sampler
from suites.meta.runs import arguments
from suites.meta.sample_records import record, results


def waiting_in(file: str) -> Callable[[float], Any]:
    """A function of a file of the suite that waits, in a library."""
    found: dict[str, Any] = {"Event": threading.Event}
    exec(compile("def wait(seconds): Event().wait(seconds)", str(ROOT / file), "exec"), found)
    wait: Callable[[float], Any] = found["wait"]
    return wait


def test_time_is_that_of_the_innermost_file_of_the_suite() -> None:
    """What a file of the suite waits for in a library is that file's time, and that of the case at hand."""
    sampler = Sampler().start()
    sampler.now = "a"
    waiting_in("fixtures/telemetry/timeline.py")(0.3)
    sampler.now = "b"
    waiting_in("fixtures/host.py")(0.2)
    sampler.close()
    assert sampler.seconds["a"]["fixtures/telemetry/timeline.py"] == pytest.approx(0.3, abs=0.1)
    assert sampler.seconds["b"]["fixtures/host.py"] == pytest.approx(0.2, abs=0.1)
    assert cost_study.added(sampler.seconds["b"]) == {}


def test_a_run_tells_what_each_case_cost(tmp_path: Path) -> None:
    """The case's seconds are told by file, telemetry's among them, and are no more than the run took."""
    words = [*arguments(tmp_path, "plain"), "--budget=1", "suites/performance/test_performance.py"]
    seconds, found = cost_study.run(tmp_path / "cost", words)
    (case,) = (name for name in seconds if name)
    assert case == found.cases[0].id
    assert any(file.startswith("fixtures/telemetry/") for file in seconds[case])
    assert 0 < sum(seconds[case].values()) <= found.run["duration_s"]
    assert "of 1 cases" in cost_study.table(seconds, found)


def test_the_table_counts_this_and_nothing_else() -> None:
    """Median, mean and most are of what is cost in the measured cases; what is once a run stands apart."""
    run = {"telemetry": {"hz": 20.0, "own_cpu_share": 0.0123}}
    records = [record("onnxruntime", name) for name in ("a", "b", "c")] + [record("x", "y", status="skipped")]
    spent = zip(records, (0.1, 0.2, 0.6, 9.0), strict=True)
    seconds = {case.id: {"fixtures/statistics.py": each, "fixtures/host.py": 5.0} for case, each in spent}
    found = cost_study.table({**seconds, "": {"fixtures/charts.py": 1.5}}, replace(results(), cases=records, run=run))
    assert "median 0.20 s, mean 0.30 s, most 0.60 s of 3 cases" in found
    assert "once a run: 1.50 s" in found
    assert "fixtures/host.py" not in found
    assert "1.23% of a core at 20 Hz (should be 1% at most)" in found


def test_a_run_of_nothing_has_no_cost(tmp_path: Path) -> None:
    """Where no case was measured there is no figure."""
    with pytest.raises(SystemExit, match="no case was measured"):
        cost_study.table({"": {"fixtures/charts.py": 1.5}}, results())
    with pytest.raises(SystemExit, match="did not come to its end"):
        cost_study.run(tmp_path / "cost", ["--backend=nonesuch"])


def test_what_counts_as_cost_exists() -> None:
    """Each place that counts as cost is there, so that a file that moves does not leave the sum unseen."""
    assert [place for place in cost_study.COSTS if not (ROOT / place).exists()] == []
