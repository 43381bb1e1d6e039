from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from fixtures.cases import Case
from fixtures.fleet.role import Role, place, specs
from suites.meta.runs import Run, Running, arguments, data, held_at, interrupt, let_go, model, run, traced, until

pytest.importorskip("xdist", reason="pytest-xdist is not installed: pip install '.[parallel]'")

MODELS = ("small", "third", "tiny")
QUICK = ("suites/accuracy/test_accuracy.py::test_score", "suites/conformance/test_any_target.py::test_determinism")
NO_REPORT = "-pno:allure_pytest"  # drawing charts takes longer than all else


def ready(folder: Path, *techniques: str, models: tuple[str, ...] = MODELS) -> list[str]:
    """The options of a run over several models of the fake engine."""
    words = arguments(folder, *techniques)
    for name in models:
        model(folder / name)
    return [*words, "--targets=suites.meta.two_models"]


def loads(trace: Path) -> list[tuple[str, int]]:
    """(model, worker) of every load."""
    return [(name, int(pid)) for name, pid in (line.split() for line in trace.read_text().splitlines())]


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three models and three techniques over two workers, one technique of which crashes its host."""
    folder = tmp_path_factory.mktemp("spread")
    words = ready(folder, "plain", "twin", "segfault")
    return run(folder / "build", *words, *QUICK, "-n=2", environment={"MODELS_TRACE": str(folder / "trace")})


def test_a_model_is_loaded_by_one_worker(spread: Run) -> None:
    """All cases of a model run in the same worker, and the workers share the models."""
    workers = {name: {pid for found, pid in loads(spread.build.parent / "trace") if found == name} for name in MODELS}
    assert {name: len(pids) for name, pids in workers.items()} == dict.fromkeys(MODELS, 1)
    assert len(set().union(*workers.values())) == 2
    told = spread.results["run"]["workers"]
    assert sorted(name for names in told.values() for name in names) == [f"sentiment/{name}" for name in MODELS]


def test_the_records_come_out_whole(spread: Run) -> None:
    """Results, journal and answers of a spread run hold every case and answer once, in the order of the cases."""
    ids = [f"sentiment/{name}/fake/{technique}" for name in MODELS for technique in ("plain", "segfault", "twin")]
    found = {case["id"]: case for case in spread.results["cases"]}
    assert list(found) == ids
    assert spread.code == 1
    assert {case["id"] for case in found.values() if case["status"] != "passed"} == set(ids[1::3])
    header, *lines = spread.lines("journal.jsonl")
    assert header["key"]["options"]["left_out"] == ["performance", "soak"]
    assert sorted(line["id"] for line in lines) == sorted(ids)
    assert {line["id"]: line for line in lines} == found
    answers = [(line["case"], line["example"]) for line in spread.lines("answers.jsonl")]
    assert len(answers) == len(set(answers)) == 6 * 40


def test_the_report_comes_out_whole(spread: Run) -> None:
    """Allure has one result for each check, whichever worker ran it, and the run's facts."""
    folder = spread.build / "allure-results"
    tests = [json.loads(path.read_text()) for path in folder.glob("*-result.json")]
    assert len(tests) == len({test["historyId"] for test in tests}) == 9 * len(QUICK)
    assert (folder / "environment.properties").exists()


def test_progress_is_told_by_the_controller(spread: Run) -> None:
    """A line a case as it ends, and the header says how the run is spread."""
    assert "workers: 2, a model's cases on one of them" in spread.output
    assert spread.output.count("/9] sentiment/") == 9
    assert "Benchmarks are automatically disabled" not in spread.output


def test_performance_is_left_out_aloud(tmp_path: Path) -> None:
    """What is timed does not run beside other workers: its tests are deselected, and a sentence says how many."""
    words = ready(tmp_path, "plain", models=())
    timed = "suites/performance/test_performance.py::test_load"
    found = run(tmp_path / "build", *words, NO_REPORT, timed, QUICK[0], "-n=2")
    assert found.code == 0, found.output
    assert "not run in parallel: 1 tests of performance: this needs the machine for itself" in found.output
    assert list(found.cases["plain"]["checks"]) == ["accuracy/test_accuracy.py::test_score"]


def test_performance_alone_is_refused(tmp_path: Path) -> None:
    """Asked to time in parallel and nothing else, the run is refused in one sentence that says what to do."""
    words = ready(tmp_path, "plain", models=())
    found = run(tmp_path / "build", *words, NO_REPORT, "suites/performance/test_performance.py::test_load", "-n=2")
    assert found.code == pytest.ExitCode.USAGE_ERROR
    (error,) = found.errors
    assert "only 1 tests of performance were asked for" in error
    assert "leave -n" in error


def test_workers_elsewhere_are_refused(tmp_path: Path) -> None:
    """Workers on other machines cannot share the cases of a run: one sentence names the way to run a fleet."""
    found = run(tmp_path / "build", *ready(tmp_path, "plain", models=()), "--dist=load", "--tx=ssh=nobody@nowhere")
    assert found.code == pytest.ExitCode.USAGE_ERROR
    (error,) = found.errors
    assert "add --dist each" in error


