"""Records real laps for the study of the gate: `python -m suites.meta.power_laps FILE [SESSIONS] [pytest arguments]`.

A session is a run of the suite with --record-baseline in processes of its own, as production measures: a few visits
to each case. Sessions follow one another for as long as it takes, so that what differs from hour to hour is among what
the study replays. FILE is appended to, a line of JSON a visit.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from suites.meta.runs import outside

ROOT = Path(__file__).resolve().parents[2]
SELECTIONS = (
    ("--task=sentiment", "--backend=onnxruntime,huggingface", "--optimization=fp32,int8"),
    ("--task=generation", "--backend=onnxruntime,llama-cpp-python", "--optimization=fp32,q4_k_m"),
)
"""What is recorded unless arguments say otherwise: encoders and decoders, one thread pool of each kind."""


def session(file: Path, cache: Path, selections: Sequence[tuple[str, ...]] = SELECTIONS) -> float:
    """A few visits to each case of the selections; the seconds that took."""
    began = time.monotonic()
    for selection in selections:
        run(selection, file, cache)
    return time.monotonic() - began


def run(arguments: tuple[str, ...], file: Path, cache: Path) -> None:
    """A run of the suite that records. Raises SystemExit where it recorded nothing."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*arguments, f"--record-baseline={folder}/baseline", f"--build={folder}/build", f"--cache={cache}"]
        words += ["--targets=suites.meta.series_recorder", "suites/performance/test_baseline.py"]
        environment = {**outside(), "SERIES_FILE": str(file.resolve())}
        command = [sys.executable, "-m", "pytest", "-q", *words]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if not [*Path(folder, "baseline").glob("*.json")]:
            raise SystemExit(f"nothing was recorded (status {done.returncode}):\n{(done.stdout + done.stderr)[-4000:]}")


def main(arguments: list[str]) -> int:
    """Record sessions."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    file, rounds = Path(arguments[0]), int(arguments[1]) if len(arguments) > 1 else 12
    selections = (tuple(arguments[2:]),) if len(arguments) > 2 else SELECTIONS
    with tempfile.TemporaryDirectory() as cache:
        for number in range(1, rounds + 1):
            seconds = session(file, Path(cache), selections)
            print(f"session {number} of {rounds}: {seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
