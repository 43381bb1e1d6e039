from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures import charts, summary, view
from fixtures.results import Results
from fixtures.verdict import Outcome
from suites.meta.sample_records import LAPS, record, results, verdict

ROOT = Path(__file__).resolve().parents[2]
points = st.lists(st.tuples(*[st.integers(0, 6) | st.floats(0, 6)] * 3), max_size=30)


def _row(text: str, cell: str) -> list[str]:
    """The table row of a case, as words."""
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [cell])


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("huggingface/fp32", "0.968 ref 6.25 7.50 400 @8 210 2.00 n/a PASS"),
        ("onnxruntime/int8-dynamic", "0.960 -0.008 2.00 2.50 400 @8 110 2.00 3.12× PASS"),
        ("huggingface/torchscript", "0.968 +0.000 1.00? 7.50? 400 @8 210 2.00 n/a INVALID latency_ms"),
        ("huggingface/torch-compile", "0.968 +0.000 6.25 7.50 400 @8 210 2.00 n/a FAIL latency_ms"),
        ("onnxruntime/fp32", "n/a n/a n/a n/a n/a n/a n/a n/a CRASH"),
    ],
)
def test_each_case_is_one_row(cell: str, words: str) -> None:
    """A row says score, change, latency, throughput, memory, size, speed-up and verdict; what is absent is n/a."""
    assert _row(summary.summary(results()), cell)[1:] == words.split()


@pytest.mark.parametrize(
    "sentence",
    [
        "RECORD OF RESULTS  sentiment / embedded on cpu  (score: accuracy)",
        "huggingface/torchscript: INVALID latency_ms",
        "onnxruntime/fp32: crashed: host died: signal SIGSEGV",
        "skipped: this CPU does not compute it natively (huggingface/fp16, huggingface/bf16)",
        "note: speed-up measured back to back (huggingface/torch-compile)",
        "fastest: onnxruntime/int8-dynamic (p50 2.00 ms)",
        "lightest: onnxruntime/int8-dynamic (peak 110 MB)",
        "most accurate: huggingface/fp32 (accuracy 0.968)",
        "Pareto set (accuracy, latency_ms.p50, peak_memory_mb): huggingface/fp32, onnxruntime/int8-dynamic",
        "cases: 7: 2 passed, 2 failed, 1 crashed, 2 skipped",
        "? = the measurement is INVALID",
    ],
)
def test_the_record_says(sentence: str) -> None:
    """Troubles, skips (once a reason), notes, what is best, the Pareto set and the totals are said in words."""
    assert sentence in summary.summary(results())


def test_skipped_cases_have_no_row() -> None:
    """A skipped case is named with its reason and takes no row in the table."""
    assert not [line for line in summary.summary(results()).splitlines() if line.startswith("huggingface/fp16")]


def test_verdicts_are_counted() -> None:
    """The totals count verdicts of every kind, UNBOUNDED among them."""
    counted = next(line for line in summary.totals(results()).splitlines() if line.startswith("verdicts"))
    for words in ("10:", "4 PASS", "1 FAIL", "1 INVALID", "4 UNBOUNDED"):
        assert words in counted


def test_slices_show_reference_and_worst() -> None:
    """Each slice has a line with its size, the reference's score, and the worst score with its case."""
    text = summary.summary(results())
    assert _row(text, "negation") == ["negation", "40", "0.950", "0.900", "onnxruntime/int8-dynamic"]


@pytest.mark.parametrize("length", [5, 60, 300])
def test_lines_fit_the_page(length: int) -> None:
    """However long names, reasons and notes are, no line is longer than 120 characters."""
    run = results()
    for case in run.cases:
        case.optimization = "x" * length
        case.notes.append("why " * length)
        case.checks["suites/x.py::test_law[a]"] = f"failed: got {'y' * length}\nmore"
    longest = max(summary.summary(run).splitlines(), key=len)
    assert len(longest) <= 120, longest


def test_a_failed_check_is_told_once() -> None:
    """A check that failed with a verdict's own sentence is not repeated; one that says something else is."""
    case = record("huggingface", "fp32", status="failed")
    case.verdicts = [verdict("latency_ms", Outcome.FAIL, 9.5)]
    case.checks = {
        "a.py::test_latency": f"failed: Failed: {case.verdicts[0]}",
        "a.py::test_law[x]": "failed: got 1\nso",
    }
    assert summary.troubles(case) == [
        f"huggingface/fp32: {case.verdicts[0]}",
        "huggingface/fp32: failed law: got 1",
    ]


def test_failed_check_shows_in_the_verdict() -> None:
    """A case whose limits hold and whose law does not is FAIL with the law's name."""
    case = record("huggingface", "fp32", status="failed", checks={"a.py::test_padding_invariance[x]": "failed: no"})
    assert summary.verdict_of(case) == "FAIL padding_invariance"


def test_no_limit_is_unbounded() -> None:
    """A case that no limit judged says UNBOUNDED, never PASS."""
    case = record("huggingface", "fp32", verdicts=[verdict("latency_ms", Outcome.UNBOUNDED)])
    assert summary.verdict_of(case) == "UNBOUNDED"


