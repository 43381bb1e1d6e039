from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixtures import models
from fixtures.cases import Case
from fixtures.session import Session
from fixtures.subjects import Subject
from suites.meta.runs import PATIENCE_S, Run, Running, arguments, held_at, interrupt, let_go, run, traced, until

ORDER = ("plain", "load-error", "parent", "triplet")
TORN = "--targets=suites.meta.torn"
QUICK = (
    "-pno:allure_pytest",  # drawing charts takes longer than all else
    "suites/performance/test_performance.py::test_load",
    "suites/accuracy/test_accuracy.py::test_score",
    "suites/conformance/test_any_target.py::test_determinism",
)


@dataclass
class Scene:
    """A folder with model, data and trace, for runs that are cut short."""

    folder: Path

    @property
    def trace(self) -> Path:
        return self.folder / "trace"

    def start(self, *words: str, techniques: tuple[str, ...] = ORDER, held: str = "") -> Running:
        """A run over these techniques, `held` waiting in the midst of its calls; `parent` has a helper process."""
        asked = arguments(self.folder, *techniques)
        return Running(self.folder / "build", *asked, *QUICK, *words, environment=held_at(self.trace, held))

    def reaches(self, technique: str) -> bool:
        """Whether a target of this technique is in the midst of its calls in time."""
        return until(lambda: technique in dict(traced(self.trace, "busy")))

    def host(self, technique: str) -> int:
        """The process that loaded it last."""
        return dict(traced(self.trace))[technique]


def scene(factory: pytest.TempPathFactory) -> Scene:
    return Scene(factory.mktemp("scene"))


