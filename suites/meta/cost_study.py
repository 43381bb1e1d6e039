"""What a verdict one can defend costs: seconds it adds to a case, and what telemetry takes of a core.

`python -m suites.meta.cost_study FOLDER [pytest arguments]` runs cases with suites/meta/cost_sampler.py
and prints which files took how much of its time. Laps are no cost: they are what a case is there for.
Nor counted are the device's peaks, which a host measures once and a file keeps.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fixtures.results import Results
from fixtures.telemetry.sampler import MOST_SHARE
from suites.meta.runs import outside

ROOT = Path(__file__).resolve().parents[2]
SELECTION = (
    "--task=sentiment,ner,generation",
    "--backend=onnxruntime,huggingface,llama-cpp-python",
    "--optimization=fp32,int8,q4_k_m",
    "suites/performance",
)
COSTS = (
    "fixtures/baseline/",
    "fixtures/charts.py",
    "fixtures/clock.py",
    "fixtures/judging.py",
    "fixtures/power/",
    "fixtures/roofline/",
    "fixtures/sequential.py",
    "fixtures/shares.py",
    "fixtures/statistics.py",
    "fixtures/steadiness.py",
    "fixtures/telemetry/",
    "fixtures/verdict.py",
    "targets/devices/",
)
"""Where statistics, telemetry, roofline and gate live: all of these files, what they would do anyway included."""
MOST_S = 0.3
SHOWN = 6


def run(folder: Path, arguments: Sequence[str]) -> tuple[dict[str, Counter[str]], Results]:
    """A run: seconds by case and file, and its results. Raises SystemExit where it did not come to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    file, build = folder / "cost.json", folder / "build"
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "conftest", "-q"]
    command += ["-p", "suites.meta.cost_sampler", f"--build={build}", f"--cache={folder.parent / 'cache'}", *arguments]
    environment = {**outside(), "COST_FILE": str(file.resolve())}
    with (folder / "cost.log").open("w") as log:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(f"the run did not come to its end (status {done.returncode}); see {folder / 'cost.log'}")
    seconds = {case: Counter(files) for case, files in json.loads(file.read_text()).items()}
    return seconds, Results.read(build / "results.json")


def added(files: Mapping[str, float]) -> Counter[str]:
    """The files that are cost, and their seconds."""
    return Counter({file: seconds for file, seconds in files.items() if file.startswith(COSTS)})


def table(seconds: Mapping[str, Mapping[str, float]], results: Results) -> str:
    """Seconds added to a case and once a run, the files they pass in, and what telemetry takes."""
    measured = {record.id for record in results.cases if record.status != "skipped"} & set(seconds)
    if not measured:
        raise SystemExit("no case was measured")
    cases = [added(seconds[case]) for case in sorted(measured)]
    totals = [sum(files.values()) for files in cases]
    by_file = sum(cases, Counter())
    telemetry = results.run["telemetry"]
    once = sum(added(seconds.get("", {})).values())
    lines = [
        f"added to a case: median {np.median(totals):.2f} s, mean {np.mean(totals):.2f} s, most {max(totals):.2f} s of "
        f"{len(totals)} cases (should be {MOST_S} s at most); once a run: {once:.2f} s",
        *(f"    {file:<40}{spent / len(totals):>8.3f} s a case" for file, spent in by_file.most_common(SHOWN)),
    ]
    share = telemetry.get("own_cpu_share")
    lines.append(
        f"telemetry: {share:.2%} of a core at {telemetry['hz']:g} Hz (should be {MOST_SHARE:.0%} at most)"
        if share is not None
        else "telemetry: off"
    )
    return "\n".join(lines)


def study(folder: Path, arguments: Sequence[str] = SELECTION) -> str:
    """Run, and the table."""
    return table(*run(folder, arguments))


def main(arguments: Sequence[str]) -> int:
    """Print what it costs."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    print(study(Path(arguments[0]), arguments[1:] or SELECTION))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
