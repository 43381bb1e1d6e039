from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.baseline.calibrate import Kind, bound, difference, entry, proposals, rewritten, rounded, without
from suites.meta.runs import arguments, limits, run
from suites.meta.sample_records import record, results

ruamel = pytest.importorskip("ruamel.yaml", reason="needs ruamel.yaml: pip install '.[calibrate]'")

TEXT = """\
# What stands above stays.
schema: 1
limits:
  cpu:
    # About the first entry.
    - cases: "sentiment/*/*/*"
      source: 'single quotes, and a very long line that no writer may break, since a diff would show it'
      accuracy: {min: 0.90}  # about a limit
    - cases: ["ner/*/*/*", "qa/*/*/*"]
      source: "two"
      load_s: {max: 30}

  # About the next device.
  jetson-thor:
    - cases: "*/*/*/*"
      source: "three"
      peak_memory_mb: {max: 1.0e+3}
"""
NEW = {
    "cases": "sentiment/tiny/fake/plain",
    "source": "calibrated today",
    "latency_ms": {"p50_max": 2.5, "p95_max": 4.0},
}


def test_nothing_else_is_touched() -> None:
    """An added entry adds its lines and changes no other: comments, order, quotes and numbers are as they were."""
    old, new = TEXT.splitlines(), rewritten(TEXT, "cpu", [NEW]).splitlines()
    assert [line for line in new if line in old] == old
    assert [line.strip() for line in new if line not in old] == [
        '- cases: "sentiment/tiny/fake/plain"',
        'source: "calibrated today"',
        "latency_ms: {p50_max: 2.5, p95_max: 4}",
    ]
    assert rewritten(TEXT, "cpu", []) == TEXT


def test_calibrating_again_replaces_what_was_calibrated() -> None:
    """An entry that was calibrated is replaced where it stands; one written by hand for the same case is not."""
    once = rewritten(TEXT, "cpu", [NEW])
    again = rewritten(once, "cpu", [{**NEW, "source": "calibrated later", "latency_ms": {"p50_max": 3.0}}])
    assert again.count("sentiment/tiny/fake/plain") == 1
    assert "p50_max: 3}" in again
    assert "p95_max" not in again
    by_hand = once.replace("calibrated today", "by hand")
    assert rewritten(by_hand, "cpu", [NEW]).count("sentiment/tiny/fake/plain") == 2


def test_power_modes_are_apart() -> None:
    """Limits of one power mode do not replace those of another."""
    first = rewritten(TEXT, "jetson-thor", [{**NEW, "power_mode": "70W"}])
    both = rewritten(first, "jetson-thor", [{**NEW, "power_mode": "120W"}])
    assert both.count("sentiment/tiny/fake/plain") == 2


def test_a_new_device() -> None:
    """A device without limits gets its list."""
    assert "  jetson-orin-nx:\n" in rewritten(TEXT, "jetson-orin-nx", [NEW])
    assert "  cpu:\n" in rewritten("schema: 1\nlimits: {}\n", "cpu", [NEW])


@pytest.mark.parametrize(
    ("direction", "values", "limit"), [("max", (10.0, 12.0, 11.0), 18.0), ("min", (10.0, 12.0, 11.0), 6.66)]
)
def test_limits_come_from_the_worst_run(direction: str, values: tuple[float, ...], limit: float) -> None:
    """The worst of all runs counts, and the margin is on the side that forgives."""
    runs = [record("fake", "plain", metrics={"load_s": value}) for value in values]
    assert bound(Kind("load_s", "", direction, 1.5), runs) == limit


def test_the_interval_counts() -> None:
    """Where a run has an interval, its far end counts."""
    one = record("fake", "plain", metrics={"latency_ms.p50": 10.0}, intervals={"latency_ms.p50": (9.0, 14.0)})
    assert bound(Kind("latency_ms", "p50", "max", 1.5), [one]) == 21.0


def test_what_one_run_lacks_has_no_limit() -> None:
    """A metric is proposed only where every run has measured it."""
    runs = [record("fake", "plain", metrics={"load_s": 1.0}), record("fake", "plain", metrics={})]
    assert bound(Kind("load_s", "", "max", 1.5), runs) is None
    found = results()
    assert entry(runs[0].id, {**found.device, "power_mode": None}, [runs[1]], "2026-11-21") is None
    found.cases = [runs[1]]
    assert proposals([found], "2026-11-21") == []


@pytest.mark.parametrize(
    ("value", "up", "limit"), [(1.2341, True, 1.24), (1.2341, False, 1.23), (0.0012349, True, 0.00124)]
)
def test_rounding_forgives(value: float, up: bool, limit: float) -> None:
    """Three digits, never nearer to the measurement."""
    assert rounded(value, up) == pytest.approx(limit)


def test_arguments_of_a_round() -> None:
    """A round is asked what the calibration was asked, without calibrating."""
    words = ["--calibrate", "3", "--task=ner", "--write", "--calibrate=4", "-k", "x"]
    assert without(words, "--calibrate", "--write") == ["--task=ner", "-k", "x"]


def test_a_diff_names_the_file() -> None:
    """What is shown can be applied."""
    assert difference(Path("limits.yaml"), "a\n", "b\n").startswith("--- limits.yaml\n+++ limits.yaml (proposed)\n")


def test_from_measuring_to_limits(tmp_path: Path) -> None:
    """Two rounds propose an entry with counts and source, which is written only if asked, and the next run keeps it."""
    words = [*arguments(tmp_path, "plain"), "-pno:allure_pytest"]
    file = limits(
        tmp_path / "limits.yaml", '    # mine\n    - {cases: "sentiment/*/*/*", source: "x", accuracy: {min: 0.5}}\n'
    )
    before = file.read_text()
    shown = run(
        tmp_path / "build", *words, "--calibrate=2", "suites/performance/test_performance.py", "suites/accuracy"
    )
    assert shown.code == 0, shown.output[-3000:]
    assert file.read_text() == before
    assert '+    - cases: "sentiment/tiny/fake/plain"' in shown.output
    assert "the worst of 2 runs of " in shown.output
    written = run(
        tmp_path / "build2", *words, "--calibrate=2", "--write", "suites/performance/test_performance.py::test_load"
    )
    assert written.code == 0, written.output[-3000:]
    assert "# mine" in file.read_text()
    assert "load_s: {max: " in file.read_text()
    assert run(tmp_path / "build3", *words, "suites/performance/test_performance.py::test_size").code == 0