@pytest.fixture(scope="module")
def killed_host(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which the host of `triplet` was killed from outside."""
    there = scene(tmp_path_factory)
    running = there.start(techniques=("plain", "triplet"), held="triplet")
    assert there.reaches("triplet")
    os.kill(there.host("triplet"), signal.SIGKILL)
    let_go(there.trace)
    return running.wait()


def test_a_killed_host_fails_its_case(killed_host: Run) -> None:
    """After kill -9 on a host in mid-run the test at hand fails with its diagnosis, and the run is red."""
    case = killed_host.cases["triplet"]
    assert killed_host.code == 1
    assert case["status"] == "crashed"
    assert case["reason"].startswith("host died: signal SIGKILL (not by the kernel for want of memory")
    assert "memory last seen" in case["reason"]


def test_a_killed_host_fails_nothing_else(killed_host: Run) -> None:
    """The other tests of that case run in a new host, and the other cases are as always."""
    outcomes = [text.partition(":")[0] for text in killed_host.cases["triplet"]["checks"].values()]
    assert sorted(outcomes) == ["failed", "passed", "passed"]
    assert killed_host.cases["plain"]["status"] == "passed"
    assert killed_host.cases["plain"]["metrics"]["accuracy"] == 1.0


@dataclass
class Killed:
    """A run whose pytest was killed while `triplet` ran: what was left of it, and the runs after it."""

    scene: Scene
    remains: list[str]
    loaded: list[str]
    refused: Run
    resumed: Run
    again: Run


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    there = scene(tmp_path_factory)
    running = there.start(held="triplet")
    assert there.reaches("triplet")
    assert len(running.kin()) >= 4  # pytest, fork server, resource tracker, host
    os.kill(running.process.pid, signal.SIGKILL)
    until(lambda: not running.kin())
    remains = [" ".join(process.cmdline()) for process in running.kin()]
    running.end()
    loaded = [name for name, _ in traced(there.trace)]
    refused = there.start("--resume", "--seed=1").wait()
    resumed = there.start("--resume").wait()
    return Killed(there, remains, loaded, refused, resumed, there.start("--resume").wait())


def test_a_killed_run_leaves_no_process(killed: Killed) -> None:
    """After kill -9 on pytest in mid-run no host, fork server or helper of a target is left."""
    assert killed.remains == []


def test_a_resumed_run_repeats_no_finished_case(killed: Killed) -> None:
    """--resume runs the case that was cut short, and loads no finished one again, failed ones neither."""
    assert killed.loaded == ["plain", "load-error", "parent", "triplet"]
    loaded = [name for name, _ in traced(killed.scene.trace)]
    assert loaded == [*killed.loaded, "triplet"]


def test_a_resumed_run_has_whole_results(killed: Killed) -> None:
    """The results of a resumed run hold every case, and every answer once."""
    found = killed.resumed
    assert {name: case["status"] for name, case in found.cases.items()} == {
        "plain": "passed",
        "load-error": "failed",
        "parent": "passed",
        "triplet": "passed",
    }
    answers = [(line["case"], line["example"]) for line in found.lines("answers.jsonl")]
    assert len(answers) == len(set(answers)) == 3 * 40
    assert "3 finished cases are kept" in found.output


def test_a_red_case_keeps_a_resumed_run_red(killed: Killed) -> None:
    """A case that failed before the crash makes the resumed run fail, though all that ran in it passed."""
    assert "1 failed" not in killed.resumed.output.splitlines()[-1]
    assert killed.resumed.code == 1


def test_a_run_without_anything_left_keeps_its_colour(killed: Killed) -> None:
    """Resuming a finished run runs nothing, keeps the results and the exit code."""
    assert killed.again.code == 1
    assert killed.again.results["cases"] == killed.resumed.results["cases"]


def test_resume_with_other_options_is_refused(killed: Killed) -> None:
    """A run is resumed with the options it had; others are refused in one sentence that names the difference."""
    assert killed.refused.code == pytest.ExitCode.USAGE_ERROR
    (error,) = killed.refused.errors
    assert "options.seed was 0, is now 1" in error
    assert "Traceback" not in killed.refused.output


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scene, Running, Run]]:
    """A run that was interrupted while `parent` ran."""
    there = scene(tmp_path_factory)
    running = there.start(held="parent")
    assert there.reaches("parent")
    interrupt(running)
    code = running.process.wait(PATIENCE_S)
    yield there, running, Run(code, running.log.read_text(), running.build)
    running.end()


def test_ctrl_c_leaves_no_process(interrupted: tuple[Scene, Running, Run]) -> None:
    """After Ctrl-C no process of the run is left, helpers of targets neither."""
    _, running, _ = interrupted
    assert until(lambda: not running.kin()), running.kin()


def test_ctrl_c_keeps_what_was_found(interrupted: tuple[Scene, Running, Run]) -> None:
    """After Ctrl-C the results hold the finished cases and the one cut short, marked so, and the run is red."""
    _, _, found = interrupted
    assert found.code == pytest.ExitCode.INTERRUPTED
    assert [(case["optimization"], case["status"]) for case in found.results["cases"]] == [
        ("plain", "passed"),
        ("load-error", "failed"),
        ("parent", "interrupted"),
    ]
    assert found.cases["parent"]["reason"] == "the run ended before this case did"


def test_an_interrupted_run_can_be_resumed(interrupted: tuple[Scene, Running, Run]) -> None:
    """After Ctrl-C, --resume runs what was not finished: the case cut short from its start, and those after it."""
    there, _, _ = interrupted
    found = there.start("--resume").wait()
    assert [name for name, _ in traced(there.trace)][-2:] == ["parent", "triplet"]
    assert [case["status"] for case in found.results["cases"]] == ["passed", "failed", "passed", "passed"]


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Run, Run, bytes]:
    """A run killed amid writing its second record, the run that resumed it, and the journal in between."""
    there = scene(tmp_path_factory)
    names = ("plain", "twin", "load-error")
    cut = there.start(TORN, techniques=names).wait()
    journal = (there.folder / "build" / "journal.jsonl").read_bytes()
    return there, cut, there.start("--resume", TORN, techniques=names).wait(), journal


def test_a_record_cut_short_is_run_again(torn: tuple[Scene, Run, Run, bytes]) -> None:
    """After kill -9 amid a write the whole records are kept, the torn one is run again, and the journal is whole."""
    there, cut, resumed, journal = torn
    assert cut.code == -signal.SIGKILL
    assert not journal.endswith(b"\n")
    assert len(journal.splitlines()) == 3
    assert "1 finished cases are kept, 2 are left" in resumed.output
    assert [name for name, _ in traced(there.trace)] == ["plain", "load-error", "load-error", "twin"]
    _header, *lines = resumed.lines("journal.jsonl")
    assert [line["id"] for line in lines] == [case["id"] for case in resumed.results["cases"]]
    assert len(lines) == 3


def test_a_reboot_does_not_hinder_a_resumed_run(torn: tuple[Scene, Run, Run, bytes]) -> None:
    """What a run must share with the one it resumes holds nothing that a reboot changes: no boot id, no process."""
    header = json.loads(torn[3].splitlines()[0])
    assert set(header["key"]) == {"device", "power_mode", "options", "files", "models", "environment"}
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        assert boot.read_text().strip() not in json.dumps(header)


def test_resume_compares_contents(tmp_path: Path) -> None:
    """A model or a prompts file that changed under its name is another run: refused, and named."""
    (tmp_path / "prompts.txt").write_text("once upon a time\n")
    words = [*arguments(tmp_path, "plain"), *QUICK, f"--prompts={tmp_path / 'prompts.txt'}"]
    assert run(tmp_path / "build", *words).code == 0
    assert run(tmp_path / "build", *words, "--resume").code == 0
    (tmp_path / "prompts.txt").write_text("once upon another time\n")
    weights = tmp_path / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    refused = run(tmp_path / "build", *words, "--resume")
    assert refused.code == pytest.ExitCode.USAGE_ERROR
    (error,) = refused.errors
    assert "models.sentiment/tiny was" in error
    assert "prompts.txt was" in error


@dataclass
class Asked:
    """As much of a session as tells which files are the user's own."""

    cases: list[Case]
    build: Path

    def subject(self, case: Case) -> Subject:
        options = SimpleNamespace(cache=self.build, offline=True, trust_pickle=False)
        found = models.own_gguf(case.task, self.build / "own.gguf")
        return Subject(found, options, lambda *_: None)  # type: ignore[arg-type]


def test_a_gguf_is_compared_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of a run over a GGUF of one's own holds the sha256 of its content, whatever its name."""
    monkeypatch.setattr("targets.gguf.file.check", lambda _: None)
    monkeypatch.setattr("targets.gguf.file.shards", lambda path: [path])
    asked = Asked([Case("generation", "own", "llama-cpp-python", "as-is")], tmp_path)
    found = []
    for content in (b"some", b"other"):
        (tmp_path / "own.gguf").write_bytes(content)
        found.append(Session.own_digests(asked))  # type: ignore[arg-type]
    assert found == [{"generation/own": sha256(content).hexdigest()} for content in (b"some", b"other")]
