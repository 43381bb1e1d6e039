from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fixtures import report
from suites.meta.sample_records import results

ROOT = Path(__file__).resolve().parents[2]
CONFTEST = """
import pytest
from pathlib import Path
from fixtures import report
from suites.meta.sample_records import record, results

CASES = [record("huggingface", "fp32"), record("onnxruntime", "int8-dynamic")]

def pytest_generate_tests(metafunc):
    metafunc.parametrize("case", CASES, ids=lambda case: case.id)

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    try:
        return (yield)
    finally:
        report.describe_case(item.callspec.params["case"], device="cpu", nodeid=item.nodeid,
                             law=item.function.__doc__, links={"limits": "https://example.org/limits"})

def pytest_sessionfinish(session):
    report.attach_to_run("record of results", "a table")
    if folder := session.config.option.allure_report_dir:
        report.write_environment(Path(folder), {"device": "cpu"})
        report.write_categories(Path(folder))
        report.write_metrics(Path(folder), results())
"""
TEST = '''
import pytest
from fixtures import charts, report
from fixtures.verdict import Outcome
from suites.meta.sample_records import LAPS, verdict

def test_latency_limit(case):
    """The 95th percentile stays within the limit."""
    for outcome in Outcome:
        report.verdict_step(verdict("latency_ms", outcome, 3.0))
    report.attach_json("metrics", {"p95": 3.0, "lost": float("nan")})
    report.attach_png("histogram", charts.latency_histogram(LAPS, "t"))
    report.attach_text("log", "last words")
    if case.backend == "onnxruntime":
        pytest.fail(str(verdict("latency_ms", Outcome.FAIL, 3.0)), pytrace=False)

def test_skipped(case):
    """A law that does not apply here."""
    pytest.skip("not on this device")
'''


def _run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "suites" / "performance").mkdir(parents=True)
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "suites" / "performance" / "test_one.py").write_text(TEST)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        "-W",
        "error",
        *options,
    ]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Allure results of a small run."""
    folder = tmp_path_factory.mktemp("run")
    done = _run(folder, "--alluredir", "allure")
    assert "1 failed, 1 passed, 2 skipped" in done.stdout, done.stdout + done.stderr
    return folder / "allure"


@pytest.fixture(scope="module")
def tests(written: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(written.glob("*-result.json"))]


def _one(tests: list[dict[str, Any]], start: str, backend: str = "huggingface") -> dict[str, Any]:
    return next(test for test in tests if test["name"].startswith(start) and backend in test["name"])


def test_without_alluredir_nothing_happens(tmp_path: Path) -> None:
    """The same run without `--alluredir` has the same outcomes and writes nothing."""
    done = _run(tmp_path)
    assert "1 failed, 1 passed, 2 skipped" in done.stdout, done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conftest.py", "pytest.ini", "suites"]


def test_labels_file_the_case(tests: list[dict[str, Any]]) -> None:
    """A test stands under its task, backend, suite and device, with the optimization as tag."""
    labels = {(label["name"], label["value"]) for label in _one(tests, "latency limit")["labels"]}
    assert labels >= {
        ("feature", "sentiment"),
        ("story", "huggingface"),
        ("epic", "performance"),
        ("suite", "performance"),
        ("parentSuite", "cpu"),
        ("subSuite", "sentiment / embedded"),
        ("tag", "fp32"),
    }


def test_title_description_and_link(tests: list[dict[str, Any]]) -> None:
    """The title names check and case, the description is the law, and links are kept."""
    test = _one(tests, "latency limit")
    assert test["name"] == "latency limit: sentiment / embedded / huggingface / fp32"
    assert test["description"] == "The 95th percentile stays within the limit."
    assert [(link["name"], link["url"]) for link in test["links"]] == [("limits", "https://example.org/limits")]


def test_skipped_tests_are_described_too(tests: list[dict[str, Any]]) -> None:
    """A skipped test has its title, law and reason."""
    test = _one(tests, "skipped")
    assert (test["status"], test["description"]) == ("skipped", "A law that does not apply here.")
    assert "not on this device" in test["statusDetails"]["message"]


def test_hidden_parameter_keeps_histories_apart(tests: list[dict[str, Any]]) -> None:
    """Each test has a hidden parameter of node id and device, and a history id of its own."""
    for test in tests:
        hidden = [each for each in test["parameters"] if each["name"] == "case_id"]
        assert len(hidden) == 1
        assert hidden[0]["mode"] == "hidden"
        assert re.fullmatch(r"'suites/performance/test_one\.py::test_\w+\[.+\]@cpu'", hidden[0]["value"])
    assert len({test["historyId"] for test in tests}) == len(tests) == 4


def test_each_verdict_is_a_step(tests: list[dict[str, Any]]) -> None:
    """A step carries the verdict's sentence and status, and a failed step does not fail the test."""
    test = _one(tests, "latency limit")
    assert test["status"] == "passed"
    assert {step["name"].split()[0]: step["status"] for step in test["steps"]} == {
        "PASS": "passed",
        "FAIL": "failed",
        "INVALID": "broken",
        "INCONCLUSIVE": "skipped",
        "UNBOUNDED": "skipped",
    }
    assert all("latency_ms" in step["name"] for step in test["steps"])


