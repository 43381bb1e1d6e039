"""The suite's own power, measured on this machine: `python -m suites.meta.power FOLDER [PART ...]`.

    faults   plants every fault and prints which suite caught it, by which check, after how many seconds
    laps     records real laps for `gate` into FOLDER; each further time adds to what is there
    gate     replays those laps with slowdowns: how often each mode of the gate cries wolf, how often it sees them
    cost     what all of this adds to a case, in seconds, and what telemetry takes of a core
    again    holds the whole matrix against its own baseline, five times, and once with one backend slower by a tenth

Without parts: all but the last. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from suites.meta import cost_study, fault_run, fault_table, power_again, power_laps, power_study, versus_study

SESSIONS, ROUNDS = 4, 24
STORED, VERSUS = "gate.jsonl", "versus.jsonl"


def faults(folder: Path) -> str:
    """The fault catalogue as a matrix."""
    fault_run.run_all(folder / "faults")
    return fault_table.table(folder / "faults/results.json")


def laps(folder: Path) -> str:
    """Record real laps, in turns of both kinds so that both see the hours: against a yardstick, and of two sides."""
    for number in range(1, SESSIONS + 1):
        seconds = power_laps.session(folder / STORED, folder / "cache")
        status = versus_study.record(folder / VERSUS, ROUNDS, folder / "versus", folder / "cache")
        ended = f", the run in turns ended with status {status}" if status else ""
        print(f"session {number} of {SESSIONS}: {seconds:.0f} s against a yardstick{ended}", flush=True)
    return f"laps are in {folder}"


def gate(folder: Path) -> str:
    """The gate's false alarms and detections, with the seconds that each decision took."""
    stored, versus, whole = folder / STORED, folder / VERSUS, power_again.unchanged(folder / "again")
    tables = [f"the whole matrix:\n{power_study.table(power_study.read(*whole))}"] if whole else []
    if missing := [path for path in (stored, versus) if not path.exists()]:
        return "\n\n".join([*tables, f"{missing[0]} is not there: record laps first (part `laps`)"])
    tables += [power_study.table(power_study.read(stored)), versus_study.report(versus_study.read(versus))]
    return "\n\n".join(tables)


def cost(folder: Path) -> str:
    """What is added to a case."""
    return cost_study.study(folder / "cost")


def again(folder: Path) -> str:
    """The whole matrix against its own baseline."""
    return power_again.study(folder / "again")


PARTS: dict[str, Callable[[Path], str]] = {"laps": laps, "gate": gate, "faults": faults, "cost": cost, "again": again}
DEFAULT = ("laps", "gate", "faults", "cost")


def main(arguments: Sequence[str]) -> int:
    """Print the tables of the parts asked for."""
    unknown = [part for part in arguments[1:] if part not in PARTS]
    if not arguments or unknown:
        said = f"unknown part {', '.join(unknown)}; the parts are {', '.join(PARTS)}" if unknown else str(__doc__)
        print(said, file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    for part in arguments[1:] or DEFAULT:
        print(f"{part.upper()}\n{PARTS[part](folder)}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
