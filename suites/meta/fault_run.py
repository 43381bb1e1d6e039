"""Runs the suites over the planted faults, in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fixtures.options import ROOT
from fixtures.results import Results
from suites.meta import generator_faults  # noqa: F401 - files its faults
from suites.meta.fault_catalogue import FAULTS, SOUND
from suites.meta.runs import outside
from targets.registry import tasks

ALL_TASKS = FAULTS[SOUND].tasks
CHECKS = (
    "not test_size and not latency and not throughput and (not speedup or slow or sound) and not (slow and conformance)"
)
"""What runs: all but the checks without a limit here, and what takes long only where it tells something."""
TOKEN_CHECKS = (
    "not acceptance and not grows and not test_size and not first_token and not prefill and not batches"
    " and not llama_bench and not odd_prompts and not reloading and (not decode_rate or late or remembered or sound)"
    " and (not speedup or slow) and not (slow and conformance)"
)
"""As above, for generators; what other faults have shown to work is left to them."""
LIMIT_S = 900


def run_all(folder: Path) -> Results:
    """Encoders, then generators; one Results of both, which `folder` keeps as results.json."""
    encoders = [task for task in ALL_TASKS if tasks[task].family == "encoder"]
    generators = [task for task in ALL_TASKS if task not in encoders]
    found = suites_over(folder / "encoders", encoders, CHECKS, "--samples=60")
    others = suites_over(folder / "generators", generators, TOKEN_CHECKS, "--samples=16")
    both = replace(found, cases=[*found.cases, *others.cases])
    both.write(folder / "results.json")
    return both


def suites_over(build: Path, wanted: Sequence[str], checks: str, *options: str) -> Results:
    """One run over the faults of these tasks."""
    command = [
        *(sys.executable, "-m", "pytest", "-q", "--tb=short", "--no-header", "-p", "no:cacheprovider", "--offline"),
        "--targets=suites.meta.faults",
        f"--backend={','.join(f'faulty-{task}' for task in wanted)}",
        f"--thresholds={ROOT / 'suites/meta/faults_thresholds.yaml'}",
        *(*options, "--call-timeout=15", f"--build={build}", "-k", checks),
    ]
    # a passive wait: threads that spin for work would fight with whatever else runs on this machine
    environment = {**outside(), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    path = build / "results.json"
    if done.returncode != 1:  # pytest's word for checks that failed, as they must
        raise RuntimeError(f"status {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return Results.read(path)