def test_attachments_are_whole(written: Path, tests: list[dict[str, Any]]) -> None:
    """JSON, picture and text are attached with their types; a NaN is null."""
    kept = {each["name"]: each for each in _one(tests, "latency limit")["attachments"]}
    assert {name: each["type"] for name, each in kept.items()} == {
        "metrics": "application/json",
        "histogram": "image/png",
        "log": "text/plain",
    }
    assert json.loads((written / kept["metrics"]["source"]).read_text()) == {"p95": 3.0, "lost": None}
    assert (written / kept["histogram"]["source"]).read_bytes().startswith(b"\x89PNG")
    assert (written / kept["log"]["source"]).read_text() == "last words"


def test_run_attachments_are_global(written: Path) -> None:
    """What belongs to the run as a whole is a global attachment."""
    found = [json.loads(path.read_text()) for path in written.glob("*-globals.json")]
    assert [each["name"] for one in found for each in one["attachments"]] == ["record of results"]


def test_metrics_are_those_that_can_be_trusted(written: Path) -> None:
    """The Metrics section holds numbers by case with unit and direction, and none that is INVALID."""
    rows = json.loads((written / "performance.json").read_text())
    latency = {row["id"]: row for row in rows if row["key"] == "sentiment latency_ms.p50"}
    assert latency["sentiment/embedded/onnxruntime/int8-dynamic"]["value"] == 2.0
    assert "sentiment/embedded/huggingface/torchscript" not in latency
    told = {row["title"]: (row["unit"], row["better"]) for row in rows}
    assert told["latency_ms.p50"] == ("ms", "lower")
    assert told["throughput_per_s.batch8"] == ("/s", "higher")
    assert told["peak_memory_mb"] == ("MB", "lower")
    assert told["accuracy"] == ("", "higher")


def test_active_knows(written: Path) -> None:
    """Inside a process without `--alluredir` the report knows that it is off."""
    code = "from fixtures import report; assert not report.active()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert (written / "environment.properties").exists()


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"device": "cpu", "power mode": None}, "device=cpu\n"),
        ({"cpu model": "a=b: c"}, "cpu\\ model=a\\=b\\:\\ c\n"),
        ({"path": "C:\\x\ny"}, "path=C\\:\\\\x\\ny\n"),
        ({"cores": 4, "#x": "!y"}, "cores=4\n\\#x=\\!y\n"),
    ],
)
def test_environment_is_escaped(tmp_path: Path, facts: dict[str, Any], text: str) -> None:
    """Separators, comment signs, backslashes and line breaks survive in environment.properties; None is left out."""
    report.write_environment(tmp_path, facts)
    assert (tmp_path / "environment.properties").read_text() == text


def _category(tmp_path: Path, message: str, status: str) -> str:
    report.write_categories(tmp_path)
    rules = json.loads((tmp_path / "categories.json").read_text())
    fits = [
        rule["name"]
        for rule in rules
        if status in rule["matchedStatuses"] and re.fullmatch(rule["messageRegex"], message)
    ]
    return str(fits[0]) if fits else "none"


