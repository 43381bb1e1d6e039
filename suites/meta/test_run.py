from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest

from fixtures.finish import exit_status
from fixtures.results import Results
from suites.meta.runs import Run, Running, arguments, data, held_at, let_go, limits, run, traced, until
from suites.meta.sample_records import record, results

RIGHT, WRONG = 30, 10
LIMITS = """\
    - cases: "sentiment/tiny/fake/*"
      source: "made up: the fake engine gets 30 of 40 right"
      accuracy: {min: 0.9}
      load_s: {max: 30}
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole run, every suite, of a target that is too often wrong for its limit."""
    folder = tmp_path_factory.mktemp("run")
    words = arguments(folder, "plain", "unavailable")
    data(folder / "data.tsv", RIGHT, WRONG)
    limits(folder / "limits.yaml", LIMITS)
    return run(folder / "build", *words)


def test_a_missed_limit_is_red(found: Run) -> None:
    """One missed limit fails its case and the run, and the message says got, should be, and how measured."""
    assert found.code == 1
    case = found.cases["plain"]
    assert case["status"] == "failed"
    assert [verdict["metric"] for verdict in case["verdicts"] if verdict["verdict"] == "FAIL"] == ["accuracy"]
    assert "0.75" in case["reason"]
    assert "0.9" in case["reason"]
    assert f"{RIGHT + WRONG} examples" in case["reason"]


def test_results_hold_the_run(found: Run) -> None:
    """results.json says what ran on what, with which versions and options, and reads back as it was written."""
    content = found.results
    assert content["schema"] == 1
    assert set(content) == {"schema", "device", "environment", "options", "run", "cases"}
    assert content["device"]["detected"] is True
    assert {"python", "numpy", "pytest"} <= set(content["environment"])
    assert content["options"]["backends"] == ["fake"]
    assert content["run"]["duration_s"] > 0
    assert Results.read(found.build / "results.json").as_json() == content


def test_a_case_holds_its_evidence(found: Run) -> None:
    """A record has its four names, metrics with units, raw samples, verdicts with limits, checks and evidence."""
    case = found.cases["plain"]
    assert case["id"] == "/".join(case[name] for name in ("task", "model", "backend", "optimization"))
    assert case["evidence"]["requested"] == case["evidence"]["actual"] == {"engine": "fake"}
    assert set(case["evidence"]["laps"]["latency_ms"]) == {"drift", "modes"}
    measured = {"load_s", "first_call_ms", "latency_ms.p50", "latency_ms.p95", "throughput_per_s.best"}
    assert measured | {"peak_memory_mb", "model_size_mb", "accuracy", "f1"} <= set(case["metrics"])
    assert all(value >= 0 for value in case["metrics"].values())
    verdicts = {verdict["metric"]: verdict for verdict in case["verdicts"]}
    assert (verdicts["load_s"]["verdict"], verdicts["load_s"]["limit"]) == ("PASS", 30)
    assert verdicts["latency_ms"]["verdict"] == "UNBOUNDED"


def test_statistics_are_those_of_the_samples(found: Run) -> None:
    """What is reported of latency follows from the raw laps beside it."""
    case = found.cases["plain"]
    laps = case["samples"]["latency_ms"]
    assert len(laps) >= 90
    assert case["metrics"]["latency_ms.p50"] == pytest.approx(statistics.median_low(laps), abs=1e-4)
    low, high = case["intervals"]["latency_ms.p50"]
    assert low <= case["metrics"]["latency_ms.p50"] <= high


def test_accuracy_follows_from_the_answers(found: Run) -> None:
    """The accuracy recomputed from answers.jsonl, and from the data file by hand, is the one reported."""
    answers = found.lines("answers.jsonl")
    assert {line["case"] for line in answers} == {found.cases["plain"]["id"]}
    by_hand = sum(line["output"]["label"] == line["reference"] for line in answers) / len(answers)
    by_score = sum(line["score"]["accuracy"] for line in answers) / len(answers)
    assert by_hand == by_score == found.cases["plain"]["metrics"]["accuracy"] == RIGHT / (RIGHT + WRONG)
    with (found.build.parent / "data.tsv").open() as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file, delimiter="\t")]
    assert [(line["input"]["text"], line["reference"]) for line in answers] == rows


def test_the_journal_holds_every_case(found: Run) -> None:
    """The journal has its header and a line for each finished case, the same records as the results."""
    header, *lines = found.lines("journal.jsonl")
    assert header["schema"] == 1
    assert header["key"]["options"]["backends"] == ["fake"]
    assert lines == found.results["cases"]


def test_the_report_has_every_test(found: Run) -> None:
    """Allure gets one result a test, filed under task, backend and suite, with the law as its description."""
    tests = [json.loads(path.read_text()) for path in (found.build / "allure-results").glob("*-result.json")]
    checks = [name for case in found.results["cases"] for name in case["checks"]]
    assert len(tests) >= len(checks) > 30
    (score,) = [test for test in tests if test["status"] == "failed"]
    labels = {label["name"]: label["value"] for label in score["labels"]}
    assert (labels["feature"], labels["story"]) == ("sentiment", "fake")
    assert "Every score of the task on labelled data reaches its limit." in score["description"]
    assert "FAIL accuracy" in score["statusDetails"]["message"]
    assert (found.build / "allure-results" / "environment.properties").exists()
    assert (found.build / "allure-results" / "categories.json").exists()


