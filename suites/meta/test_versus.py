from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.cases import Case
from fixtures.devices import detect
from fixtures.versus import interpreter
from fixtures.versus.decision import EFFECT, LOOKS, Answer, Round, centre, confirmed, decide, estimate, interval, series
from fixtures.versus.interpreter import Interpreter
from fixtures.versus.opponent import Opponent
from fixtures.versus.options import Versus
from fixtures.versus.survey import Question
from suites.meta import versus_study
from suites.meta.runs import PATIENCE_S, Run, Running, arguments, data, interrupt, limits, model, run, traced, until
from suites.meta.versus_study import Recorded, replay
from suites.meta.wrappers import other_side, script
from targets.api import UserError

TEST = "suites/performance/test_versus.py"
LAPS = [1.0, 2.0, 4.0] * 20


def noisy(slowdown: float, deviation: float, count: int, seed: int) -> list[float]:
    """Log ratios of rounds about a true slowdown."""
    drawn = np.random.default_rng(seed).normal(math.log1p(slowdown), deviation, count)
    return [float(each) for each in drawn]


@given(st.floats(-0.5, 1.0), st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_a_round_tells_the_ratio_of_like_work(share: float, seed: int) -> None:
    """The ratio of a round is that of laps that did the same work, whatever the mix of their lengths."""
    ours = np.random.default_rng(seed).uniform(1, 50, 99)
    assert Round(ours.tolist(), (ours * (1 + share)).tolist()).log_ratio == pytest.approx(math.log1p(share), abs=1e-9)


def test_disturbed_laps_do_not_count() -> None:
    """Pairs in which a side lost its core are left out, as long as enough are left and both lost it alike."""
    trouble = [False] * 36 + [True] * 24
    theirs = [lap * (3 if bad else 1.1) for lap, bad in zip(LAPS, trouble, strict=True)]
    assert Round(LAPS, theirs, trouble, trouble).log_ratio == pytest.approx(math.log(1.1))
    few = [False] * 12 + [True] * 48
    assert Round(LAPS, [lap * (3 if bad else 1) for lap, bad in zip(LAPS, few, strict=True)], few, few).log_ratio > 1


def test_a_side_that_disturbs_itself_is_slow() -> None:
    """Where one side alone loses its cores, it does so by its own doing, and its disturbed laps count."""
    trouble = [False] * 24 + [True] * 36
    theirs = [lap * (3 if bad else 1) for lap, bad in zip(LAPS, trouble, strict=True)]
    assert Round(LAPS, theirs, [False] * 60, trouble).log_ratio == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        ((0.0, -0.01, 0.01), Answer.NOT_SLOWER),
        ((0.05, 0.04, 0.06), Answer.SLOWER),
        ((0.05, -0.01, 0.11), Answer.UNDECIDED),
        ((0.0, -0.1, 0.1), Answer.UNDECIDED),
        ((0.02, 0.01, 0.03), Answer.NOT_SLOWER),
        ((0.03, 0.02, 0.04), Answer.SLOWER),
        ((-0.2, -0.3, -0.1), Answer.NOT_SLOWER),
    ],
)
def test_the_rule(found: tuple[float, float, float], answer: Answer) -> None:
    """Slower: no change lies below the interval and the ratio is past half the effect; not slower is the mirror."""
    assert decide(found, EFFECT) is answer


def test_looks_are_few_and_the_last_one_ends() -> None:
    """Between looks nothing is decided; rounds that differ too much are unclear at the last look, never green."""
    assert series([0.0, 0.001, -0.001, 0.0]) is Answer.NOT_SLOWER
    assert series([0.0, 0.001, -0.001, 0.0, 0.0]) is Answer.UNDECIDED
    wild = [0.3 * (-1) ** number for number in range(LOOKS[-1])]
    assert [series(wild[:count]) for count in LOOKS] == [Answer.UNDECIDED] * (len(LOOKS) - 1) + [Answer.UNCLEAR]


def test_a_round_that_went_astray_is_borne() -> None:
    """One round of eight that is three times as slow moves neither the ratio nor the verdict."""
    values = [*noisy(0, 0.004, 7, 3), math.log(3)]
    assert abs(centre(values)) < 0.01
    assert series(values) is Answer.NOT_SLOWER


def test_the_interval_covers() -> None:
    """Yuen's interval of the trimmed mean covers the truth as often as it says, on normal rounds."""
    for count in (6, 11, 20):
        found = [interval(noisy(0, 0.02, count, seed), 0.05) for seed in range(2000)]
        covered = statistics.mean(low <= 0 <= high for _, low, high in found)
        assert 0.93 <= covered <= 0.97, (count, covered)


def test_an_interval_needs_rounds() -> None:
    """One round has a ratio and no interval, and says so; none has neither."""
    assert estimate([math.log(1.2)]).value == pytest.approx(1.2)
    assert estimate([math.log(1.2)]).low is None
    assert estimate([]).value is None
    with pytest.raises(ValueError, match="an interval needs 2 rounds"):
        interval([0.1], 0.05)


