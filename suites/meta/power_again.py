"""The whole matrix against its own baseline: nothing may be red; then with one backend slower: its cases, no others.

`python -m suites.meta.power_again FOLDER [pytest arguments]` records a baseline in FOLDER, compares RUNS times with it,
and once more with the backend that SLOW_BACKEND names (else the one with most cases) slower by a tenth of its own time.
What is there already from a run that was cut off is kept. The series of launches of each run lie beside it
(`NAME.jsonl`); suites/meta/power_study.py reads them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fixtures.results import CaseRecord, Results
from fixtures.verdict import Outcome, worst
from suites.meta.runs import outside

ROOT = Path(__file__).resolve().parents[2]
SUITE = "suites/performance/test_baseline.py"
RUNS = 5
PLANTED = "planted"


@dataclass(frozen=True)
class Held:
    """What a run against the baseline decided: the worst outcome of each case's times, and the run's seconds."""

    outcomes: Mapping[str, Outcome]
    seconds: float

    @property
    def red(self) -> set[str]:
        """Cases that have become slower."""
        return {case for case, outcome in self.outcomes.items() if outcome is Outcome.FAIL}

    def __str__(self) -> str:
        counts = Counter(self.outcomes.values())
        told = ", ".join(f"{counts[each]} {each.value}" for each in Outcome if counts[each])
        return f"{len(self.outcomes)} cases in {self.seconds:.0f} s: {told or 'none compared'}"


def against_baseline(record: CaseRecord) -> Outcome:
    """The worst of the case's verdicts against its baseline; UNBOUNDED where it has none."""
    return worst(verdict.outcome for verdict in record.verdicts if verdict.statistic == "vs_baseline")


def held(results: Path) -> Held:
    """What a run has decided. Raises UserError where it left no results."""
    found = Results.read(results)
    outcomes = {record.id: against_baseline(record) for record in found.cases}
    seconds = float(found.run["duration_s"])
    return Held({case: outcome for case, outcome in outcomes.items() if outcome is not Outcome.UNBOUNDED}, seconds)


def run(folder: Path, name: str, *arguments: str, **environment: str) -> Path:
    """A run of the suite in a process of its own; returns its results, or those of one that has come to its end."""
    build, ended, series = folder / name, folder / f"{name}.ended", folder / f"{name}.jsonl"
    if not ended.exists():
        series.unlink(missing_ok=True)
        environment["SERIES_FILE"] = str(series)
        kept = (f"--build={build}", f"--cache={folder / 'cache'}", "--targets=suites.meta.series_recorder")
        words = [*arguments, *kept, SUITE]
        command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "conftest", "-q", *words]
        with (folder / f"{name}.log").open("w") as log:
            done = subprocess.run(
                command, cwd=ROOT, env={**outside(), **environment}, stdout=log, stderr=log, check=False
            )
        if done.returncode not in (0, 1):
            raise SystemExit(f"the run did not come to its end (status {done.returncode}); see {folder / name}.log")
        ended.touch()
    return build / "results.json"


def study(folder: Path, arguments: Sequence[str] = ()) -> str:
    """The runs, and what each found."""
    folder.mkdir(parents=True, exist_ok=True)
    baseline = folder / "baseline"
    run(folder, "record", f"--record-baseline={baseline}", *arguments)
    lines = []
    for number in range(1, RUNS + 1):
        found = held(run(folder, f"again-{number}", f"--baseline={baseline}", *arguments))
        lines.append(f"again, run {number}: {found}" + "".join(f"\n    red: {case}" for case in sorted(found.red)))
    if not found.outcomes:
        raise SystemExit(f"no case was compared; see {folder / f'again-{RUNS}'}.log")
    backends = Counter(case.split("/")[2] for case in found.outcomes)
    slow = os.environ.get("SLOW_BACKEND") or backends.most_common(1)[0][0]
    plant = "--targets=suites.meta.slow_backend"
    found = held(run(folder, PLANTED, f"--baseline={baseline}", *arguments, plant, SLOW_BACKEND=slow))
    return "\n".join([*lines, *planted(found, slow)])


def unchanged(folder: Path) -> list[Path]:
    """The series of the runs that have ended and had nothing planted."""
    return sorted(each.with_suffix(".jsonl") for each in folder.glob("*.ended") if each.stem != PLANTED)


def planted(found: Held, slow: str) -> list[str]:
    """Whether the red cases are those of the slow backend."""
    wanted = {case for case in found.outcomes if case.split("/")[2] == slow}
    lines = [
        f"{slow} slower by a tenth: {found}",
        f"    red of {slow}'s cases: {len(found.red & wanted)} of {len(wanted)}; of all others: "
        f"{len(found.red - wanted)} of {len(found.outcomes) - len(wanted)}",
    ]
    lines += [f"    not red: {case} ({found.outcomes[case].value})" for case in sorted(wanted - found.red)]
    return lines + [f"    red: {case}" for case in sorted(found.red - wanted)]


def main(arguments: Sequence[str]) -> int:
    """Print what the runs found."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    print(study(Path(arguments[0]), arguments[1:]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