def test_invalid_measurements_win_nothing() -> None:
    """The fastest is the fastest of those whose measurement can be trusted, even if an invalid one is faster."""
    invalid = record("onnxruntime", "fp32", verdicts=[verdict("latency_ms", Outcome.INVALID)])
    invalid.metrics["latency_ms.p50"] = 0.1
    said = summary.best([record("huggingface", "fp32"), invalid])
    assert said[0] == "fastest: huggingface/fp32 (p50 6.25 ms)"
    assert summary.best([invalid])[0] == "fastest: n/a, latency_ms.p50 is INVALID"


def test_nothing_measured_is_said() -> None:
    """With no case that passed, or nothing measured, the best is said to be unknown instead of invented."""
    assert summary.best([record("a", "b", status="failed")]) == ["best: none, because no case passed"]
    said = summary.best([record("a", "b", metrics={})])
    assert said[0] == "fastest: n/a, latency_ms.p50 was not measured"
    assert said[-1] == "Pareto set (nothing measured): n/a"


def test_without_a_score_speed_and_memory_are_compared() -> None:
    """Models that have no meaning, so no score, are compared by what was measured."""
    cases = [record("a", "slow"), record("a", "quick")]
    for case, p50 in zip(cases, (9.0, 3.0), strict=True):
        case.metrics = {"latency_ms.p50": p50, "peak_memory_mb": 5.0}
    members, axes = view.pareto_cases(cases)
    assert ([case.cell for case in members], axes) == (["a/quick"], ["latency_ms.p50", "peak_memory_mb"])


@given(points)
def test_pareto_members_are_exactly_the_undominated(found: list[tuple[float, float, float]]) -> None:
    """No member of the set is dominated, every other point is, and a non-empty set of points has members."""
    members = view.pareto(found)
    for n, point in enumerate(found):
        beaten = any(all(a <= b for a, b in zip(other, point, strict=True)) and other != point for other in found)
        assert (n in members) is not beaten
    assert bool(members) is bool(found)


@given(points)
def test_every_outsider_is_dominated_by_a_member(found: list[tuple[float, float, float]]) -> None:
    """Whoever is not in the set is beaten by somebody who is."""
    members = view.pareto(found)
    for n in set(range(len(found))) - set(members):
        assert any(all(a <= b for a, b in zip(found[m], found[n], strict=True)) for m in members)


@pytest.mark.parametrize(
    ("value", "text"), [(0.834, "0.83"), (9.99, "9.99"), (12.34, "12.3"), (1240.4, "1240"), (0.0, "0.00")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    """Numbers are printed to about three digits, never with an exponent."""
    assert view.number(value) == text


def test_main_prints_the_record_again(tmp_path: Path) -> None:
    """`python -m fixtures.summary FILE` prints what the run printed."""
    results().write(tmp_path / "results.json")
    command = [sys.executable, "-m", "fixtures.summary", str(tmp_path / "results.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.decode() == summary.summary(results())


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["nowhere.json"]])
def test_main_refuses_with_a_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage or a missing file is one sentence on stderr and exit code 2."""
    assert summary.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1


def test_empty_results_have_totals() -> None:
    """A run without cases says so."""
    assert "cases: 0: nothing ran" in summary.summary(Results({}, {}, {}, []))


def _pixels(png: bytes) -> np.ndarray:
    from matplotlib import image

    return np.asarray(image.imread(io.BytesIO(png)))


@pytest.mark.parametrize(
    "laps", [LAPS, [1.0], [2.0] * 50, [*LAPS, 400.0], [0.0, 0.0, 1.0]], ids=["many", "one", "equal", "tail", "zero"]
)
def test_histogram_is_a_picture(laps: list[float]) -> None:
    """Laps of every shape give a picture of the promised size with something drawn in it."""
    pixels = _pixels(charts.latency_histogram(laps, "a $title_ with % signs", {"p50": 2.0, "limit": 5.0}))
    assert pixels.shape[:2] == (round(3.6 * charts.DPI), round(8.4 * charts.DPI))
    assert pixels[..., :3].std() > 0.05


@pytest.mark.parametrize("laps", [[], [math.nan], [1.0, math.inf]])
def test_histogram_refuses_what_is_no_time(laps: list[float]) -> None:
    """No laps, or laps that are not finite, raise ValueError."""
    with pytest.raises(ValueError, match="at least one lap"):
        charts.latency_histogram(laps, "x")


def test_comparison_grows_with_its_cases() -> None:
    """Each case adds a row to the picture; absent values and crashed cases do not break it."""
    cases = results().cases[:5]
    pixels, shorter = _pixels(charts.comparison(cases, "t")), _pixels(charts.comparison(cases[:2], "t"))
    assert pixels.shape[0] > shorter.shape[0]
    assert pixels[..., :3].std() > 0.05
    with pytest.raises(ValueError, match="at least one case"):
        charts.comparison([], "t")


def test_pareto_chart_needs_points() -> None:
    """Cases with score and latency are drawn; without any there is no picture."""
    drawn = charts.pareto_chart(results().cases, "t")
    assert drawn is not None
    assert _pixels(drawn)[..., :3].std() > 0.02
    assert charts.pareto_chart([record("a", "b", metrics={})], "t") is None
    assert charts.pareto_chart([], "t") is None


def test_charts_leave_no_global_state() -> None:
    """Importing the module costs no matplotlib, and drawing touches no pyplot."""
    code = (
        "import sys; from fixtures import charts; assert 'matplotlib' not in sys.modules; "
        "charts.latency_histogram([1.0, 2.0], 't'); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True)