def test_the_terminal_tells_the_result(found: Run) -> None:
    """The record of results, the counts, and where everything is, stand at the end; a line a case as it ends."""
    assert "RECORD OF RESULTS  sentiment / tiny" in found.output
    assert "[1/2] sentiment/tiny/fake/plain" in found.output
    assert "[2/2] sentiment/tiny/fake/unavailable" in found.output
    assert "cases: 2: 1 failed, 1 skipped" in found.output
    assert "/answers.jsonl" in found.output


def test_a_run_tidies_up(found: Run) -> None:
    """The logs of hosts that ended well are gone, and nobody holds the folder."""
    assert not list((found.build / "logs").glob("host-*.log"))
    assert (found.build / ".lock").read_text() == ""


def test_pytest_benchmark_has_the_laps(found: Run) -> None:
    """pytest-benchmark's own file holds the laps that the record holds, so that its tools can compare runs."""
    (file,) = (found.build / "benchmarks").rglob("*.json")
    (benchmark,) = json.loads(file.read_text())["benchmarks"]
    assert benchmark["extra_info"]["case"] == found.cases["plain"]["id"]
    laps = found.cases["plain"]["samples"]["latency_ms"]
    assert benchmark["stats"]["rounds"] == len(laps)
    assert benchmark["stats"]["median"] * 1e3 == pytest.approx(statistics.median(laps), abs=1e-3)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run, Path]:
    """A run in which a second one was started in the same folder: the first, the second, the folder."""
    folder = tmp_path_factory.mktemp("twice")
    words = [*arguments(folder, "triplet"), "suites/accuracy/test_accuracy.py::test_score"]
    first = Running(folder / "build", *words, environment=held_at(folder / "trace", "triplet"))
    assert until(lambda: bool(traced(folder / "trace")))
    second = run(folder / "second", *words, f"--build={folder / 'build'}")
    let_go(folder / "trace")
    return first.wait(), second, folder


def test_two_runs_in_one_folder(held: tuple[Run, Run, Path]) -> None:
    """A second run in the same folder is refused in one sentence with the holder's process, and the first goes on."""
    first, second, _ = held
    assert second.code == pytest.ExitCode.USAGE_ERROR
    (error,) = second.errors
    assert "another run (process " in error
    assert "Traceback" not in second.output
    assert first.code == 0
    assert first.cases["triplet"]["status"] == "passed"
    assert len(list((first.build / "allure-results").glob("*-result.json"))) == 1


def test_a_run_of_skips_is_not_green(tmp_path: Path) -> None:
    """Where every case was skipped nothing was proved: the run is red, and a sentence says so."""
    words = [*arguments(tmp_path, "unavailable"), "-pno:allure_pytest"]
    found = run(tmp_path / "build", *words, "suites/performance/test_performance.py::test_load")
    assert found.code == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "nothing ran: every case was skipped, and a gate must not be green because of that" in found.output


@pytest.mark.parametrize(
    ("statuses", "before", "after"),
    [
        (("passed", "skipped"), 0, 0),
        (("passed", "passed"), 5, 0),  # resumed, and nothing was left to run
        (("passed", "failed"), 0, 1),
        (("passed", "crashed"), 5, 1),
        (("passed", "interrupted"), 0, 1),
        (("skipped", "skipped"), 0, 5),
        ((), 0, 5),
        (("passed", "passed"), 2, 2),
        (("passed", "failed"), 3, 3),
    ],
)
def test_the_exit_code_cannot_lie(statuses: tuple[str, ...], before: int, after: int) -> None:
    """Green needs a case that passed and none that is red; pytest's own troubles keep their code."""
    known = results()
    known.cases = [record("fake", f"t{number}", status=status) for number, status in enumerate(statuses)]
    assert exit_status(known, before) == after


@pytest.mark.parametrize("narrow", [True, False])
def test_comparisons_need_no_room_for_two(tmp_path: Path, narrow: bool) -> None:
    """Where memory holds one target only, it is compared with the reference all the same, and the record says how."""
    words = [*arguments(tmp_path, "plain", "twin"), *(["--targets=suites.meta.narrow"] if narrow else [])]
    found = run(tmp_path / "build", *words, "-k", "speedup or agreement or logits or drop")
    assert found.code == 0, found.output[-2000:]
    twin = found.cases["twin"]
    assert (twin["metrics"]["agreement"], twin["metrics"]["logit_difference"], twin["metrics"]["drop"]) == (1, 0, 0)
    assert twin["metrics"]["speedup"] > 0
    how = "back to back" if narrow else "in turns"
    assert [note for note in twin["notes"] if note.startswith(f"speed-up {how} with")], twin["notes"]