@pytest.mark.parametrize("deviation", [0.01, 0.03])
@pytest.mark.parametrize(("slowdown", "least", "most"), [(0.0, 0.0, 0.01), (0.05, 0.95, 1.0), (0.1, 0.99, 1.0)])
def test_power_on_normal_rounds(deviation: float, slowdown: float, least: float, most: float) -> None:
    """With rounds that deviate by 1 to 3 %, false alarms are at most 1 % and 5 % slower is seen 95 times of 100."""
    rounds = tuple(Round([1.0], [math.exp(each)]) for each in noisy(0, deviation, 3000, 7))
    verdicts, _ = replay(Recorded("case", "latency_ms", rounds, 1.0), slowdown, draws=600)
    assert least <= verdicts[Answer.SLOWER.value] / 600 <= most


def test_red_needs_a_second_series() -> None:
    """A series that seems slower by chance is not red where the next one does not confirm it."""
    slow, same = noisy(0.05, 0.003, 6, 1), noisy(0, 0.003, 6, 2)
    assert series(slow) is Answer.SLOWER
    assert confirmed(slow, noisy(0.05, 0.003, 6, 3))
    assert not confirmed(slow, same)


def test_the_other_side_tells_why_not() -> None:
    """A case that the other side cannot run is skipped with a reason that names the interpreter and its own pip."""
    python, case = Path("/there/bin/python"), Case("sentiment", "embedded", "onnxruntime", "fp32")
    reason = "onnxruntime needs onnxruntime, which is not installed: pip install '.[onnxruntime]'"
    found = Opponent(detect(), Versus(python), Interpreter(python, {"numpy": "2"}, {case.id: reason}))
    told = found.why_not(case)
    assert told is not None
    assert told.startswith("in /there/bin/python: onnxruntime needs")
    assert "/there/bin/python -m pip install '.[onnxruntime]'" in told
    assert found.changed({"numpy": "1", "scipy": "1", "python": "3"}) == {
        "python": ("3", "none"),
        "numpy": ("1", "2"),
        "scipy": ("1", "none"),
    }


def lagging(folder: Path, lag: float, *more: str) -> list[str]:
    """The options of a comparison in which the other side takes `lag` times as long."""
    python = other_side(folder, LAG=str(lag))
    return [
        "--targets=suites.meta.lagging",
        "--optimization=lag",
        f"--model=sentiment={model(folder / 'tiny')}",
        f"--data=sentiment={data(folder / 'data.tsv')}",
        f"--thresholds={limits(folder / 'limits.yaml')}",
        f"--versus={python}",
        TEST,
        *more,
    ]