def under_way(folder: Path, last: str, *words: str) -> Running:
    """A run of two models over two workers, on its way to the technique `last`."""
    asked = ready(folder, "plain", last, models=("small",))
    data(folder / "data.tsv", 400)
    there = {**held_at(folder / "fake", "triplet"), "MODELS_TRACE": str(folder / "trace")}
    return Running(folder / "build", *asked, *QUICK, NO_REPORT, "-n=2", *words, environment=there)


def hanging(folder: Path) -> Running:
    """Such a run when both workers wait for a target that never answers."""
    running = under_way(folder, "hang")
    assert until(lambda: [name for name, _ in traced(folder / "fake")].count("hang") == 2)
    return running


def test_ctrl_c_keeps_what_has_ended(tmp_path: Path) -> None:
    """After Ctrl-C ended cases are kept, those under way are marked and run by --resume, and no process is left."""
    running = hanging(tmp_path)
    interrupt(running)
    found = running.wait()
    assert found.code == pytest.ExitCode.INTERRUPTED, found.output
    assert [(case["id"], case["status"]) for case in found.results["cases"]] == [
        ("sentiment/small/fake/plain", "passed"),
        ("sentiment/small/fake/hang", "interrupted"),
        ("sentiment/tiny/fake/plain", "passed"),
        ("sentiment/tiny/fake/hang", "interrupted"),
    ]
    assert until(lambda: not running.kin()), running.kin()
    again = under_way(tmp_path, "hang", "--resume", "--call-timeout=1").wait()
    assert again.code == 1, again.output
    assert "resumed: 2 finished cases are kept, 2 are left" in again.output
    assert [case["status"] for case in again.results["cases"]] == ["passed", "crashed"] * 2
    assert len(again.lines("answers.jsonl")) == 2 * 400


def test_a_killed_worker_costs_its_case_only(tmp_path: Path) -> None:
    """After kill -9 on a worker its case is red and says why, all others are whole, and --resume would run it."""
    running = under_way(tmp_path, "triplet")
    assert until(lambda: "triplet" in dict(traced(tmp_path / "fake", "busy")))
    host = dict(traced(tmp_path / "fake", "busy"))["triplet"]
    models = {pid: name for name, pid in loads(tmp_path / "trace")}
    victim = next(process.pid for process in psutil.Process(host).parents() if process.pid in models)
    os.kill(victim, signal.SIGKILL)
    let_go(tmp_path / "fake")
    found = running.wait()
    assert found.code == 1, found.output
    cases = {case["id"]: case for case in found.results["cases"]}
    cut = cases.pop(f"sentiment/{models[victim]}/fake/triplet")
    assert cut["status"] == "interrupted"
    assert cut["reason"].startswith("worker gw")
    assert "died in accuracy/test_accuracy.py::test_score; --resume runs it" in cut["reason"]
    assert [case["status"] for case in cases.values()] == ["passed"] * 3
    assert sorted(line["id"] for line in found.lines("journal.jsonl")[1:]) == sorted(cases)


def test_a_killed_controller_leaves_no_process(tmp_path: Path) -> None:
    """After kill -9 on the controller no worker and no host is left."""
    running = hanging(tmp_path)
    assert len(running.kin()) >= 7  # controller, two workers, their fork servers, hosts
    running.process.kill()
    assert until(lambda: not running.kin()), running.kin()
    running.end()


def test_groups_follow_the_case_in_the_test_id() -> None:
    """A test belongs to the model of its case, wherever the case stands among the parameters of the test."""
    from fixtures.fleet import spread as spreading

    cases = [Case("ner", name, "fake", "int8") for name in ("a", "a-b")]
    find = spreading.finder(cases)
    assert find("x.py::test[ner/a-b/fake/int8]") == cases[1]
    assert find("x.py::test[True-ner/a-b/fake/int8-3]") == cases[1]
    assert find("x.py::test[ner/a/fake/int8-3]") == cases[0]
    assert find("x.py::test[other]") is None
    assert find("x.py::test") is None


def test_specifications_of_workers() -> None:
    """`3*popen` are three workers here; what is reached by ssh is a place of its own."""
    assert specs(["2*popen", "ssh=nano//python=python3"]) == ["popen", "popen", "ssh=nano//python=python3"]
    assert place("popen//python=/opt/python") == place("popen") == "this machine"
    assert place("ssh=nano//chdir=x") == "ssh=nano"


def test_a_worker_gets_its_role_as_it_was_sent() -> None:
    """A role survives its way to the worker, and a board writes to a folder of its own."""
    sent = Role("worker", "each", "gw1", 2, '[{"id": "a"}]')
    assert Role(**json.loads(sent.given())) == sent
    assert sent.folder(Path("build")) == Path("build/gw1")
    assert Role("worker", "spread", "gw1").folder(Path("build")) == Path("build")
