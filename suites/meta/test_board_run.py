"""Whole runs on a board that throttles, from its sensor files to output, results and report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from suites.meta.board_trees import THROTTLING, board, playing
from suites.meta.jetson_stand_in import environment
from suites.meta.runs import arguments, run

PERIOD_S, TURNS = 3.0, 100
READING = "throttling: gpu was active in "


@pytest.mark.parametrize(
    ("words", "code"),
    [([], pytest.ExitCode.OK), (["--strict-verdicts"], pytest.ExitCode.TESTS_FAILED)],
    ids=["lenient", "strict"],
)
def test_a_board_that_throttles_voids_the_numbers_of_a_run(
    tmp_path: Path, words: list[str], code: pytest.ExitCode
) -> None:
    """What sensors show while a case is measured is INVALID in terminal, results and report; strict, it is red."""
    nano = board(tmp_path / "board")
    with playing(nano, [(PERIOD_S * turn + second, values) for turn in range(TURNS) for second, values in THROTTLING]):
        found = run(
            tmp_path / "build",
            *arguments(tmp_path, "unhurried"),
            "--targets=suites.meta.jetson_stand_in",
            "--retries=0",
            *words,
            "suites/performance/test_performance.py::test_latency",
            environment=environment(nano.root),
        )
    assert found.code == code, found.output
    (case,) = found.results["cases"]
    verdicts = {verdict["metric"]: verdict for verdict in case["verdicts"]}
    assert verdicts["latency_ms"]["verdict"] == "INVALID"
    assert READING in verdicts["latency_ms"]["reason"]
    assert f"fake/unhurried: INVALID latency_ms p50, energy_j_per_request, power_w: {READING}" in found.output
    (report,) = (found.build / "allure-results").glob("*-result.json")
    steps = {step["name"].split(" = ")[0]: step for step in json.loads(report.read_text())["steps"]}
    assert steps["INVALID latency_ms p50"]["status"] == "broken"
    assert READING in steps["INVALID latency_ms p50"]["name"]
