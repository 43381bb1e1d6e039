"""The serving suite as a user starts it, against a stand-in that runs elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.serving.load import INSTALL, LOCUSTFILE, free_port, installed
from fixtures.serving.rubric import NO_GRADE
from suites.meta.runs import ROOT, Run, run
from suites.meta.serving_double import double

pytestmark = pytest.mark.skipif(not installed(), reason=f"locust is not installed: {INSTALL}")
TRIES = 4
"""A client that lacks time voids a load; what else the machine does is no fault of the suite."""
LOAD = "suites/serving/test_load.py::test_load"


def loaded(tmp_path: Path, url: str, *arguments: str) -> Run:
    return run(tmp_path / "build", f"--url={url}", *arguments, LOAD)


@pytest.mark.alone
def test_a_load_on_a_server_elsewhere(tmp_path: Path) -> None:
    """The acceptance line: table, grade, JSON and verdicts of a server that was started elsewhere."""
    output = tmp_path / "out" / "load.json"
    asked = ("--endpoint=sentiment", "--concurrent=4", "--requests=200", f"--output={output}")
    with double("queue", 2.0) as url:
        for _ in range(TRIES):
            found = loaded(tmp_path, url, *asked)
            (load,) = json.loads(output.read_text())["loads"]
            if load["invalid"] is None:
                break
    grade, outcome = ("excellent", "PASS") if load["invalid"] is None else (NO_GRADE, "INVALID")
    assert found.code == 0, found.output
    assert "closed loop, 4 connections" in found.output
    assert grade in found.output
    assert (load["endpoint"], load["requests"], load["grade"]) == ("sentiment", 200, grade)
    assert load["success_rate"]["value"] == 1.0
    assert 100 < load["requests_per_s"]["value"] <= 1.05 * 500, "one server that takes 2 ms"
    assert load["latency_ms"]["p99"]["reason"] == "n=200; p99 needs 459"
    found_outcomes = {each["verdict"] for each in load["verdicts"] if each["metric"] != "success_rate"}
    assert found_outcomes <= {outcome, "INCONCLUSIVE"}, "others' bursts leave a percentile of 200 requests open"
    assert list((tmp_path / "build" / "allure-results").glob("*-attachment.png")), "plots over time"


@pytest.mark.alone
def test_a_slow_server_is_red(tmp_path: Path) -> None:
    """Below the least grade the load fails, with its verdicts and their source."""
    with double("queue", 80.0) as url:
        found = loaded(tmp_path, url, "--endpoint=sentiment", "--concurrent=4", "--requests=100")
    assert found.code == 1, found.output
    assert "FAIL latency_ms p95" in found.output
    assert "FAIL requests_per_s" in found.output
    assert "below satisfactory" in found.output


def test_steps_have_a_knee(tmp_path: Path) -> None:
    """`--concurrent 1,2,4` goes through the levels and names the knee."""
    with double("queue", 5.0) as url:
        found = loaded(tmp_path, url, "--endpoint=sentiment", "--concurrent=1,2,4", "--duration=3")
    assert "knee at" in found.output, found.output
    (load,) = json.loads((tmp_path / "build" / "serving.json").read_text())["loads"]
    assert [step["level"] for step in load["steps"]] == [1, 2, 4]


def test_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    """Asked for by name it is red; among all endpoints it is skipped, with its path."""
    with double("queue", 1.0) as url:
        named = loaded(tmp_path, url, "--endpoint=qa", "--requests=10")
        every = loaded(tmp_path, url, "--requests=10", "-rs")
    assert named.code == 1
    assert "/qa answered one request alone" in named.output
    assert every.output.count("has no /") >= 6


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--endpoint=sentimet", "--endpoint sentimet is unknown"),
        ("--rate=fast", "--rate fast: should be a number above 0"),
        ("--concurrent=2.5", "connections are whole"),
        ("--requests=0", "--requests 0: should be 1 or more"),
        ("--duration=0", "--duration 0: should be above 0"),
        ("--rate=5 --requests=9 --duration=2", "--rate with --requests lasts as long as these take"),
        ("--rate=5,9 --requests=9", "leave out --duration and steps"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, argument: str, told: str) -> None:
    """A mistyped option ends the run before anything starts."""
    found = loaded(tmp_path, "http://127.0.0.1:1", *argument.split())
    assert found.code == 4
    (line,) = found.errors
    assert told in line


@pytest.mark.alone
def test_a_worker_joins_from_elsewhere(tmp_path: Path) -> None:
    """`--remote-workers 1` waits for a worker that somebody starts by hand, and says how."""
    port = free_port()
    words = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--worker", "--master-port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        double("queue", 1.0) as url,
        subprocess.Popen(words, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL) as worker,
    ):
        asked = ("--workers=1", "--remote-workers=1", f"--master-port={port}", "--requests=50", "--concurrent=4")
        found = loaded(tmp_path, url, "--endpoint=sentiment", *asked)
        worker.terminate()
    assert f"--worker --master-host THIS_MACHINE --master-port {port}" in found.output, found.output
    (load,) = json.loads((tmp_path / "build" / "serving.json").read_text())["loads"]
    assert (load["requests"], len(load["clients"])) == (50, 2)


def test_remote_workers_need_a_server_that_they_can_reach(tmp_path: Path) -> None:
    """A server of our own listens on this machine alone."""
    found = run(tmp_path / "build", "--remote-workers=1", LOAD)
    assert found.code == 4
    assert "--remote-workers needs --url" in found.output


def test_a_server_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    """Nobody listens: the message says so, and what to check."""
    found = loaded(tmp_path, f"http://127.0.0.1:{free_port()}", "--endpoint=sentiment")
    assert found.code == 1
    assert "does not answer" in found.output
    assert "is the server running, and the URL right?" in found.output
    assert "Traceback" not in found.output


def test_what_is_not_installed_is_skipped_with_how_to_get_it(tmp_path: Path) -> None:
    """A fixture that finds a program or library missing skips its tests, as their own bodies would, with the hint."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['mlperf_loadgen'] = None\n")
    asked = ("--endpoint=sentiment", "suites/serving/test_mlperf.py", "-k", "test_the_server", "-rs")
    with double("queue", 1.0) as url:
        found = run(tmp_path / "build", f"--url={url}", *asked, environment={"PYTHONPATH": str(tmp_path)})
    assert found.code == 0, found.output
    assert "4 skipped" in found.output
    assert "MLPerf's LoadGen is not installed: pip install" in found.output
