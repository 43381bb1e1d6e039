"""What is red, and how, in a run whose limit cannot be decided and whose percentile has too few laps."""

from __future__ import annotations

import json

import pytest

from suites.meta.runs import Run, arguments, limits, run

LIMITS = """\
    - cases: "sentiment/tiny/fake/*"
      source: "made up: between the two paces of the fake engine"
      latency_ms: {p50_max: 7, p99_max: 100}
"""
BUDGET_S = 0.9


@pytest.fixture(scope="module", params=[(), ("--strict-verdicts",)], ids=["lenient", "strict"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, bool]:
    """A run of the latency test alone, and whether it was strict."""
    folder = tmp_path_factory.mktemp("near")
    words = [
        *arguments(folder, "near"),
        "--targets=suites.meta.near",
        "--telemetry-hz=0",
        f"--budget={BUDGET_S}",
        *request.param,
    ]
    limits(folder / "limits.yaml", LIMITS)
    test = "suites/performance/test_performance.py::test_latency"
    return run(folder / "build", *words, test), bool(request.param)


def test_what_is_open_stays_open(found: tuple[Run, bool]) -> None:
    """A limit that the interval still holds at the budget is INCONCLUSIVE, and says when sampling stopped and why."""
    case = found[0].cases["near"]
    median, tail = sorted(case["verdicts"], key=lambda verdict: str(verdict["statistic"]))
    assert (median["verdict"], tail["verdict"]) == ("INCONCLUSIVE", "INVALID")
    assert f"laps at the budget ({BUDGET_S} s)" in median["how"]
    assert tail["reason"].endswith("p99 needs 459")
    assert median["n"] >= 90
    assert case["timing"]["measure_s"] < 4 * BUDGET_S


def test_only_strict_verdicts_make_it_red(found: tuple[Run, bool]) -> None:
    """INVALID and INCONCLUSIVE are red when asked for, with the verdicts as the reason."""
    ended, strict = found
    assert ended.code == int(strict)
    case = ended.cases["near"]
    assert case["status"] == ("failed" if strict else "passed")
    assert case["reason"].startswith("INVALID latency_ms p99" if strict else "") or "INCONCLUSIVE" in case["reason"]


def test_what_cannot_be_trusted_is_broken(found: tuple[Run, bool]) -> None:
    """In Allure a red INVALID is a broken test, not a failed one, with the verdicts as its message."""
    ended, strict = found
    (test,) = [json.loads(path.read_text()) for path in (ended.build / "allure-results").glob("*-result.json")]
    assert test["status"] == ("broken" if strict else "passed")
    if strict:
        assert "INVALID latency_ms p99" in test["statusDetails"]["message"]
        assert "INCONCLUSIVE latency_ms p50" in test["statusDetails"]["message"]
    statuses = [step["status"] for step in test["steps"] if "latency_ms p" in step["name"]]
    assert sorted(statuses) == ["broken", "skipped"]
