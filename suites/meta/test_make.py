from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from suites.meta.runs import ROOT, outside


@pytest.mark.parametrize("target", ["bench", "serving"])
def test_a_path_from_elsewhere_may_follow_its_option(target: str, tmp_path: Path) -> None:
    """What make runs takes `--cache DIR` in two words, although pytest itself takes DIR for a folder of tests."""
    words = f"--collect-only -q --cache {tmp_path}"
    told = subprocess.run(
        ["make", "-n", target, f"ARGS={words}"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (line,) = [line for line in told.splitlines() if "-m pytest" in line]
    command = shlex.split(line.partition(";")[0])
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=ROOT, env=outside(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "collected" in done.stdout
