from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from fixtures.fleet import board as boards
from fixtures.fleet import merge
from fixtures.fleet.run import sentence
from fixtures.results import Results
from suites.meta import sample_records
from suites.meta.runs import ROOT, Run, Running, arguments, data, held_at, let_go, run, traced, until
from targets.api import UserError

QUICK = ("-pno:allure_pytest", "suites/accuracy/test_accuracy.py::test_score")
TIMED = "suites/performance/test_performance.py::test_load"


def write(path: Path, name: str, serial: str = "", slower: float = 1.0, **device: object) -> Path:
    """The sample run as a board called `name` would have measured it."""
    found = sample_records.results()
    found.device |= {"name": name, **device}
    found.run["board"] = serial
    for case in found.cases:
        case.metrics = {key: value * slower if "_ms" in key else value for key, value in case.metrics.items()}
    found.write(path)
    return path


def merged(*words: object) -> subprocess.CompletedProcess[str]:
    """`python -m fixtures.results`, as a user types it."""
    command = [sys.executable, "-m", "fixtures.results", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_boards_stand_side_by_side(tmp_path: Path) -> None:
    """The table has a row a case and a column a board, with the headline metric and the verdict in each cell."""
    files = [write(tmp_path / "nano.json", "jetson-orin-nano", slower=3), write(tmp_path / "x86.json", "cpu")]
    done = merged("merge", tmp_path / "out.json", *files)
    assert done.returncode == 0, done.stderr
    title, _, header, _, *rows = done.stdout.splitlines()
    assert title == "ACROSS BOARDS  sentiment / embedded  (p50 ms, verdict)"
    assert header.split() == ["Case", "jetson-orin-nano", "cpu"]
    assert [row.split() for row in rows[:3]] == [
        ["huggingface/fp32", "18.8", "PASS", "6.25", "PASS"],
        ["onnxruntime/int8-dynamic", "6.00", "PASS", "2.00", "PASS"],
        ["huggingface/torchscript", "n/a", "INVALID", "n/a", "INVALID"],
    ]
    assert rows[4].split() == ["onnxruntime/fp32", "n/a", "CRASH", "n/a", "CRASH"]
    assert "jetson-orin-nano: onnxruntime/fp32: crashed: host died: signal SIGSEGV" in done.stdout
    content = json.loads((tmp_path / "out.json").read_text())
    assert (content["schema"], list(content["boards"])) == (1, ["jetson-orin-nano", "cpu"])
    assert Results.from_json(content["boards"]["cpu"], "x").as_json() == json.loads(files[1].read_text())


def test_a_merged_file_can_be_merged_again(tmp_path: Path) -> None:
    """What was merged counts as its boards."""
    first, second, third = (write(tmp_path / f"{name}.json", name) for name in ("a", "b", "c"))
    assert merged("merge", tmp_path / "ab.json", first, second).returncode == 0
    found = merge.read([tmp_path / "ab.json", third])
    assert [each.name for each in found] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("differing", "names"),
    [
        ({"power_mode": "15W"}, ["nano 15W", "nano None"]),
        ({"serial": "abcdef012345"}, ["nano abcdef", "nano 000000"]),
        ({}, ["nano one", "nano two"]),
    ],
)
def test_two_boards_of_a_kind_are_told_apart(tmp_path: Path, differing: dict[str, Any], names: list[str]) -> None:
    """Boards of one profile are called by their power mode, else their serial number, else their file."""
    one = write(tmp_path / "one.json", "nano", **{"serial": "000000000000", **differing})
    two = write(tmp_path / "two.json", "nano", serial="000000000000", slower=2)
    assert [each.name for each in merge.read([one, two])] == names


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    """One run under two names is no second board."""
    one, two = write(tmp_path / "one.json", "nano"), write(tmp_path / "two.json", "nano")
    with pytest.raises(UserError, match=r"one\.json and .*two\.json hold the same run"):
        merge.read([one, two])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"schema": 2, "cases": []}', "should hold results of schema 1, has 2"),
        ('{"schema": 2, "boards": {"a": {}}}', "should hold boards of schema 1, has 2"),
        ('{"schema": 1, "boards": {"a": {}}}', "bad.json: a: should hold results of schema 1, has none"),
        ('{"schema": 1, "devi', "truncated or not JSON"),
        (None, "no such results file"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    """Another schema, a truncated file and a missing one are told in one sentence, and nothing is written."""
    bad = tmp_path / "bad.json"
    if content is not None:
        bad.write_text(content)
    done = merged("merge", tmp_path / "out.json", write(tmp_path / "good.json", "cpu"), bad)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out.json").exists()


def test_the_command_says_how_it_is_used() -> None:
    """Without files, or with another word, the usage is told."""
    for words in ((), ("merge",), ("merge", "out.json"), ("join", "a", "b")):
        done = merged(*words)
        assert (done.returncode, done.stderr) == (2, "usage: python -m fixtures.results merge OUT FILE...\n")


def test_many_boards_fold(tmp_path: Path) -> None:
    """A table that would be wider than a terminal goes on below, and no line is longer."""
    files = [write(tmp_path / f"{n}.json", f"jetson-orin-nano-{n}", serial=str(n)) for n in range(9)]
    text = merge.across(merge.read(files))
    assert max(map(len, text.splitlines())) <= 120
    assert text.count("\nCase ") == 3
    assert all(f"jetson-orin-nano-{n}" in text for n in range(9))


def test_what_was_asked_differently_is_said(tmp_path: Path) -> None:
    """Boards that did not get the same options are named, since their numbers are not alike."""
    one, two = write(tmp_path / "one.json", "a"), write(tmp_path / "two.json", "b")
    data = json.loads(two.read_text())
    data["options"] |= {"samples": 10, "command": "other"}
    two.write_text(json.dumps(data))
    text = merge.across(merge.read([one, two]))
    assert "asked differently: samples: a null, b 10" in text
    assert "command" not in text


def test_a_board_is_known_by_its_serial_number(tmp_path: Path) -> None:
    """The serial number tells a board before the machine id does; neither is readable in the result."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("aaaa\n")
    by_image = boards.identity(tmp_path)
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/serial-number").write_text("1420000000001\0")
    by_serial = boards.identity(tmp_path)
    assert by_image != by_serial
    assert all(len(each) == 12 and int(each, 16) >= 0 for each in (by_image, by_serial))


def test_what_a_board_died_of_is_one_sentence() -> None:
    """Of a traceback the message of the refusal is left, else the last line; a missing execnet says how to get it."""
    trace = 'Traceback\n  File "x"\npytest.UsageError: -m jetson asks for jetson\n  and more'
    assert sentence(trace) == "-m jetson asks for jetson"
    assert sentence("a\nNot properly terminated\n") == "Not properly terminated"
    assert "pip install" in sentence("ModuleNotFoundError: No module named 'execnet'")


def fleet(folder: Path, *words: str, technique: str = "plain,twin", held: str = "") -> Running:
    """Two boards on this machine."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed: pip install '.[parallel]'")
    asked = [*arguments(folder, *technique.split(",")), *QUICK, "--dist=each", "--tx=2*popen", *words]
    data(folder / "data.tsv", 40)
    return Running(folder / "build", *asked, environment=held_at(folder / "trace", held))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two boards that are this machine, asked for a score and a load time."""
    return fleet(tmp_path_factory.mktemp("fleet"), TIMED).wait()


def test_every_board_runs_everything(found: Run) -> None:
    """Each worker's results are kept under its board's name, and hold every case."""
    assert found.code == 0, found.output
    files = sorted(found.build.glob("results-*.json"))
    assert [path.name for path in files] == ["results-cpu-gw0.json", "results-cpu-gw1.json"]
    for path in files:
        content = Results.read(path)
        assert [case.status for case in content.cases] == ["passed", "passed"]
        assert content.run["board"] == boards.identity()
    assert "ACROSS BOARDS  sentiment / tiny  (accuracy, verdict)" in found.output
    assert "cpu gw0" in found.output
    assert "gw1: sentiment/tiny/fake/twin  passed" in found.output


def test_a_board_keeps_its_own_files(found: Run) -> None:
    """A board writes to a folder of its own, so that two of them can share a disk."""
    for name in ("gw0", "gw1"):
        assert {path.name for path in (found.build / name).iterdir()} >= {"results.json", "journal.jsonl"}


def test_boards_on_one_machine_are_not_timed(found: Run) -> None:
    """Two workers on one machine disturb each other: what is timed is left out, and a sentence says so."""
    assert "gw0 left out 2 tests of performance, for it shares its machine" in found.output
    assert "accuracy/test_accuracy.py::test_score" in found.output or found.code == 0
    checks = {name for case in Results.read(found.build / "results-cpu-gw0.json").cases for name in case.checks}
    assert checks == {"accuracy/test_accuracy.py::test_score"}


def test_one_board_a_machine_is_timed(tmp_path: Path) -> None:
    """A worker that has its machine for itself runs the performance suite too."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed: pip install '.[parallel]'")
    asked = [*arguments(tmp_path, "plain"), "-pno:allure_pytest", TIMED, "--dist=each", "--tx=popen"]
    done = run(tmp_path / "build", *asked)
    assert done.code == 0, done.output
    (case,) = Results.read(tmp_path / "build" / "results-cpu-gw0.json").cases
    assert case.metrics["load_s"] > 0