@pytest.mark.parametrize(
    ("message", "status", "category"),
    [
        ("Failed: FAIL latency_ms p95 = 12.3 ms, should be <= 10 ms", "failed", "Limit missed"),
        ("Failed: FAIL accuracy mean = 0.91, should be >= 0.95", "failed", "Accuracy"),
        ("AssertionError: FAIL exact_match mean = 0.5", "failed", "Accuracy"),
        ("Failed: INVALID latency_ms p95: the device throttled", "failed", "Invalid measurement"),
        ("fixtures.host.HostDied: host died: signal SIGSEGV; last lines:\n  x", "broken", "Crashed"),
        ("Failed: host died: exit code 3; memory last seen 12 MB", "failed", "Crashed"),
        ("out of memory: the kernel ended the host (SIGKILL)", "failed", "Out of memory"),
        ("hang: no answer within 30 s, so the host was ended", "broken", "Hang"),
        ("Failed: INCONCLUSIVE latency_ms p95 = 9.9", "failed", "Inconclusive"),
        ("Skipped: CPU does not compute fp16 natively", "skipped", "Not available here"),
        ("AssertionError: got 3, should be 4", "failed", "none"),
        ("FAIL latency_ms", "passed", "none"),
    ],
)
def test_categories_sort_messages(tmp_path: Path, message: str, status: str, category: str) -> None:
    """Each kind of failure falls in its own category by the words its sentence begins with."""
    assert _category(tmp_path, message, status) == category


def test_no_report_without_the_tool(written: Path, tmp_path: Path) -> None:
    """Without the Node package there is no report, no exception, and one line that says how to get it."""
    page, reason = report.generate(written, tmp_path / "report", root=tmp_path)
    assert page is None
    assert "npm ci" in reason
    assert len(reason.splitlines()) == 1


def test_main_says_why_there_is_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m fixtures.report` ends with 1 and one line where there is nothing to show, with 2 on wrong usage."""
    assert report.main([str(tmp_path), str(tmp_path / "report")]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert report.main([]) == 2


def test_lock_file_names_no_host() -> None:
    """The lock file pins every package by hash, the report tool by version, and names no place to download from."""
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert not [name for name, package in locked.items() if "resolved" in package]
    assert all("integrity" in package for name, package in locked.items() if name)
    wanted = json.loads((ROOT / "package.json").read_text())["devDependencies"]["allure"]
    assert locked["node_modules/allure"]["version"] == wanted


def _needs_allure() -> None:
    if shutil.which("node") is None or not (ROOT / "node_modules" / ".bin" / "allure").exists():
        pytest.skip(report.HOW_TO_GET)


def test_report_is_one_file(written: Path, tmp_path: Path) -> None:
    """The generated page holds everything in itself, calls nobody, bears the name given, and history is kept."""
    _needs_allure()
    results_dir = tmp_path / "allure-results"
    shutil.copytree(written, results_dir)
    page, reason = report.generate(results_dir, tmp_path / "report", "Edge NLP on cpu")
    assert reason == ""
    assert page == tmp_path / "report" / "index.html"
    text = page.read_text(encoding="utf-8")
    assert "Edge NLP on cpu" in text
    assert not re.findall(r'<(?:script|link)[^>]+(?:src|href)="https?:', text)
    assert "googletagmanager" not in text
    assert "gtag(" not in text
    assert (tmp_path / "history.jsonl").exists()


def test_generate_without_results_says_so(tmp_path: Path) -> None:
    """A folder without test results gives no report, and the reason names it."""
    _needs_allure()
    page, reason = report.generate(tmp_path, tmp_path / "report")
    assert page is None
    assert str(tmp_path) in reason


def test_sample_covers_every_status() -> None:
    """The records these tests stand on hold passed, failed, crashed and skipped cases."""
    assert {case.status for case in results().cases} == {"passed", "failed", "crashed", "skipped"}
