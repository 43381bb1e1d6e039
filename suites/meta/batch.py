"""Many short runs of pytest, each a fork of one process that has imported the libraries.

`python -m suites.meta.batch` reads a JSON list of [log file, [argument, ...]] from standard input and writes the list
of exit codes. What belongs to the suite is imported anew by every run.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

import pytest

WARM = ("allure_pytest.plugin", "hypothesis", "numpy", "psutil", "pytest_benchmark.plugin", "scipy.special", "yaml")
TOO_LATE = "pytest.PytestAssertRewriteWarning"  # the price of warmth


def one(log: str, arguments: list[str]) -> int:
    """The exit code of one run, whose output goes to a file."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    code = int(pytest.main(["-p", "no:cacheprovider", "-W", f"ignore::{TOO_LATE}", *arguments]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for module in WARM:
        importlib.import_module(module)
    print(json.dumps([one(log, arguments) for log, arguments in json.load(sys.stdin)]))