def test_a_board_that_refuses_is_named(tmp_path: Path) -> None:
    """What a board refuses as bad input ends the run in one sentence that names the board."""
    done = fleet(tmp_path, "-m=jetson").wait()
    assert done.code == pytest.ExitCode.USAGE_ERROR
    (error,) = done.errors
    assert "gw" in error
    assert "(popen): -m 'jetson' asks for jetson, but this machine is cpu" in error


def test_a_board_that_dies_loses_what_it_had_not_sent_only(tmp_path: Path) -> None:
    """After kill -9 on a board its ended cases are kept, the one under way is marked, the other board is whole."""
    running = fleet(tmp_path, technique="plain,triplet", held="triplet")
    assert until(lambda: "triplet" in dict(traced(tmp_path / "trace", "busy")))
    host = dict(traced(tmp_path / "trace", "busy"))["triplet"]  # the other board may be busy with "plain" yet
    victim = next(
        parent for parent in psutil.Process(host).parents() if "multiprocessing" not in " ".join(parent.cmdline())
    )
    os.kill(victim.pid, signal.SIGKILL)
    let_go(tmp_path / "trace")
    done = running.wait()
    assert done.code == 1, done.output
    assert "lost: gw" in done.output
    statuses = [
        {case.optimization: case.status for case in Results.read(path).cases}
        for path in sorted((tmp_path / "build").glob("results-*.json"))
    ]
    assert sorted(map(str, statuses)) == sorted(
        map(str, [{"plain": "passed", "triplet": "interrupted"}, {"plain": "passed", "triplet": "passed"}])
    )