@pytest.fixture(scope="module")
def slower(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A comparison with another side that is half as slow again."""
    folder = tmp_path_factory.mktemp("slower")
    return run(folder / "build", *lagging(folder, 1.5))


def test_slower_there_is_red(slower: Run) -> None:
    """A case that is slower on the other side fails, with the ratio, its interval and how it was measured."""
    assert slower.code == 1, slower.output[-3000:]
    (case,) = [case for case in slower.results["cases"] if case["backend"] == "fake"]
    assert case["status"] == "failed"
    assert case["reason"].startswith("FAIL versus_ratio latency_ms = 1.")
    assert "rounds of fresh launches" in case["reason"]
    low, high = case["intervals"]["versus_ratio.latency_ms"]
    assert 1.2 < low <= case["metrics"]["versus_ratio.latency_ms"] <= high < 1.7
    assert case["metrics"]["versus_agreement"] == 1
    verdict = next(each for each in case["verdicts"] if each["metric"] == "versus_drop")
    assert (verdict["value"], verdict["verdict"]) == (0, "PASS")


def test_a_comparison_leaves_its_evidence(slower: Run) -> None:
    """Results hold the other environment's versions, each round's ratio and each launch's facts; the table is shown."""
    assert "python" in slower.results["environment_versus"]
    case = next(case for case in slower.results["cases"] if case["backend"] == "fake")
    evidence = case["evidence"]["versus"]
    assert len(evidence["rounds"]["latency_ms"]) == len(evidence["launches"]) >= 2 * LOOKS[0]
    assert all(pair[1]["load_s"] >= 0 for pair in evidence["launches"])
    assert "VERSUS  A: this environment and its models; B: " in slower.output
    assert [line for line in slower.output.splitlines() if "latency_ms" in line and line.endswith("FAIL")]
    assert "no version differs" in slower.output


def test_what_is_missing_there_is_skipped(slower: Run) -> None:
    """A backend that the other environment lacks is skipped there with the interpreter's name, and the rest runs."""
    (case,) = [case for case in slower.results["cases"] if case["backend"] == "partial"]
    assert case["status"] == "skipped"
    assert "python-there: partial needs partial_engine" in case["reason"]
    assert "python-there -m pip install partial-engine" in case["reason"]


def test_alike_is_green_and_tidy(tmp_path: Path) -> None:
    """The same environment on both sides is green; nothing is left of it."""
    running = Running(tmp_path / "build", *lagging(tmp_path, 1.0, "--backend=fake"))
    assert running.process.wait(PATIENCE_S) == 0, running.log.read_text()[-3000:]
    assert until(lambda: not running.kin())
    assert not list((tmp_path / "build" / "logs").glob("*.log"))


def test_a_named_backend_must_be_there(tmp_path: Path) -> None:
    """A backend asked for by name that the other interpreter lacks is refused in one sentence before anything runs."""
    found = run(tmp_path / "build", *lagging(tmp_path, 1.0, "--backend=partial"))
    assert found.code == pytest.ExitCode.USAGE_ERROR
    (error,) = found.errors
    assert "--versus in " in error
    assert "partial needs partial_engine" in error


def test_without_another_side_nothing_is_compared(tmp_path: Path) -> None:
    """Without --versus there is no comparison; asked for by its file, it says which option is missing."""
    found = run(tmp_path / "build", *arguments(tmp_path, "plain"), TEST)
    assert found.code == pytest.ExitCode.USAGE_ERROR
    assert found.errors == [f"ERROR: {TEST} needs another side: --versus PYTHON or --versus-model TASK=DIR"]


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a comparison ends both sides' hosts and servers."""
    trace = tmp_path / "trace"
    words = lagging(tmp_path, 1.0, "--backend=fake")
    running = Running(tmp_path / "build", *words, environment={"FAKE_TRACE": str(trace)})
    try:
        assert until(lambda: len(traced(trace)) >= 3)
        interrupt(running)
        assert running.process.wait(PATIENCE_S) == pytest.ExitCode.INTERRUPTED
        assert until(lambda: not running.kin()), running.kin()
    finally:
        running.end()


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--versus-model=sentiment", "should be --versus-model TASK=DIR_OR_GGUF"),
        ("--versus-model=sentimnt=x", "Did you mean 'sentiment'"),
        ("--versus-model=ner=x", "no case of ner is selected that can run here"),
        ("--versus-model=sentiment=/no/such.gguf", "no such file"),
        ("--versus=/no/such/python", "no such interpreter"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, option: str, sentence: str) -> None:
    """Another side that is not there is refused in one sentence before anything is measured."""
    found = run(tmp_path / "build", *arguments(tmp_path, "plain"), option, TEST)
    assert found.code == pytest.ExitCode.USAGE_ERROR
    (error,) = found.errors
    assert sentence in error


def test_an_interpreter_that_cannot_import_the_suite(tmp_path: Path) -> None:
    """An interpreter that has the packages and still cannot run the suite's code is refused with its last words."""
    python = script(tmp_path / "python", 'case "$1" in -c) echo glance 3 12;; *) echo "SyntaxError: no" >&2;; esac')
    with pytest.raises(UserError, match="it cannot import this suite: SyntaxError: no"):
        interpreter.meet(python, Question((), detect(), (), ()))


def test_the_study_reads_what_was_recorded(tmp_path: Path) -> None:
    """Recorded laps come back by case and metric, and slowing them down by a share moves the ratio by just that."""
    file = tmp_path / "laps.jsonl"
    line = '{"case": "c", "metric": "latency_ms", "seconds": 0.5, "ours": [1, 2], "theirs": [1, 2]}\n'
    file.write_text(line * 3)
    (found,) = versus_study.read(file)
    assert (found.case, found.metric, len(found.rounds), found.seconds) == ("c", "latency_ms", 3, 0.5)
    assert versus_study.slowed(found.rounds[0], 0.1).log_ratio == pytest.approx(math.log(1.1))


def test_the_study_sums_up_its_cases() -> None:
    """The last rows count the decisions of all cases together, at each slowdown."""
    calm, restless = np.random.default_rng(1), np.random.default_rng(2)
    recorded = [
        Recorded(name, "latency_ms", tuple(Round([1.0], [math.exp(source.normal(0, spread))]) for _ in range(24)), 0.5)
        for name, source, spread in (("calm", calm, 0.005), ("restless", restless, 0.2))
    ]
    rows = versus_study.report(recorded).splitlines()
    alone = [[line.split()[:2] for line in rows[first : first + 5]] for first in (2, 8)]
    together = [line.split()[:2] for line in rows[rows.index("all") + 1 :][:5]]
    assert [share for share, _ in together] == ["0%", "2%", "5%", "10%", "20%"]
    shares = [[float(red.rstrip("%")) for _, red in table] for table in (*alone, together)]
    assert shares[0][2:] == [100, 100, 100]
    assert shares[1][2] < 50
    assert shares[2] == pytest.approx([(one + other) / 2 for one, other in zip(*shares[:2], strict=True)], abs=0.11)
